package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// JSONToYAML writes one JSON value as YAML in block style, members in their order, that readers of YAML 1.1 and 1.2 and ReadYAML understand
// alike. It ends with a newline. The error is JSON's, or says that more than MaxDepth levels are nested.
func JSONToYAML(data []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	w := anyWriter{dec: dec}
	if err := w.value(0, ""); err != nil {
		return nil, fmt.Errorf("write JSON as YAML: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("write JSON as YAML: something follows the value")
	}
	return bytes.TrimLeft(w.Bytes(), " \n"), nil
}

// anyWriter writes what a decoder reads.
type anyWriter struct {
	bytes.Buffer
	dec *json.Decoder
}

// value writes the next value, at a level of indentation, where lead already stands on the line: a key's colon, a list's dash, or nothing.
func (w *anyWriter) value(level int, lead string) error {
	tok, err := w.dec.Token()
	if err != nil {
		return err
	}
	if level > MaxDepth {
		return fmt.Errorf("nested deeper than %d levels", MaxDepth)
	}
	switch tok := tok.(type) {
	case json.Delim:
		if !w.dec.More() {
			_, err := w.dec.Token()
			w.WriteString(map[json.Delim]string{'{': " {}\n", '[': " []\n"}[tok])
			return err
		}
		if tok == '{' {
			err = w.members(level, lead == "-")
		} else {
			err = w.items(level)
		}
		if err != nil {
			return err
		}
		_, err = w.dec.Token()
		return err
	case string:
		w.WriteString(" " + anyText(tok) + "\n")
	case nil:
		w.WriteString(" null\n")
	default: // bool, json.Number
		fmt.Fprintf(w, " %v\n", tok)
	}
	return nil
}

// members writes an object; the first member stands behind a dash.
func (w *anyWriter) members(level int, dash bool) error {
	for first := true; w.dec.More(); first = false {
		key, err := w.dec.Token()
		if err != nil {
			return err
		}
		switch {
		case first && dash:
			w.WriteByte(' ')
		case first:
			w.WriteByte('\n')
			fallthrough
		default:
			w.WriteString(strings.Repeat("  ", level))
		}
		w.WriteString(anyText(key.(string)) + ":")
		if err := w.value(level+1, ":"); err != nil {
			return err
		}
	}
	return nil
}

func (w *anyWriter) items(level int) error {
	w.WriteByte('\n')
	for w.dec.More() {
		w.WriteString(strings.Repeat("  ", level) + "-")
		if err := w.value(level+1, "-"); err != nil {
			return err
		}
	}
	return nil
}

// anyText writes a string. Documents hold none with characters that change how text looks; these are escaped, in the way that Go and YAML share.
func anyText(s string) string {
	if badText(s) != "" {
		return strconv.QuoteToASCII(s)
	}
	return quoteIfAmbiguous(s)
}
