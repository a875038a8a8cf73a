package diff

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"
)

// finding gathers what was found out of one content and cause.
type finding struct {
	cause    Cause
	offset   int64 // of the first differing byte
	count    int64 // differing bytes
	places   int   // lines or runs
	sentence string
}

// findings are at most one for each cause, in the order of their first places.
type findings []finding

// add counts a place. The sentence of the first place of a cause stays.
func (f *findings) add(cause Cause, offset, count int64, sentence func() string) {
	i := slices.IndexFunc(*f, func(x finding) bool { return x.cause == cause })
	if i < 0 {
		*f = append(*f, finding{cause: cause, offset: offset, sentence: sentence()})
		i = len(*f) - 1
	}
	(*f)[i].count += count
	(*f)[i].places++
}

// bytes adds the differences of two contents with no inside that could be looked into.
func (e *explainer) bytes(at place, a, b content, s scan) error {
	found, err := e.evidence(a, b, s)
	if err != nil {
		return fmt.Errorf("compare %q: %w", at.last(), err)
	}
	for _, f := range found {
		if f.places > 1 {
			f.sentence += fmt.Sprintf(" There are %d such places.", f.places)
		}
		e.add(at, a, b, scan{first: f.offset, count: f.count}, f.cause, f.sentence)
	}
	return nil
}

// evidence looks for the causes of a difference of bytes. It returns at least one.
func (e *explainer) evidence(a, b content, s scan) (findings, error) {
	if a.size == 0 || b.size == 0 {
		which := map[bool]string{true: "first", false: "second"}[a.size == 0]
		return findings{{cause: Content, count: s.count, places: 1, sentence: "The " + which + " is empty."}}, nil
	}
	if a.size > maxText || b.size > maxText {
		return e.binary(a, b, s)
	}
	textA, err := a.head(a.size)
	if err != nil {
		return nil, err
	}
	textB, err := b.head(b.size)
	if err != nil {
		return nil, err
	}
	if isText(textA) && isText(textB) {
		return compareText(textA, textB, s), nil
	}
	if a.size != b.size {
		return shifted(textA, textB, s), nil
	}
	return e.binary(a, b, s)
}

func isText(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// The numbers of runs up to which a number may be a time, or bytes random: where much differs, such things are chance.
const (
	maxTimeRuns   = 64
	maxRandomRuns = 16
)

// binary looks at each run of differing bytes.
func (e *explainer) binary(a, b content, s scan) (findings, error) {
	var found findings
	counted := int64(0)
	for _, r := range s.runs {
		if err := e.run(&found, a, b, r, len(s.runs)); err != nil {
			return nil, err
		}
		counted += r.count
	}
	if rest := s.count - counted; rest > 0 {
		offset := min(a.size, b.size)
		if s.more {
			offset = s.first
		}
		found.add(Content, offset, rest, func() string { return "The content differs, with no sign of a cause." })
	}
	slices.SortStableFunc(found, func(x, y finding) int { return int(min(max(x.offset-y.offset, -1), 1)) })
	return found, nil
}

// margin is how much is looked at around a run.
const margin = 128

func (e *explainer) run(found *findings, a, b content, r run, runs int) error {
	start := max(r.offset-margin, 0)
	at, size := int(r.offset-start), int(min(r.size, 4<<10))
	x, err := a.at(start, int64(at+size+margin))
	if err != nil {
		return err
	}
	y, err := b.at(start, int64(at+size+margin))
	if err != nil {
		return err
	}
	if p, q, ok := printable(x, y, at, size); ok {
		addText(found, r.offset, r.count, string(p), string(q), "A text in it")
		return nil
	}
	if runs <= maxTimeRuns && size <= 8 {
		if t, u, ok := binaryTimes(x, y, start, at, size); ok {
			found.add(Timestamp, r.offset, r.count, func() string {
				return fmt.Sprintf("It holds a number that, read as a time, is %s in the first and %s in the second.", t.Format(time.RFC3339), u.Format(time.RFC3339))
			})
			return nil
		}
	}
	if runs <= maxRandomRuns && randomBytes(x[at:min(at+size, len(x))]) && randomBytes(y[at:min(at+size, len(y))]) {
		found.add(Randomness, r.offset, r.count, func() string {
			return fmt.Sprintf("%d bytes look random, such as a hash, key or salt.", r.size)
		})
		return nil
	}
	found.add(Content, r.offset, r.count, func() string { return "The content differs, with no sign of a cause." })
	return nil
}

// printable widens a run to the printable ASCII around it. It is not ok if the run itself is not printable in both.
func printable(a, b []byte, at, size int) (x, y []byte, ok bool) {
	widen := func(p []byte) []byte {
		lo, hi := at, at
		for hi < len(p) && plain(p[hi]) {
			hi++
		}
		for lo > 0 && plain(p[lo-1]) {
			lo--
		}
		return p[lo:hi]
	}
	x, y = widen(a), widen(b)
	end := func(p []byte) bool {
		return at+size <= len(p) && !slices.ContainsFunc(p[at:at+size], func(c byte) bool { return !plain(c) && c != 0 })
	}
	return x, y, len(x) >= minString && len(y) >= minString && end(a) && end(b)
}

func plain(c byte) bool { return c >= ' ' && c <= '~' }

// addText adds the causes of a difference of two texts.
func addText(found *findings, offset, count int64, a, b, subject string) {
	causes := textCauses(a, b)
	for _, cause := range causes {
		found.add(cause, offset, count, func() string { return textSentence(cause, subject, a, b, len(causes) > 1) })
	}
}

func textSentence(cause Cause, subject, a, b string, mixed bool) string {
	only := map[bool]string{true: "among other things in ", false: "only in "}[mixed]
	what := map[Cause]string{
		BuildID:    subject + " differs " + only + "a build id, which is a hash of what went into the program",
		Timestamp:  subject + " differs " + only + "a date or time",
		Path:       subject + " differs " + only + "the path of a file or directory",
		Randomness: subject + " differs " + only + "what looks random, such as a UUID or hash",
		Content:    subject + " differs",
	}[cause]
	a, b = aroundDifference(a, b)
	return fmt.Sprintf("%s: %s and %s.", what, quote(a), quote(b))
}

// aroundDifference cuts two long texts to what is around their first difference.
func aroundDifference(a, b string) (string, string) {
	const before, length = 40, 100
	start := max(commonPrefix(a, b)-before, 0)
	cut := func(s string) string {
		s = s[min(start, len(s)):]
		return s[:min(length, len(s))]
	}
	return cut(a), cut(b)
}

func commonPrefix[T ~string | ~[]byte](a, b T) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func commonSuffix[T ~string | ~[]byte](a, b T) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[len(a)-1-i] != b[len(b)-1-i] {
			return i
		}
	}
	return n
}

