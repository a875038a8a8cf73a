package sexp

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// A SyntaxError says where a text stops being an S-expression.
type SyntaxError struct {
	Offset int // bytes before the fault
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("read S-expression: byte %d: %s", e.Offset, e.Reason)
}

// Parse reads one expression. Errors are of type *SyntaxError.
func Parse(text string) (Expression, error) {
	p := parser{text: text}
	if len(text) > MaxSize {
		return Expression{}, p.fault("it has %d bytes, more than %d", len(text), MaxSize)
	}
	e, err := p.expression(0)
	if err != nil {
		return Expression{}, err
	}
	p.skipSpace()
	if p.at < len(text) {
		return Expression{}, p.fault("something follows the expression")
	}
	return e, nil
}

type parser struct {
	text string
	at   int
}

func (p *parser) fault(format string, args ...any) error {
	return &SyntaxError{p.at, fmt.Sprintf(format, args...)}
}

func (p *parser) skipSpace() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) expression(depth int) (Expression, error) {
	p.skipSpace()
	if p.at == len(p.text) {
		return Expression{}, p.fault("it ends too early")
	}
	switch c := p.text[p.at]; {
	case c == '(':
		return p.list(depth)
	case c == '#':
		return p.hexadecimal()
	case c == '"':
		return p.quoted()
	case isDigit(c):
		return p.verbatim()
	case wordByte(c):
		return p.word(), nil
	default:
		return Expression{}, p.fault("%q begins no expression", c)
	}
}

func (p *parser) list(depth int) (Expression, error) {
	if depth == MaxDepth {
		return Expression{}, p.fault("more than %d lists are in each other", MaxDepth)
	}
	p.at++
	e := Expression{List: []Expression{}}
	for {
		p.skipSpace()
		if p.at < len(p.text) && p.text[p.at] == ')' {
			p.at++
			return e, nil
		}
		one, err := p.expression(depth + 1)
		if err != nil {
			return Expression{}, err
		}
		e.List = append(e.List, one)
	}
}

func (p *parser) word() Expression {
	from := p.at
	for p.at < len(p.text) && wordByte(p.text[p.at]) {
		p.at++
	}
	return Atom(p.text[from:p.at])
}

func (p *parser) hexadecimal() (Expression, error) {
	digits, _, ok := strings.Cut(p.text[p.at+1:], "#")
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil {
		return Expression{}, p.fault("it is not #HEX#")
	}
	p.at += len(digits) + 2
	return Atom(string(raw)), nil
}

// verbatim reads LENGTH:BYTES.
func (p *parser) verbatim() (Expression, error) {
	digits, rest, ok := strings.Cut(p.text[p.at:], ":")
	n, err := strconv.ParseUint(digits, 10, 31)
	if !ok || err != nil || strconv.FormatUint(n, 10) != digits {
		return Expression{}, p.fault("it is not LENGTH:BYTES")
	}
	if n > uint64(len(rest)) {
		return Expression{}, p.fault("%d bytes are announced, and %d follow", n, len(rest))
	}
	p.at += len(digits) + 1 + int(n)
	return Atom(rest[:n]), nil
}

// escapes are those of text, by what follows the backslash.
const escapes = "b\bt\tv\vn\nf\fr\r\"\"''\\\\"

func (p *parser) quoted() (Expression, error) {
	var b strings.Builder
	for i := p.at + 1; i < len(p.text); i++ {
		switch c := p.text[i]; c {
		case '"':
			p.at = i + 1
			return Atom(b.String()), nil
		case '\\':
			i++
			if i == len(p.text) {
				return Expression{}, p.fault("text has no end")
			}
			known := -1
			for j := 0; j < len(escapes); j += 2 {
				if escapes[j] == p.text[i] {
					known = j
				}
			}
			if known < 0 {
				p.at = i - 1
				return Expression{}, p.fault("escape \\%c is not known here", p.text[i])
			}
			b.WriteByte(escapes[known+1])
		default:
			b.WriteByte(c)
		}
	}
	return Expression{}, p.fault("text has no end")
}
