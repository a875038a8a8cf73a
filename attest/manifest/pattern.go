package manifest

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// pattern is a rule that a string follows. Validate and Schema use the same one.
type pattern struct {
	text string                // regular expression, in the common subset of RE2 and ECMA 262
	re   func() *regexp.Regexp // compiled when first used: all of them would cost every start 3 ms
	fits func(string) bool     // whether a string is within the bounds of text that re does not have; nil: it has all
	says string                // completes "want …"
}

// match reports whether s follows the rule.
func (p pattern) match(s string) bool { return (p.fits == nil || p.fits(s)) && p.re().MatchString(s) }

const (
	dnsLabel    = `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`
	hostPattern = `[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*`
	identityRE  = `did:key:z[1-9A-HJ-NP-Za-km-z]+|openpgp:[0-9A-F]{40}|sha256:[0-9a-f]{64}`
	portRE      = `([1-9][0-9]{0,4})`
)

// patterns are the rules that the schema tags of fields name.
var patterns = map[string]pattern{
	"name":          bounded(parts(".", 63), `^`+dnsLabel+`(\.`+dnsLabel+`)*$`, "lower-case letters, digits and '-', in labels joined by '.'"),
	"owner":         bounded(owned, `^[a-z][a-z0-9-]*:[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$`, "KIND:NAME, such as user:alice"),
	"label":         bounded(upTo(128), `^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$`, "at most 128 letters, digits, '.', '_', '/' and '-', with a letter or digit first and last"),
	"time":          rule(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`, "a time in UTC to the second, such as 2026-01-31T12:00:00Z"),
	"identity":      rule(`^(`+identityRE+`)$`, "an identity: did:key:z…, openpgp: and 40 upper-case hexadecimal digits, or sha256: and the hexadecimal key id"),
	"audience":      rule(`^(`+identityRE+`|`+dnsLabel+`(\.`+dnsLabel+`)*)$`, "an identity (did:key:z…) or the name of a node or pool"),
	"base64":        rule(`^([A-Za-z0-9+/]{2,}|[A-Za-z0-9_-]{2,})={0,2}$`, "base64"),
	"filename":      bounded(upTo(128), `^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`, "at most 128 letters, digits, '.', '_', '+' and '-', with a letter or digit first"),
	"abspath":       rule(`^(/|(/[^/]+)+)$`, "an absolute path without empty, '.' and '..' elements and without a slash at the end"),
	"env":           bounded(upTo(256), `^[A-Za-z_][A-Za-z0-9_]{0,255}$`, "the name of an environment variable: letters, digits and '_', not a digit first"),
	"symbol":        bounded(upTo(256), `^[A-Za-z0-9_.$:-]{1,256}$`, "the name of an exported function"),
	"nonce":         bounded(upTo(128), `^[A-Za-z0-9_-]{8,128}$`, "8 to 128 letters, digits, '_' and '-'"),
	"imageUser":     bounded(parts(":", 64), `^[a-z0-9_][a-z0-9_.-]{0,63}(:[a-z0-9_][a-z0-9_.-]{0,63})?$`, "USER or USER:GROUP"),
	"netCapability": rule(`^egress:(`+hostPattern+`:)?`+portRE+`(/udp)?$`, "egress:PORT or egress:HOST:PORT"),
	"fsCapability":  rule(`^(read|write):(/|(/[^/]+)+)$`, "read:/PATH or write:/PATH"),
	"cdiDevice":     rule(`^[A-Za-z0-9][A-Za-z0-9.-]*/[A-Za-z0-9][A-Za-z0-9._-]*=[A-Za-z0-9][A-Za-z0-9._:-]*$`, "a Container Device Interface name: VENDOR/CLASS=DEVICE"),
	"factKey":       rule(`^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$`, "lower-case words joined by '.', such as energy.price_eur_kwh"),
	"pattern":       rule(`^[A-Za-z0-9*/][A-Za-z0-9*._:/@+~=-]*$`, "a pattern of letters, digits, '*' and . _ : / @ + ~ = -"),
	"capability":    rule(`^(egress:([A-Za-z0-9*.-]+:)?(\*|`+portRE+`)(/udp)?|(read|write):(/|(/[^/]+)+)|device:[A-Za-z0-9*./=_:-]+|clock:real|randomness:real|checkpoint)$`, "egress:PORT, egress:HOST:PORT, read:/PATH, write:/PATH, device:NAME, clock:real, randomness:real or checkpoint"),
	"typeURI":       rule(`^https?://[A-Za-z0-9.-]+/[A-Za-z0-9._~/@-]+$`, "a type URI, such as https://slsa.dev/provenance/v1"),
	"multiaddr":     rule(`^(/[A-Za-z0-9._:%-]+)+$`, "a multiaddress, such as /ip4/192.0.2.1/udp/7340/quic-v1"),
	"platform":      rule(`^[a-z0-9]+/[a-z0-9]+$`, "GOOS/GOARCH"),
}

func rule(text, says string) pattern {
	return pattern{text: text, re: compiled(text), says: says}
}

// bounded is a rule whose expression has large bounds of repeats, {n,m}. A compiler of expressions makes m copies of what is repeated,
// each inside the one before, which takes longer than all else that is done to a small document. So fits counts, and the expression that
// is compiled leaves the bounds above open.
func bounded(fits func(string) bool, text, says string) pattern {
	re := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(open(text)) })
	return pattern{text: text, re: re, fits: fits, says: says}
}

