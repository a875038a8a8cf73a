package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen collects the text of a result. Whatever is written to it is made safe for a terminal; escape sequences come
// from paint alone.
type screen struct {
	color bool
	done  bytes.Buffer // safe
	raw   bytes.Buffer // written since, not yet made safe: a character may come in parts
}

// Write appends text from anywhere.
func (s *screen) Write(p []byte) (int, error) { return s.raw.Write(p) }

// paint appends text in the color of an SGR code.
func (s *screen) paint(code, text string) {
	s.flush()
	s.done.WriteString(paint(s.color, code, text))
}

func (s *screen) flush() {
	s.done.WriteString(printable(s.raw.String()))
	s.raw.Reset()
}

func (s *screen) bytes() []byte {
	s.flush()
	return s.done.Bytes()
}

func paint(color bool, code, text string) string {
	if !color {
		return printable(text)
	}
	return "\x1b[" + code + "m" + printable(text) + "\x1b[0m"
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// animated reports whether w is a terminal that understands escape sequences.
func animated(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("TERM") != "dumb"
}

// width is the number of columns of the terminal w.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return 80
}

// colored reports whether w may be written to in color (no-color.org).
func (a *app) colored(w io.Writer) bool {
	switch a.color {
	case "always":
		return true
	case "never":
		return false
	}
	return os.Getenv("NO_COLOR") == "" && animated(w)
}

// unprintable reports whether a terminal would act on a character instead of showing it: control characters, also those
// of ISO 6429 that UTF-8 can spell (U+009B is an escape sequence's beginning), line separators, and what changes the
// direction of writing, so that text would read as something else.
func unprintable(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < 0x20, r >= 0x7f && r < 0xa0:
		return true
	case r == 0x061c, r >= 0x200e && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return false
}

// printable makes text that came from elsewhere safe for a terminal: what it would act on is written as Go writes it in
// a string, such as \x1b; newline and tab stay. Bytes that are no UTF-8 are written as \xff.
func printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return unprintable(r) || r == utf8.RuneError }) < 0 {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && n == 1, r < 0x80 && unprintable(r):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case unprintable(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(text[i : i+n])
		}
		i += n
	}
	return b.String()
}

// printableLine is printable for text that must stay on one line.
func printableLine(text string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(printable(text))
}

// printableJSON escapes within encoded JSON what JSON lets pass and terminals act on.
func printableJSON(data []byte) []byte {
	if bytes.IndexFunc(data, unprintable) < 0 {
		return data
	}
	var b bytes.Buffer
	for _, r := range string(data) { // such characters stand in strings only, and none is beyond U+FFFF
		if unprintable(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.Bytes()
}
