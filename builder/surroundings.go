package builder

import "strings"

// surroundings are what a build runs in beside its inputs. The manifest does not name them, the claim does not
// record them, and a reproducible build does not show them.
type surroundings struct {
	buildDir    string
	uid, gid    int
	hostname    string
	locale, tz  string
	umask       int
	cpus        int // zero: all
	reverse     bool
	clockOffset int64 // seconds
}

// BuildDir is the writable directory of every build; manifests name their paths below it.
const BuildDir = "/build"

// standard returns the surroundings of a first build.
func standard() surroundings {
	return surroundings{
		buildDir: BuildDir, uid: 1000, gid: 100, hostname: "localhost", locale: "C", tz: "UTC", umask: 0o22,
	}
}

// vary returns s with the given factors changed. The values are chosen to be legal everywhere and far from the
// standard ones: the time zone is 5 h 45 min east in POSIX notation, which needs no zone database; the clock goes
// forward by 400 days and some hours, so that year, month, weekday and hour differ.
func (s surroundings) vary(fs []Factor) surroundings {
	for _, f := range fs {
		switch f {
		case FactorTime:
			s.clockOffset = 400*86400 + 7*3600 + 11*60 + 13
		case FactorPath:
			s.buildDir = "/another/place/to-build-in"
		case FactorUID:
			s.uid, s.gid = 4321, 1234
		case FactorHostname:
			s.hostname = "elsewhere.example"
		case FactorLocale:
			s.locale = "C.UTF-8"
		case FactorTZ:
			s.tz = "<+0545>-5:45"
		case FactorUmask:
			s.umask = 0o77
		case FactorCPUs:
			s.cpus = 1
		case FactorOrder:
			s.reverse = true
		}
	}
	return s
}

// place moves every path at or below BuildDir that occurs in text to s's build directory. It knows arguments,
// lists such as PATH, options with a value joined (-I/build/include, --prefix=/build/out), file URLs and shell commands.
func (s surroundings) place(text string) string {
	if s.buildDir == BuildDir {
		return text
	}
	var out strings.Builder
	done := 0 // what is before it is in out
	for from := 0; ; {
		i := strings.Index(text[from:], BuildDir)
		if i < 0 {
			out.WriteString(text[done:])
			return out.String()
		}
		start, end := from+i, from+i+len(BuildDir)
		if startsPath(text[:start]) && endsElement(text[end:]) {
			out.WriteString(text[done:start])
			out.WriteString(s.buildDir)
			done = end
		}
		from = end
	}
}

// startsPath reports whether an absolute path may start behind the text before: not in the middle of another path.
func startsPath(before string) bool {
	rest := strings.TrimRight(before, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	if len(rest) < len(before) { // behind letters: only those of an option, such as -I or -isystem
		option, ok := strings.CutSuffix(rest, "-")
		return ok && startsPath(strings.TrimSuffix(option, "-"))
	}
	if before == "" || strings.HasSuffix(before, "://") || strings.HasSuffix(before, ":-") { // file URL, ${DIR:-/build}
		return true
	}
	c := before[len(before)-1]
	return !isNameByte(c) && strings.IndexByte("/*?[]{})\\", c) < 0
}

// endsElement reports whether a path element ends before the text after.
func endsElement(after string) bool {
	return after == "" || !isNameByte(after[0]) && strings.IndexByte("*?[{", after[0]) < 0
}

// isNameByte reports whether c is common in names of files.
func isNameByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= 0x80:
		return true
	}
	return strings.IndexByte("._-+~%", c) >= 0
}
