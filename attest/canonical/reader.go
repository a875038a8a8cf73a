package canonical

import (
	"bytes"
	"slices"
	"strings"
)

// Reader reads strict JSON that need not be canonical, for the formats of others, where unknown members must be
// ignored: envelopes, foreign receipts. It refuses what Transform refuses as text (duplicate members at any level, invalid UTF-8, lone
// surrogates, depth and size over the limits), but numbers are only checked for their grammar.
//
// It is a pull reader: the caller asks for the value it expects next. After an error no further call is of use.
type Reader struct {
	lexer
	depth int
}

// NewReader returns a Reader of data, of which no more than MaxSize bytes are accepted.
func NewReader(data []byte) (*Reader, error) {
	if err := checkSize(data); err != nil {
		return nil, err
	}
	return &Reader{lexer: lexer{in: data}}, nil
}

// Object reads an object. It calls member for each member; member MUST read exactly one value.
func (r *Reader) Object(member func(name string) error) error {
	var seen names
	return r.nested('{', '}', `"{"`, func() error {
		if r.peek() != '"' {
			return r.unexpected("a member name")
		}
		at := r.pos
		text, _, err := r.text()
		if err != nil {
			return err
		}
		name := string(text)
		if !seen.add(name) {
			return r.fail(at, "duplicate member %s", quoteShort(text))
		}
		if err := r.expect(':', `":"`); err != nil {
			return err
		}
		return member(name)
	})
}

// Array reads an array. It calls element for each element; element MUST read exactly one value.
func (r *Reader) Array(element func() error) error {
	return r.nested('[', ']', `"["`, element)
}

// nested reads a bracket, items with commas between them, and the closing bracket.
func (r *Reader) nested(open, closing byte, want string, item func() error) error {
	if err := r.expect(open, want); err != nil {
		return err
	}
	if r.depth == MaxDepth {
		return r.fail(r.pos-1, "over %d levels deep", MaxDepth)
	}
	r.depth++
	defer func() { r.depth-- }()
	if r.peek() == closing {
		r.pos++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		switch r.peek() {
		case ',':
			r.pos++
		case closing:
			r.pos++
			return nil
		default:
			return r.unexpected(`"," or the closing bracket`)
		}
	}
}

// Text reads a string. The result may be a part of the input: it MUST NOT be changed.
func (r *Reader) Text() ([]byte, error) {
	if r.peek() != '"' {
		return nil, r.unexpected("a string")
	}
	text, _, err := r.text()
	return text, err
}

// Plain reads a string if accept takes its text, which it gets as it stands in the input, up to the next quote, not looked at by anyone
// yet. accept MUST refuse every text with a backslash, a control character or a byte that is not ASCII: so it does in one pass what Text
// would do before it. If accept refuses, or no string is next, nothing is read.
func (r *Reader) Plain(accept func(text []byte) bool) bool {
	if r.peek() != '"' {
		return false
	}
	start := r.pos + 1
	n := bytes.IndexByte(r.in[start:], '"')
	if n < 0 || !accept(r.in[start:start+n:start+n]) {
		return false
	}
	r.pos = start + n + 1
	return true
}

// Null reads null if it is next, and reports whether it was.
func (r *Reader) Null() bool {
	if r.peek() != 'n' {
		return false
	}
	_, err := r.literal()
	return err == nil
}

// Skip reads one value of any type and forgets it.
func (r *Reader) Skip() error {
	_, err := r.Value()
	return err
}

// Value reads one value of any type and returns its bytes, a part of the input.
func (r *Reader) Value() ([]byte, error) {
	c := r.peek()
	start := r.pos
	var err error
	switch {
	case c == '{':
		err = r.Object(func(string) error { return r.Skip() })
	case c == '[':
		err = r.Array(r.Skip)
	case c == '"':
		_, err = r.Text()
	case c == '-' || '0' <= c && c <= '9':
		_, _, err = r.number()
	default:
		_, err = r.literal()
	}
	return r.in[start:r.pos:r.pos], err
}

// End demands that nothing but white space is left.
func (r *Reader) End() error { return r.end() }

// names is a set of member names: a list while it is short, which it almost always is.
type names struct {
	few  []string
	many map[string]struct{}
}

// add reports whether name was not there.
func (s *names) add(name string) bool {
	const short = 8
	if slices.Contains(s.few, name) {
		return false
	}
	if len(s.few) < short {
		s.few = append(s.few, name)
		return true
	}
	if _, ok := s.many[name]; ok {
		return false
	}
	if s.many == nil {
		s.many = make(map[string]struct{})
	}
	s.many[name] = struct{}{}
	return true
}

// AppendString appends text as a canonical JSON string. Bytes of text that are not UTF-8 become U+FFFD.
func AppendString(out []byte, text string) []byte {
	return appendQuoted(out, []byte(strings.ToValidUTF8(text, "\uFFFD")))
}
