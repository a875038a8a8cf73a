// Package sexp reads and writes S-expressions as libgcrypt does, in which Guix keeps its keys, its access control list and its
// signatures (RFC 9804; libgcrypt: Used S-expressions).
//
// It reads the canonical and the advanced form, also mixed: lists in parentheses, words, "text", #HEX# and LENGTH:BYTES. It promises
// that size and depth are bounded before anything is built, that nothing follows the expression but white space, and that what is written
// is read back as the same expression. Base 64, display hints and comments, which Guix never writes, are refused.
//
// It never says what an expression means: that is for its sibling signature.
package sexp

import (
	"strconv"
	"strings"
)

// The limits of an expression. Guix's access control list has some 150 bytes a key.
const (
	MaxSize  = 64 << 10 // bytes of its text
	MaxDepth = 16       // lists in lists
)

// Expression is an atom or a list.
type Expression struct {
	Atom string       // its bytes
	List []Expression // nil: it is an atom
}

// Atom returns an atom of these bytes.
func Atom(bytes string) Expression { return Expression{Atom: bytes} }

// List returns a list that begins with a name, as those of Guix do.
func List(name string, rest ...Expression) Expression {
	return Expression{List: append([]Expression{Atom(name)}, rest...)}
}

// IsList reports whether e is a list.
func (e Expression) IsList() bool { return e.List != nil }

// Named returns what follows the name in a list that begins with it.
func (e Expression) Named(name string) ([]Expression, bool) {
	if len(e.List) == 0 || e.List[0].IsList() || e.List[0].Atom != name {
		return nil, false
	}
	return e.List[1:], true
}

// Value returns the one atom that follows the name.
func (e Expression) Value(name string) (string, bool) {
	rest, ok := e.Named(name)
	if !ok || len(rest) != 1 || rest[0].IsList() {
		return "", false
	}
	return rest[0].Atom, true
}

// Canonical returns the canonical form, of which each expression has one: (4:name3:...).
func (e Expression) Canonical() string {
	var b strings.Builder
	e.canonical(&b)
	return b.String()
}

func (e Expression) canonical(b *strings.Builder) {
	if !e.IsList() {
		b.WriteString(strconv.Itoa(len(e.Atom)))
		b.WriteByte(':')
		b.WriteString(e.Atom)
		return
	}
	b.WriteByte('(')
	for _, one := range e.List {
		one.canonical(b)
	}
	b.WriteByte(')')
}

// Advanced returns the form that libgcrypt calls so, with its line breaks, to the byte; except that text which is no word is written as #HEX#.
func (e Expression) Advanced() string {
	var b strings.Builder
	e.advanced(&b, 1)
	b.WriteByte('\n')
	return b.String()
}

// advanced writes e, and what is in it indented: each list begins a line, and so does what follows one in the same list.
func (e Expression) advanced(b *strings.Builder, indent int) {
	if !e.IsList() {
		writeAtom(b, e.Atom)
		return
	}
	b.WriteByte('(')
	afterList := false
	for i, one := range e.List {
		if one.IsList() || afterList {
			newLine(b, indent)
		}
		one.advanced(b, indent+1)
		if afterList = one.IsList(); !afterList && i < len(e.List)-1 {
			b.WriteByte(' ')
		}
	}
	if afterList {
		newLine(b, indent)
	}
	b.WriteByte(')')
}

func newLine(b *strings.Builder, indent int) {
	b.WriteByte('\n')
	b.WriteString(strings.Repeat(" ", indent))
}

const upperHex = "0123456789ABCDEF"

func writeAtom(b *strings.Builder, atom string) {
	if isWord(atom) {
		b.WriteString(atom)
		return
	}
	b.WriteByte('#')
	for i := range len(atom) {
		b.WriteByte(upperHex[atom[i]>>4])
		b.WriteByte(upperHex[atom[i]&15])
	}
	b.WriteByte('#')
}

func isWord(atom string) bool {
	if atom == "" || isDigit(atom[0]) {
		return false
	}
	for i := range len(atom) {
		if !wordByte(atom[i]) {
			return false
		}
	}
	return true
}

// wordByte reports whether c may be in a word: RFC 9804, section 4.3.
func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c) || strings.IndexByte("-./_:*+=", c) >= 0
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
