package diff

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
)

//go:embed report.html
var page string

// hexLine is a line of 16 bytes of two excerpts.
type hexLine struct {
	Offset string
	A, B   []hexByte
}

// hexByte is a byte of an excerpt.
type hexByte struct {
	Hex, Char string
	Differs   bool
}

// HTML writes the report as one page that loads nothing and runs nothing.
func (r *Report) HTML(w io.Writer) error {
	functions := template.FuncMap{"name": Name, "hex": hexLines, "verdict": func() string { return r.verdict() }, "more": func() int { return r.Total - len(r.Differences) }}
	t, err := template.New("report").Funcs(functions).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

// hexLines lays two excerpts side by side.
func hexLines(a, b *Excerpt) []hexLine {
	if a == nil || b == nil {
		return nil
	}
	var lines []hexLine
	for i := 0; i < max(len(a.Bytes), len(b.Bytes)); i += 16 {
		lines = append(lines, hexLine{
			Offset: fmt.Sprintf("%08x", a.Offset+int64(i)),
			A:      hexBytes(a.Bytes, b.Bytes, i),
			B:      hexBytes(b.Bytes, a.Bytes, i),
		})
	}
	return lines
}

// hexBytes are the bytes of p from start on, marked where other has not the same.
func hexBytes(p, other []byte, start int) []hexByte {
	var list []hexByte
	for i := start; i < min(start+16, len(p)); i++ {
		char := "."
		if plain(p[i]) {
			char = string(rune(p[i]))
		}
		list = append(list, hexByte{fmt.Sprintf("%02x", p[i]), char, i >= len(other) || other[i] != p[i]})
	}
	return list
}
