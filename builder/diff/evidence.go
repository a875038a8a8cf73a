package diff

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Two texts that become equal when everything of one kind is taken out of them differ in that kind only.
var kinds = []kind{
	{BuildID, compiled(`Go build ID: "[^"\n]*"|\b[\w-]{20}/[\w-]{20}/[\w-]{20}/[\w-]{20}\b`), nil},
	{Timestamp, compiled(strings.Join([]string{
		isoDate + `(?:[T _]` + clock + `(?:\.\d+)?(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2}))?)?`,                           // ISO 8601, RFC 3339
		`(?:` + weekday + `,? )?` + day + `[ -]` + month + `[ -]\d{4}(?: ` + clock + `(?: [+-]\d{4}| [A-Z]{3,4})?)?`, // RFC 5322, HTTP
		`(?:` + weekday + ` )?` + month + ` {1,2}` + day + ` ` + clock + `(?: [A-Z]{3,4})? \d{4}`,                    // ctime(3), date(1)
		month + ` {1,2}` + day + `,? \d{4}`,                                       // the macro __DATE__
		`\b(?:19|20)\d{2}` + mm + dd + `(?:[T-]?` + hh + sixty + sixty + `Z?)?\b`, // compact ISO 8601
		`\b` + clock + `\b`,
	}, "|")), nil},
	{Timestamp, compiled(`\b(?:[1-3]\d{9}|[1-3]\d{12})\b`), nearTimes},
	{Path, compiled(`(?:/[\w.+@~%=-]+){2,}/?`), nil},
	{Randomness, compiled(`(?i:\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b(?:0x)?[0-9a-f]{16,}\b)|[A-Za-z0-9+/_-]{20,}={0,2}`), looksRandom},
}

const (
	mm      = `(?:0[1-9]|1[0-2])`
	dd      = `(?:0[1-9]|[12]\d|3[01])`
	hh      = `(?:[01]\d|2[0-3])`
	sixty   = `[0-5]\d`
	isoDate = `\b(?:19|20)\d{2}-` + mm + `-` + dd
	clock   = hh + `:` + sixty + `(?::` + sixty + `)?`
	weekday = `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)`
	month   = `(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*`
	day     = `(?:0?[1-9]|[12]\d|3[01])`
)

// kind is a kind of text that tends to differ between builds.
type kind struct {
	cause   Cause
	pattern func() *regexp.Regexp
	accept  func(a, b string) bool // whether two different matches are of the kind; nil: they are
}

// compiled returns what compiles an expression once, when it is first needed: most commands, and every first process of a
// confinement, start without.
func compiled(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// hole stands for something that was taken out of a text.
const hole = "\x00"

// textCauses returns the causes that explain the difference of two texts completely, or Content.
func textCauses(a, b string) []Cause {
	for _, k := range kinds {
		if restA, restB, _, ok := k.takeOut(a, b); ok && restA == restB {
			return []Cause{k.cause}
		}
	}
	var causes []Cause
	for _, k := range kinds {
		restA, restB, differ, ok := k.takeOut(a, b)
		if !ok || !differ {
			continue
		}
		a, b = restA, restB
		if !slices.Contains(causes, k.cause) {
			causes = append(causes, k.cause)
		}
	}
	if a != b || len(causes) == 0 {
		return []Cause{Content}
	}
	return causes
}

// textCause is the first cause of textCauses.
func textCause(a, b string) Cause { return textCauses(a, b)[0] }

// takeOut takes what is of the kind out of both texts and reports whether something of it differed. It is not ok if the texts do
// not have the same number of them, or some are different and not accepted.
func (k kind) takeOut(a, b string) (restA, restB string, differ, ok bool) {
	inA, inB := k.pattern().FindAllString(a, -1), k.pattern().FindAllString(b, -1)
	if len(inA) != len(inB) {
		return a, b, false, false
	}
	for i := range inA {
		if inA[i] == inB[i] {
			continue
		}
		differ = true
		if k.accept != nil && !k.accept(inA[i], inB[i]) {
			return a, b, false, false
		}
	}
	return k.pattern().ReplaceAllString(a, hole), k.pattern().ReplaceAllString(b, hole), differ, true
}

// The times that a number in a program is taken for: since the youngest tools in use, until well after this one.
const (
	earliest = 1420070400 // 2015-01-01
	latest   = 2051222400 // 2035-01-01
	year     = 366 * 24 * 60 * 60
)

// nearTimes reports whether two numbers are Unix times in seconds or milliseconds at most 20 years apart, as two builds may be.
func nearTimes(a, b string) bool {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	if errX != nil || errY != nil || len(a) != len(b) {
		return false
	}
	if len(a) == 13 {
		x, y = x/1000, y/1000
	}
	return max(x, y) < latest && max(x-y, y-x) <= 20*year
}

// looksRandom reports whether both have what words and numbers have not: many different characters, digits among letters.
func looksRandom(a, b string) bool {
	return len(a) == len(b) && mixed(a) && mixed(b)
}

func mixed(s string) bool {
	seen := map[rune]bool{}
	var digits, letters int
	for _, c := range s {
		seen[c] = true
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			letters++
		}
	}
	return digits > 0 && letters > 0 && len(seen) >= 6
}

