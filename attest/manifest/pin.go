package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// RefNode is one reference in a YAML source, pinned or not.
type RefNode struct {
	Line   int    // from 1
	Column int    // in characters, from 1
	Path   string // of the field, such as "spec.inputs[0].ref"
	Value  string // as written
	Pinned bool   // ParseRef, or ParseTarget for a job's output, accepts it
}

// FindRefs lists the references of a document, in the order of the source. The document may be wrong in nothing but its
// references.
func FindRefs(src []byte) ([]RefNode, error) {
	_, refs, err := bindRefs(src)
	if err != nil {
		return nil, err
	}
	out := make([]RefNode, len(refs))
	for i, r := range refs {
		out[i] = r.public()
	}
	return out, nil
}

func (r boundRef) public() RefNode {
	return RefNode{Line: r.node.Line, Column: r.node.Column, Path: r.path, Value: r.node.Value, Pinned: r.err == nil}
}

// bindRefs reads a source as far as its references.
func bindRefs(src []byte) (*yamlFile, []boundRef, error) {
	f, err := parseYAML(src)
	if err != nil {
		return nil, nil, err
	}
	doc, err := f.kind()
	if err != nil {
		return nil, nil, err
	}
	b := binder{places: map[string]*yaml.Node{}, lenient: true}
	b.mapping(f.root, reflect.TypeOf(doc).Elem(), "")
	slices.SortStableFunc(b.refs, func(x, y boundRef) int {
		return cmp.Or(cmp.Compare(x.node.Line, y.node.Line), cmp.Compare(x.node.Column, y.node.Column))
	})
	return f, b.refs, b.err()
}

// ReplaceRefs returns src with the text of some of its references replaced by pinned ones; every other byte stays as it is.
// The nodes are those that FindRefs returned for the same src.
func ReplaceRefs(src []byte, repl map[RefNode]string) ([]byte, error) {
	f, refs, err := bindRefs(src)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	done, want := 0, make([]string, len(refs))
	for i, r := range refs {
		want[i] = r.node.Value
		text, ok := repl[r.public()]
		if !ok {
			continue
		}
		if _, err := ParseRef(text); err != nil {
			return nil, fmt.Errorf("replace %s: %w", r.path, err)
		}
		start, end, err := f.span(r.node)
		if err != nil {
			return nil, err
		}
		out.Write(src[done:start])
		out.WriteString(requote(r.node, text))
		done, want[i] = end, text
	}
	out.Write(src[done:])
	if n := countKnown(refs, repl); n != len(repl) {
		return nil, fmt.Errorf("replace references: %d of %d are not in the document", len(repl)-n, len(repl))
	}
	return out.Bytes(), verifyRefs(out.Bytes(), want)
}

func countKnown(refs []boundRef, repl map[RefNode]string) int {
	known := maps.Clone(repl)
	for _, r := range refs {
		delete(known, r.public())
	}
	return len(repl) - len(known)
}

// verifyRefs reads the result again: it must hold exactly the wanted references.
func verifyRefs(src []byte, want []string) error {
	_, refs, err := bindRefs(src)
	if err != nil {
		return fmt.Errorf("replace references: the result cannot be read: %w", err)
	}
	got := make([]string, len(refs))
	for i, r := range refs {
		got[i] = r.node.Value
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("replace references: the result reads as %q, not %q", got, want)
	}
	return nil
}

// requote writes text in the quotes that the node has. References hold no character that needs an escape.
func requote(n *yaml.Node, text string) string {
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		return `"` + text + `"`
	case n.Style&yaml.SingleQuotedStyle != 0:
		return `'` + strings.ReplaceAll(text, "'", "''") + `'`
	}
	return quoteIfAmbiguous(text)
}

// span returns where a scalar's text begins and ends in the source, quotes included.
func (f *yamlFile) span(n *yaml.Node) (start, end int, err error) {
	start = f.offset(n)
	rest := f.src[start:]
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		end = closing(rest, '"')
	case n.Style&yaml.SingleQuotedStyle != 0:
		end = closing(rest, '\'')
	case n.Style == 0 && bytes.HasPrefix(rest, []byte(n.Value)):
		end = len(n.Value)
	}
	if end == 0 {
		return 0, 0, at(n, "write the reference on one line", "a reference in this style cannot be replaced")
	}
	return start, start + end, nil
}

// closing returns the length of a quoted scalar at the start of b, or 0.
func closing(b []byte, quote byte) int {
	for i := 1; i < len(b); i++ {
		switch {
		case b[i] == '\\' && quote == '"':
			i++
		case b[i] == quote && quote == '\'' && i+1 < len(b) && b[i+1] == quote:
			i++
		case b[i] == quote:
			return i + 1
		}
	}
	return 0
}
