package canonical

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// lexer reads the tokens of JSON text, strictly by RFC 8259.
type lexer struct {
	in  []byte
	pos int // next byte of in

	// refuseReplacement makes an escaped U+FFFD an error: encoding/json writes one for each invalid byte of
	// a Go string, and writes a real U+FFFD as it is.
	refuseReplacement bool
}

func (l *lexer) fail(at int, format string, args ...any) error {
	return &SyntaxError{Offset: at, Msg: fmt.Sprintf(format, args...)}
}

// unexpected reports the byte at pos where want should be.
func (l *lexer) unexpected(want string) error {
	if l.pos >= len(l.in) {
		return l.fail(l.pos, "unexpected end, want %s", want)
	}
	return l.fail(l.pos, "unexpected %q, want %s", l.in[l.pos:l.pos+1], want)
}

// peek skips white space and returns the next byte, or 0 at the end; a NUL in the input starts no token either.
func (l *lexer) peek() byte {
	for l.pos < len(l.in) {
		switch c := l.in[l.pos]; c {
		case ' ', '\t', '\n', '\r':
			l.pos++
		default:
			return c
		}
	}
	return 0
}

// expect skips white space and consumes c.
func (l *lexer) expect(c byte, want string) error {
	if l.peek() != c {
		return l.unexpected(want)
	}
	l.pos++
	return nil
}

// end demands that only white space is left.
func (l *lexer) end() error {
	l.peek()
	if l.pos < len(l.in) {
		return l.unexpected("the end")
	}
	return nil
}

// literal consumes one of true, false and null and returns it.
func (l *lexer) literal() ([]byte, error) {
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(l.in[l.pos:], []byte(word)) {
			l.pos += len(word)
			return l.in[l.pos-len(word) : l.pos], nil
		}
	}
	return nil, l.unexpected("a value")
}

// number consumes a number token (RFC 8259 section 6); integer says that it has neither fraction nor exponent.
func (l *lexer) number() (token []byte, integer bool, err error) {
	start := l.pos
	if l.in[l.pos] == '-' {
		l.pos++
	}
	if l.pos < len(l.in) && l.in[l.pos] == '0' {
		l.pos++
		if l.digit() {
			return nil, false, l.fail(start, "number with a leading zero")
		}
	} else if !l.digits() {
		return nil, false, l.unexpected("a digit")
	}
	integer = true
	if l.pos < len(l.in) && l.in[l.pos] == '.' {
		integer = false
		l.pos++
		if !l.digits() {
			return nil, false, l.unexpected("a digit")
		}
	}
	if l.pos < len(l.in) && l.in[l.pos]|0x20 == 'e' {
		integer = false
		l.pos++
		if l.pos < len(l.in) && (l.in[l.pos] == '+' || l.in[l.pos] == '-') {
			l.pos++
		}
		if !l.digits() {
			return nil, false, l.unexpected("a digit")
		}
	}
	return l.in[start:l.pos], integer, nil
}

func (l *lexer) digit() bool {
	return l.pos < len(l.in) && '0' <= l.in[l.pos] && l.in[l.pos] <= '9'
}

// digits consumes digits and reports whether there was one.
func (l *lexer) digits() bool {
	start := l.pos
	for l.digit() {
		l.pos++
	}
	return l.pos > start
}

// text consumes a string, whose opening quote is next, and returns what it says. escaped reports that the input
// spells it otherwise; if not, text is a part of the input.
func (l *lexer) text() (text []byte, escaped bool, err error) {
	l.pos++
	start := l.pos
	if err := l.plain(); err != nil {
		return nil, false, err
	}
	if l.in[l.pos] == '"' {
		l.pos++
		return l.in[start : l.pos-1 : l.pos-1], false, nil
	}
	text = append(make([]byte, 0, 2*(l.pos-start)+16), l.in[start:l.pos]...)
	for l.in[l.pos] == '\\' {
		r, err := l.escape()
		if err != nil {
			return nil, false, err
		}
		text = utf8.AppendRune(text, r)
		start = l.pos
		if err := l.plain(); err != nil {
			return nil, false, err
		}
		text = append(text, l.in[start:l.pos]...)
	}
	l.pos++
	return text, true, nil
}