// binaryTimes finds, around a run of differing bytes, a Unix time on both sides, at most a year apart. p and q are
// the bytes around the run, which begins at offset at in them; base is the offset of their first byte in the content.
//
// Of random numbers of 32 bits every seventh is a time of these decades, so such a number counts only where numbers are aligned and zeros
// around it show that this is no packed or encrypted data. A number of 64 bits hardly is one by chance.
func binaryTimes(p, q []byte, base int64, at, size int) (x, y time.Time, ok bool) {
	for _, width := range []int{8, 4} {
		for start := max(at+size-width, 0); start <= at && start+width <= min(len(p), len(q)); start++ {
			if width == 4 && ((base+int64(start))%4 != 0 || !zerosAround(p, start, width)) {
				continue
			}
			if x, y, ok := bothTimes(p[start:start+width], q[start:start+width]); ok {
				return x, y, true
			}
		}
	}
	return time.Time{}, time.Time{}, false
}

func bothTimes(p, q []byte) (x, y time.Time, ok bool) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		x, okX := asTime(p, order)
		y, okY := asTime(q, order)
		if okX && okY && max(x.Sub(y), y.Sub(x)) <= year*time.Second {
			return x, y, true
		}
	}
	return time.Time{}, time.Time{}, false
}

// zerosAround reports whether at least 3 of the 8 bytes before and behind a number are zero; among random bytes 16 hold one in 16 cases.
func zerosAround(p []byte, start, width int) bool {
	before, behind := p[max(start-8, 0):start], p[start+width:min(start+width+8, len(p))]
	return bytes.Count(before, []byte{0})+bytes.Count(behind, []byte{0}) >= 3
}

// asTime reads a number as seconds, or, if it has 64 bits, as milliseconds or microseconds too.
func asTime(b []byte, order binary.ByteOrder) (time.Time, bool) {
	if len(b) == 4 {
		return plausible(uint64(order.Uint32(b)), 1)
	}
	v := order.Uint64(b)
	for _, unit := range []uint64{1, 1e3, 1e6} {
		if t, ok := plausible(v, unit); ok {
			return t, true
		}
	}
	return time.Time{}, false
}

func plausible(v, unit uint64) (time.Time, bool) {
	s := v / unit
	return time.Unix(int64(s), int64(v%unit*(1e9/unit))).UTC(), s >= earliest && s < latest
}

// randomBytes reports whether a piece of binary content looks like a hash, key or salt: long enough, and hardly a byte twice.
func randomBytes(b []byte) bool {
	if len(b) < 12 || len(b) > 64 {
		return false
	}
	seen := [256]bool{}
	distinct := 0
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			distinct++
		}
	}
	return distinct >= len(b)*3/4
}
