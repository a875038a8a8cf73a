package canonical

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// transformer copies JSON from in to out, in canonical form. Each object is written in the order of the
// input first and put into the order of its names at its end, if it is not so already. Most input is canonical, and
// nothing of it is copied: until there is a difference, the output is the beginning of in, and only its length is counted.
type transformer struct {
	lexer
	out     []byte // if the output is not the beginning of in
	size    int    // of the output
	apart   bool   // out is in use
	depth   int
	members []member // of all objects that are open, the innermost last
	scratch []byte   // for sorting and for strings
}

// member is one member of an open object.
type member struct {
	name       []byte // as the string says, without escapes
	start, end int32  // its bytes in the output, from the opening quote of the name to the end of the value
}

func transform(data []byte, refuseReplacement bool) ([]byte, error) {
	if err := checkSize(data); err != nil {
		return nil, err
	}
	t := transformer{
		lexer: lexer{in: data, refuseReplacement: refuseReplacement},
	}
	if err := t.value(); err != nil {
		return nil, err
	}
	if err := t.end(); err != nil {
		return nil, err
	}
	if !t.apart {
		t.out = data[:t.size]
	}
	if err := checkSize(t.out); err != nil { // numbers may grow: 1e-6 becomes 0.000001
		return nil, err
	}
	return slices.Clip(t.out), nil // whoever appends to it must not write into data
}

// keep appends the bytes of the input from start to end, which are canonical.
func (t *transformer) keep(start, end int) {
	if !t.apart && start == t.size {
		t.size = end
		return
	}
	t.write(t.in[start:end])
}

// put appends form, which is how to write the bytes of the input from start to end.
func (t *transformer) put(form []byte, start, end int) {
	if bytes.Equal(form, t.in[start:end]) {
		t.keep(start, end)
		return
	}
	t.write(form)
}

// write appends to a buffer of its own.
func (t *transformer) write(form []byte) {
	t.part()
	t.out = append(t.out, form...)
	t.size = len(t.out)
}

// next consumes one byte and keeps it.
func (t *transformer) next() {
	t.pos++
	t.keep(t.pos-1, t.pos)
}

// part makes out a buffer of its own, which may be written to.
func (t *transformer) part() {
	if !t.apart {
		t.out = append(make([]byte, 0, len(t.in)), t.in[:t.size]...)
		t.apart = true
	}
}

func checkSize(b []byte) error {
	if len(b) > MaxSize {
		return &SyntaxError{Offset: MaxSize, Msg: fmt.Sprintf("%d bytes are over the limit of %d", len(b), MaxSize)}
	}
	return nil
}

// value copies one value of any type.
func (t *transformer) value() error {
	switch c := t.peek(); {
	case c == '{':
		return t.nested(t.object)
	case c == '[':
		return t.nested(t.array)
	case c == '"':
		_, err := t.string()
		return err
	case c == '-' || '0' <= c && c <= '9':
		return t.numeral()
	}
	word, err := t.literal()
	t.keep(t.pos-len(word), t.pos)
	return err
}

// nested copies an array or object, whose opening bracket is next, counting depth.
func (t *transformer) nested(body func() error) error {
	if t.depth == MaxDepth {
		return t.fail(t.pos, "over %d levels deep", MaxDepth)
	}
	t.depth++
	err := body()
	t.depth--
	return err
}

func (t *transformer) numeral() error {
	at := t.pos
	token, integer, err := t.number()
	if err != nil {
		return err
	}
	var scratch [32]byte
	form, err := appendNumber(scratch[:0], token, integer, at)
	if err != nil {
		return err
	}
	t.put(form, at, t.pos)
	return nil
}

// string copies a string and returns what it says.
func (t *transformer) string() ([]byte, error) {
	at := t.pos
	text, escaped, err := t.text()
	switch {
	case err != nil:
		return nil, err
	case escaped:
		t.scratch = appendQuoted(t.scratch[:0], text)
		t.put(t.scratch, at, t.pos)
	default:
		t.keep(at, t.pos)
	}
	return text, nil
}