// open writes every {n,m} of an expression as {n,}. A comma is nowhere else in it.
func open(text string) string {
	parts := strings.Split(text, ",")
	for i := range parts[1:] {
		parts[i+1] = strings.TrimLeft(parts[i+1], "0123456789")
	}
	return strings.Join(parts, ",")
}

func upTo(n int) func(string) bool { return func(s string) bool { return len(s) <= n } }

// parts says that what is between separators has at most n bytes.
func parts(separator string, n int) func(string) bool {
	return func(s string) bool {
		for part := range strings.SplitSeq(s, separator) {
			if len(part) > n {
				return false
			}
		}
		return true
	}
}

// owned says that the name of an owner has at most 128 bytes.
func owned(s string) bool {
	_, name, _ := strings.Cut(s, ":")
	return len(name) <= 128
}

// compiled returns what compiles an expression once, when it is first needed.
func compiled(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// within reports whether the clean absolute path p is dir or below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// cleanRelative reports whether p is a clean path that stays below where it starts.
func cleanRelative(p string) bool {
	return cleanUpward(p) && p != "." && p != ".." && !strings.HasPrefix(p, "../")
}

// cleanUpward reports whether p is a clean relative path, which may begin with "..".
func cleanUpward(p string) bool {
	return p != "" && path.Clean(p) == p && !path.IsAbs(p)
}

// didYouMean returns a hint that names the nearest of known, or lists them.
func didYouMean(got string, known []string) string {
	slices.Sort(known)
	best, bestDist := "", 3
	for _, k := range known {
		if d := distance(strings.ToLower(got), strings.ToLower(k)); d < bestDist && d < len(k) {
			best, bestDist = k, d
		}
	}
	switch {
	case best != "":
		return "did you mean " + best + "?"
	case len(known) == 0:
		return ""
	case len(known) > 24:
		return "known are, among others, " + strings.Join(known[:24], ", ")
	}
	return "known are " + strings.Join(known, ", ")
}

// distance is the edit distance of a and b, or 99 if the lengths alone make it more than two.
func distance(a, b string) int {
	if len(a) > len(b)+2 || len(b) > len(a)+2 {
		return 99
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(diagonal+cost, row[j]+1, row[j+1]+1)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

func keysOf[V any](m map[string]V) []string { return slices.Collect(maps.Keys(m)) }
