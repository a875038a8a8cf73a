package builder

import (
	"fmt"
	"slices"
	"strings"
)

// Factor is one property of the surroundings of a build that must not show in its outputs.
type Factor string

// The factors, in the order in which they are tried when one of them is guilty.
const (
	FactorTime     Factor = "time"     // the clock and nothing else
	FactorPath     Factor = "path"     // /build is called otherwise
	FactorUID      Factor = "uid"      // user and group id
	FactorHostname Factor = "hostname" //
	FactorLocale   Factor = "locale"   // LC_ALL and LANG, unless the manifest fixes them
	FactorTZ       Factor = "tz"       // TZ, unless the manifest fixes it
	FactorUmask    Factor = "umask"    //
	FactorCPUs     Factor = "cpus"     // one CPU instead of all
	FactorOrder    Factor = "order"    // order in which the entries of writable inputs were created
)

// Factors returns all factors.
func Factors() []Factor {
	return []Factor{
		FactorTime, FactorPath, FactorUID, FactorHostname, FactorLocale, FactorTZ, FactorUmask, FactorCPUs, FactorOrder,
	}
}

// ParseFactors reads a comma-separated list of factors, "all", or "none".
func ParseFactors(s string) ([]Factor, error) {
	switch s {
	case "all":
		return Factors(), nil
	case "none", "":
		return nil, nil
	}
	var fs []Factor
	for name := range strings.SplitSeq(s, ",") {
		f := Factor(strings.TrimSpace(name))
		if !slices.Contains(Factors(), f) {
			return nil, fmt.Errorf("factor %q is not one of %s, all, none", name, joinFactors(Factors()))
		}
		if !slices.Contains(fs, f) {
			fs = append(fs, f)
		}
	}
	return fs, nil
}

func joinFactors(fs []Factor) string {
	names := make([]string, len(fs))
	for i, f := range fs {
		names[i] = string(f)
	}
	return strings.Join(names, ", ")
}

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

// place moves every path below BuildDir that occurs in text to s's build directory. A path starts at the beginning of
// text or after a character that cannot be part of one.
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
		if startsPath(text, start) && endsElement(text, end) {
			out.WriteString(text[done:start])
			out.WriteString(s.buildDir)
			done = end
		}
		from = end
	}
}

// startsPath reports whether an absolute path may start at text[i]: at the very start, after a separator, or after a
// one-letter flag such as -I.
func startsPath(text string, i int) bool {
	return i == 0 || strings.IndexByte("=:,;'\"( \t\n", text[i-1]) >= 0 || i >= 2 && text[i-2] == '-'
}

// endsElement reports whether a path element ends before text[i].
func endsElement(text string, i int) bool {
	return i == len(text) || strings.IndexByte("/=:,;'\") \t\n", text[i]) >= 0
}