// shifted looks at two binaries of different size: after the first difference their bytes lie at different offsets, so it compares what
// lies between their common beginning and end, or, if that is much, their strings.
func shifted(a, b []byte, s scan) findings {
	prefix := commonPrefix(a, b)
	suffix := commonSuffix(a[prefix:], b[prefix:])
	x, y := window(a, prefix, len(a)-suffix), window(b, prefix, len(b)-suffix)
	if len(x) <= 4<<10 && len(y) <= 4<<10 && isPlain(x) && isPlain(y) && len(x)+len(y) > 0 {
		var found findings
		addText(&found, int64(prefix), int64(max(len(a), len(b))-prefix-suffix), string(x), string(y), "A text in it")
		return found
	}
	if p, q, cause, ok := tellingStrings(a, b); ok {
		return findings{{
			cause: cause, offset: s.first, count: s.count, places: 1,
			sentence: "Among what differs is a text. " + textSentence(cause, "It", p, q, false),
		}}
	}
	return findings{{cause: Content, offset: s.first, count: s.count, places: 1, sentence: "The content differs in length and bytes, with no sign of a cause."}}
}

// window is b[lo:hi] with the printable bytes around it.
func window(b []byte, lo, hi int) []byte {
	for n := 0; lo > 0 && plain(b[lo-1]) && n < margin; n++ {
		lo--
	}
	for n := 0; hi < len(b) && plain(b[hi]) && n < margin; n++ {
		hi++
	}
	return b[lo:hi]
}

func isPlain(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return !plain(c) })
}

// tellingStrings finds a string of a and one of b that differ only in a date, path, build id or something random. Strings that both have
// do not count.
func tellingStrings(a, b []byte) (x, y string, cause Cause, ok bool) {
	onlyA, onlyB := stringsOf(a), stringsOf(b)
	for s := range onlyA {
		if _, both := onlyB[s]; both {
			delete(onlyA, s)
			delete(onlyB, s)
		}
	}
	listA, listB := byOffset(onlyA), byOffset(onlyB)
	for _, k := range kinds {
		rest := map[string]string{} // a string of b without what is of the kind → the first such string
		for _, s := range listB {
			if r := k.pattern().ReplaceAllString(s, hole); r != s && rest[r] == "" {
				rest[r] = s
			}
		}
		for _, s := range listA {
			r := k.pattern().ReplaceAllString(s, hole)
			if t := rest[r]; r != s && t != "" && textCause(s, t) == k.cause {
				return s, t, k.cause, true
			}
		}
	}
	return "", "", "", false
}

// minString is how long printable bytes must be to count as a string, as in strings(1) with some margin.
const minString = 6

// stringsOf returns the printable strings in b and the offset of the first of each; the longest ones are cut.
func stringsOf(b []byte) map[string]int {
	const longest, most = 1 << 10, 200_000
	found := map[string]int{}
	for start := 0; start < len(b) && len(found) < most; start++ {
		end := start
		for end < len(b) && plain(b[end]) && end-start < longest {
			end++
		}
		if end-start >= minString {
			s := string(b[start:end])
			if _, seen := found[s]; !seen {
				found[s] = start
			}
		}
		start = end
	}
	return found
}

// byOffset returns the first strings, as far as they are to be searched.
func byOffset(found map[string]int) []string {
	list := slices.SortedFunc(maps.Keys(found), func(x, y string) int { return found[x] - found[y] })
	size := 0
	for i, s := range list {
		if size += len(s); size > maxEvidence {
			return list[:i]
		}
	}
	return list
}