// plain moves to the next quote or backslash of a string, over valid UTF-8 without control characters.
func (l *lexer) plain() error {
	for l.pos < len(l.in) {
		l.pos += ordinaries(l.in[l.pos:])
		if l.pos == len(l.in) {
			break
		}
		c := l.in[l.pos]
		switch {
		case c == '"' || c == '\\':
			return nil
		case c < ' ':
			return l.fail(l.pos, "control character %q in a string", c)
		case c < utf8.RuneSelf:
			l.pos++
		default:
			r, size := utf8.DecodeRune(l.in[l.pos:])
			if r == utf8.RuneError && size == 1 {
				return l.fail(l.pos, "invalid UTF-8")
			}
			l.pos += size
		}
	}
	return l.fail(l.pos, "unexpected end in a string")
}

// Patterns of eight bytes.
const (
	ones = 0x0101010101010101
	tops = 0x8080808080808080
)

// ordinaries returns how many bytes at the beginning of data can be stepped over, eight at a time as long as there are eight.
func ordinaries(data []byte) int {
	at := 0
	for len(data)-at >= 8 {
		n := ordinary(binary.LittleEndian.Uint64(data[at:]))
		if at += n; n < 8 {
			break
		}
	}
	return at
}

// ordinary returns how many of eight bytes, from the lowest on, come before the first that is a control character, a quote, a
// backslash or beyond ASCII. It looks at all of them at once: subtracting n from each byte borrows into its top bit if the byte is
// below n. A borrow may run on, but only into higher bytes than one that is below n itself, so the first is always right.
func ordinary(x uint64) int {
	return bits.TrailingZeros64((x|(x-ones*' ')|delimiters(x))&tops) / 8
}

// delimiters sets the top bit of the lowest byte of x that is a quote or a backslash, and of no byte below it.
func delimiters(x uint64) uint64 {
	quote := x ^ ones*'"' // zero where the byte is a quote
	backslash := x ^ ones*'\\'
	return ((quote-ones)&^quote | (backslash-ones)&^backslash) & tops
}

// StringLen returns the length of the string literal that data, part of valid JSON, begins with, its quotes included; 0 if it
// does not end. It looks at nothing but where the literal ends.
func StringLen(data []byte) int {
	for i := 1; i < len(data); i++ {
		n := bytes.IndexByte(data[i:], '"')
		if n < 0 {
			return 0
		}
		start := i
		i += n
		escapes := 0
		for i-escapes > start && data[i-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
	return 0
}

// escape consumes an escape sequence, whose backslash is next.
func (l *lexer) escape() (rune, error) {
	at := l.pos
	if at+1 >= len(l.in) {
		return 0, l.fail(at, "unexpected end in a string")
	}
	l.pos += 2
	switch c := l.in[at+1]; c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		return l.unicodeEscape(at)
	}
	return 0, l.fail(at, "unknown escape %q", l.in[at:at+2])
}

// unicodeEscape consumes what follows the \u at byte at: four digits, and a second \u sequence for a surrogate.
func (l *lexer) unicodeEscape(at int) (rune, error) {
	r, ok := l.hex4()
	if !ok {
		return 0, l.fail(at, "\\u without four hexadecimal digits")
	}
	if r == utf8.RuneError && l.refuseReplacement {
		return 0, l.fail(at, "text that is not UTF-8")
	}
	if !utf16.IsSurrogate(r) {
		return r, nil
	}
	if !bytes.HasPrefix(l.in[l.pos:], []byte(`\u`)) {
		return 0, l.fail(at, "lone surrogate \\u%04x", r)
	}
	l.pos += 2
	low, ok := l.hex4()
	if !ok {
		return 0, l.fail(l.pos-2, "\\u without four hexadecimal digits")
	}
	pair := utf16.DecodeRune(r, low)
	if pair == utf8.RuneError {
		return 0, l.fail(at, "surrogates \\u%04x\\u%04x are no pair", r, low)
	}
	return pair, nil
}

// hex4 consumes four hexadecimal digits.
func (l *lexer) hex4() (rune, bool) {
	if len(l.in)-l.pos < 4 {
		return 0, false
	}
	var r rune
	for _, c := range l.in[l.pos : l.pos+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	l.pos += 4
	return r, true
}
