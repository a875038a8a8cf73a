package diff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
)

// line is a line of a text, with its end.
type line struct {
	text   []byte
	offset int64
	number int // from 1
}

func splitLines(text []byte) []line {
	var list []line
	offset := int64(0)
	for part := range bytes.Lines(text) {
		list = append(list, line{part, offset, len(list) + 1})
		offset += int64(len(part))
	}
	return list
}

// compareText looks for the causes of the difference of two texts, line by line.
func compareText(a, b []byte, s scan) findings {
	linesA, linesB := splitLines(a), splitLines(b)
	whole := func(cause Cause, sentence string) findings {
		return findings{{cause: cause, offset: s.first, count: s.count, places: 1, sentence: sentence}}
	}
	if sameLines(linesA, linesB) {
		return whole(Order, "The same lines come in another order.")
	}
	if sameJSON(a, b) {
		return whole(Order, "The JSON values are equal; members come in another order, or it is laid out in another way.")
	}
	var found findings
	looked := 0
	for i, p := range pairLines(linesA, linesB) {
		if i >= maxRuns || looked > maxEvidence {
			return append(found, finding{cause: Content, offset: p.a.offset, places: 1, sentence: "More lines differ, which were not looked at."})
		}
		looked += min(len(p.a.text)+len(p.b.text), 4*around)
		addLines(&found, p)
	}
	return found
}

// sameLines reports whether two texts have the same lines in another order.
func sameLines(a, b []line) bool {
	if len(a) != len(b) {
		return false
	}
	plain := func(l line) string { return string(bytes.TrimSuffix(l.text, []byte("\n"))) }
	counts, moved := map[string]int{}, false
	for i := range a {
		counts[plain(a[i])]++
		moved = moved || plain(a[i]) != plain(b[i])
	}
	for _, l := range b {
		if counts[plain(l)]--; counts[plain(l)] < 0 {
			return false
		}
	}
	return moved
}

func sameJSON(a, b []byte) bool {
	var x, y any
	decode := func(text []byte, v *any) bool {
		text = bytes.TrimSpace(text)
		if len(text) == 0 || text[0] != '{' && text[0] != '[' || !uniqueEnough(text) {
			return false
		}
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		return dec.Decode(v) == nil && !dec.More()
	}
	return decode(a, &x) && decode(b, &y) && reflect.DeepEqual(x, y)
}

// uniqueEnough keeps huge texts from being decoded, which would take many times their size.
func uniqueEnough(text []byte) bool { return len(text) <= 1<<20 }

// pair is two lines that stand for each other; the text of one may be empty.
type pair struct{ a, b line }

// pairLines returns the lines that differ. Common lines at both ends, and between, are left out as far as they are found.
func pairLines(a, b []line) []pair {
	same := func(x, y line) bool { return bytes.Equal(x.text, y.text) }
	for len(a) > 0 && len(b) > 0 && same(a[0], b[0]) {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && same(a[len(a)-1], b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if len(a) == len(b) || len(a)*len(b) > maxTable {
		return byPlace(a, b)
	}
	return alignLines(a, b)
}

// maxTable bounds the table of alignLines.
const maxTable = 1 << 20

// byPlace pairs lines by their place.
func byPlace(a, b []line) []pair {
	var pairs []pair
	for i := range max(len(a), len(b)) {
		var p pair
		if i < len(a) {
			p.a = a[i]
		}
		if i < len(b) {
			p.b = b[i]
		}
		if !bytes.Equal(p.a.text, p.b.text) {
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// alignLines pairs what lies between the lines of a longest common subsequence.
func alignLines(a, b []line) []pair {
	width := len(b) + 1
	table := make([]int32, (len(a)+1)*width) // length of the longest common subsequence of a[i:] and b[j:]
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if bytes.Equal(a[i].text, b[j].text) {
				table[i*width+j] = table[(i+1)*width+j+1] + 1
			} else {
				table[i*width+j] = max(table[(i+1)*width+j], table[i*width+j+1])
			}
		}
	}
	var pairs []pair
	i, j, fromA, fromB := 0, 0, 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case bytes.Equal(a[i].text, b[j].text):
			pairs = append(pairs, byPlace(a[fromA:i], b[fromB:j])...)
			i, j = i+1, j+1
			fromA, fromB = i, j
		case table[(i+1)*width+j] >= table[i*width+j+1]:
			i++
		default:
			j++
		}
	}
	return append(pairs, byPlace(a[fromA:], b[fromB:])...)
}

func addLines(found *findings, p pair) {
	x, y := string(p.a.text), string(p.b.text)
	switch {
	case x == "":
		found.add(Content, p.b.offset, int64(len(y)), func() string {
			return fmt.Sprintf("Line %d is only in the second: %s.", p.b.number, quote(y))
		})
		return
	case y == "":
		found.add(Content, p.a.offset, int64(len(x)), func() string {
			return fmt.Sprintf("Line %d is only in the first: %s.", p.a.number, quote(x))
		})
		return
	}
	prefix := commonPrefix(x, y)
	suffix := commonSuffix(x[prefix:], y[prefix:])
	count := int64(max(len(x), len(y)) - prefix - suffix)
	x, y = clip(x, prefix, suffix), clip(y, prefix, suffix)
	addText(found, p.a.offset+int64(prefix), count, x, y, fmt.Sprintf("Line %d", p.a.number))
}

// around is how much of a very long line is looked at on each side of its difference.
const around = 1 << 10

// clip cuts a very long line to what is around its difference.
func clip(s string, prefix, suffix int) string {
	if len(s) < 4*around {
		return s
	}
	return s[max(prefix-around, 0):min(len(s)-suffix+around, len(s))]
}

// sortedKeys returns the keys of both maps.
func sortedKeys(a, b map[string]string) []string {
	var keys []string
	for key := range a {
		keys = append(keys, key)
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
