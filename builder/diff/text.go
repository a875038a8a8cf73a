package diff

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Name writes the way to a difference: the path, then the members, each quoted if it holds anything but printable characters or could be
// taken for a part of the way.
func Name(path string, members []string) string {
	parts := []string{}
	if path != "" {
		parts = append(parts, quoteIfOdd(path))
	}
	for _, m := range members {
		parts = append(parts, quoteIfOdd(m))
	}
	if len(parts) == 0 {
		return "the file itself"
	}
	return strings.Join(parts, " » ")
}

// quoteIfOdd quotes what a terminal or a reader could misunderstand.
func quoteIfOdd(s string) string {
	if q := strconv.Quote(s); s == "" || q[1:len(q)-1] != s || strings.Contains(s, "»") || strings.TrimSpace(s) != s {
		return q
	}
	return s
}

// quote quotes a value in a sentence and cuts it to a length that can be read.
func quote(s string) string {
	const longest = 160
	if len(s) > longest {
		return strconv.Quote(s[:longest]) + "…"
	}
	return strconv.Quote(s)
}

// Text writes the report for a terminal: nothing of what was compared reaches it unquoted.
func (r *Report) Text(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, r.verdict())
	for _, d := range r.Differences {
		fmt.Fprintf(out, "\n%s\n  %s: %s\n", Name(d.Path, d.Members), d.Cause, d.Sentence)
		if d.Offset >= 0 {
			fmt.Fprintf(out, "  at byte %d, %s, sizes %d and %d\n", d.Offset, number(d.Count, "differing byte"), d.SizeA, d.SizeB)
		}
	}
	if more := r.Total - len(r.Differences); more > 0 {
		fmt.Fprintf(out, "\n%s not listed.\n", number(int64(more), "more difference"))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(out, "\nnote: %s\n", note)
	}
	return out.Flush()
}

// verdict is the first line of the report.
func (r *Report) verdict() string {
	compared := fmt.Sprintf("%s, %d bytes", number(int64(r.Files), "file"), r.Bytes)
	if r.Equal {
		return fmt.Sprintf("%s and %s are equal (%s).", quoteIfOdd(r.A), quoteIfOdd(r.B), compared)
	}
	var causes []string
	for _, c := range r.Causes {
		causes = append(causes, fmt.Sprintf("%s %d", c.Cause, c.Count))
	}
	return fmt.Sprintf("%s and %s have %s (%s): %s.", quoteIfOdd(r.A), quoteIfOdd(r.B), number(int64(r.Total), "difference"), compared, strings.Join(causes, ", "))
}

// number writes a count with its noun.
func number(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatInt(n, 10) + " " + noun + "s"
}

// oneLine is the text of an error that may quote what was compared.
func oneLine(err error) string {
	q := strconv.Quote(err.Error())
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
