package job

import "strings"

// covers reports whether a policy's pattern allows a capability. A '*' stands for any run of characters but '/' and
// ':'. A path covers itself and everything below it, and write covers read of the same place. A pattern without a host
// covers every host: egress:443 allows egress:example.org:443 too.
func covers(pattern, capability string) bool {
	kindP, p, okP := strings.Cut(pattern, ":")
	kindC, c, okC := strings.Cut(capability, ":")
	switch {
	case pattern == capability: // such as checkpoint, which is all of it
		return true
	case !okP || !okC:
		return false
	case kindC == "read" || kindC == "write":
		return (kindP == kindC || kindP == "write" && kindC == "read") && coversPath(p, c)
	case kindP != kindC:
		return false
	case kindC == "egress":
		return coversEgress(p, c)
	}
	return glob(p, c)
}

// coversPath reports whether path is dir or below it, both clean; '*' in dir stands for a run within an element.
func coversPath(dir, path string) bool {
	if dir == "/" {
		return true
	}
	want, got := strings.Split(dir, "/"), strings.Split(path, "/")
	if len(got) < len(want) {
		return false
	}
	for i := range want {
		if !glob(want[i], got[i]) {
			return false
		}
	}
	return true
}

// coversEgress compares [HOST:]PORT[/udp]. Hosts are compared without regard to case.
func coversEgress(pattern, asked string) bool {
	hostP, portP, udpP := splitEgress(pattern)
	hostC, portC, udpC := splitEgress(asked)
	return udpP == udpC && glob(portP, portC) && (hostP == "" || hostC != "" && glob(hostP, hostC))
}

func splitEgress(text string) (host, port string, udp bool) {
	text, udp = strings.CutSuffix(text, "/udp")
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		return strings.ToLower(text[:i]), text[i+1:], udp
	}
	return "", text, udp
}

// glob reports whether text matches a pattern in which '*' stands for any run of characters but '/' and ':'. It takes
// time in the product of both lengths at most.
func glob(pattern, text string) bool {
	star, retry := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, retry = p, t
			p++
		case p < len(pattern) && pattern[p] == text[t]:
			p++
			t++
		case star >= 0 && text[retry] != '/' && text[retry] != ':':
			retry++
			p, t = star+1, retry
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