func (t *transformer) array() error {
	t.next()
	if t.peek() == ']' {
		t.next()
		return nil
	}
	for {
		if err := t.value(); err != nil {
			return err
		}
		switch t.peek() {
		case ',':
			t.next()
		case ']':
			t.next()
			return nil
		default:
			return t.unexpected(`"," or "]"`)
		}
	}
}

func (t *transformer) object() error {
	open := t.pos
	t.next()
	first := len(t.members)
	if t.peek() == '}' {
		t.next()
		return nil
	}
	for {
		if err := t.member(); err != nil {
			return err
		}
		switch t.peek() {
		case ',':
			t.next()
		case '}':
			if err := t.sort(t.members[first:], open); err != nil {
				return err
			}
			clear(t.members[first:])
			t.members = t.members[:first]
			t.next()
			return nil
		default:
			return t.unexpected(`"," or "}"`)
		}
	}
}

// member copies a name, the colon and the value.
func (t *transformer) member() error {
	if t.peek() != '"' {
		return t.unexpected("a member name")
	}
	start := t.size
	name, err := t.string()
	if err != nil {
		return err
	}
	if t.peek() != ':' {
		return t.unexpected(`":"`)
	}
	t.next()
	if err := t.value(); err != nil {
		return err
	}
	t.members = append(t.members, member{name: name, start: int32(start), end: int32(t.size)})
	return nil
}

// sort puts the members of the object that opens at byte open into order. They are the tail of the output. Each byte is moved at most once
// per level, and levels are at most MaxDepth.
func (t *transformer) sort(members []member, open int) error {
	byName := func(a, b member) int { return compareUTF16(a.name, b.name) }
	rising := func(i int) bool { return byName(members[i-1], members[i]) < 0 }
	i := 1
	for i < len(members) && rising(i) {
		i++
	}
	if i == len(members) {
		return nil
	}
	base := int(members[0].start)
	slices.SortFunc(members, byName)
	for i := range members[1:] {
		if bytes.Equal(members[i].name, members[i+1].name) {
			return t.fail(open, "object with duplicate member %s", quoteShort(members[i].name))
		}
	}
	t.part()
	t.scratch = t.scratch[:0]
	for _, m := range members {
		t.scratch = append(t.scratch, t.out[m.start:m.end]...)
		t.scratch = append(t.scratch, ',')
	}
	copy(t.out[base:], t.scratch[:len(t.scratch)-1])
	return nil
}

// compareUTF16 orders valid UTF-8 by its UTF-16 code units (RFC 8785 section 3.2.3). That is the order of the bytes, but
// for one case: characters beyond U+FFFF (first byte F0 and up) are surrogates in UTF-16, below U+E000 to U+FFFF
// (first byte EE and EF).
func compareUTF16(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x >= 0xEE && y >= 0xEE && (x >= 0xF0) != (y >= 0xF0) {
			return cmp.Compare(y, x)
		}
		return cmp.Compare(x, y)
	}
	return cmp.Compare(len(a), len(b))
}

// quoteShort quotes a member name for a message.
func quoteShort(name []byte) string {
	const limit = 64
	if len(name) <= limit {
		return fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("%q…", name[:limit])
}

// appendQuoted appends valid UTF-8 as a canonical string (RFC 8785 section 3.2.2.2).
func appendQuoted(out, text []byte) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	start := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		out = append(out, text[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\b':
			out = append(out, '\\', 'b')
		case '\t':
			out = append(out, '\\', 't')
		case '\n':
			out = append(out, '\\', 'n')
		case '\f':
			out = append(out, '\\', 'f')
		case '\r':
			out = append(out, '\\', 'r')
		default:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	out = append(out, text[start:]...)
	return append(out, '"')
}
