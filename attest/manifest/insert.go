package manifest

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// InsertSignatures returns src with the signatures added that it does not carry yet; every other byte stays as it is,
// comments and layout included. The first signature of a kind that has spec.signature goes there, all others to
// signatures. The document must be valid, and each signature must claim the algorithm of its signer; whether it verifies
// is for the caller to know.
func InsertSignatures(src []byte, sigs []Signature) ([]byte, error) {
	doc, err := ReadYAML(src)
	if err != nil {
		return nil, err
	}
	carried := Signatures(doc)
	var added []Signature
	for _, s := range sigs {
		if err := CheckAlg(s); err != nil {
			return nil, err
		}
		if !slices.Contains(carried, s) && !slices.Contains(added, s) {
			added = append(added, s)
		}
	}
	if len(added) == 0 {
		return slices.Clone(src), nil
	}
	want := slices.Concat(carried, added)
	if len(want) > MaxSignatures {
		return nil, fmt.Errorf("insert signatures: %s %q would have %d; at most %d are allowed", doc.DocumentKind(), doc.Head().Name, len(want), MaxSignatures)
	}
	single := len(want) == 1 && len(signatureFields(reflect.ValueOf(doc).Elem())) == 2
	return insertVerified(src, doc, added, want, single)
}

// insertVerified tries the places where the signatures may go and returns the first result that reads as the same
// document with the wanted signatures. So a layout that the search for a place misunderstands ends in an error, never in
// another document.
func insertVerified(src []byte, doc Document, added, want []Signature, single bool) ([]byte, error) {
	f, err := parseYAML(src)
	if err != nil {
		return nil, err
	}
	before, err := Canonical(doc)
	if err != nil {
		return nil, err
	}
	for _, tidy := range []bool{true, false} {
		out, ok := f.insert(added, single, tidy)
		if !ok {
			continue
		}
		again, err := ReadYAML(out)
		if err != nil {
			continue
		}
		after, err := Canonical(again)
		if err == nil && bytes.Equal(before, after) && slices.Equal(Signatures(again), want) {
			return out, nil
		}
	}
	return nil, &SyntaxError{Msg: "insert signatures: the layout of the document leaves no place for them", Cure: "write spec and signatures in block style, one field a line"}
}

// insert adds signatures. If tidy, they go before the comments and blank lines at the end of the part they belong to.
func (f *yamlFile) insert(added []Signature, single, tidy bool) ([]byte, bool) {
	if list := lookup(f.root, "signatures"); list != nil {
		return f.insertItems(list, added, tidy)
	}
	if single {
		return f.insertField(lookup(f.root, "spec"), "signature: "+flowSignature(added[0]), tidy)
	}
	var items []string
	for _, s := range added {
		items = append(items, flowSignature(s))
	}
	if f.root.Style&yaml.FlowStyle != 0 {
		return f.insertField(f.root, "signatures: ["+strings.Join(items, ", ")+"]", tidy)
	}
	margin := strings.Repeat(" ", f.root.Column-1)
	return f.insertField(f.root, "signatures:\n"+margin+"  - "+strings.Join(items, "\n"+margin+"  - "), tidy)
}

func (f *yamlFile) insertItems(list *yaml.Node, added []Signature, tidy bool) ([]byte, bool) {
	var lines strings.Builder
	for i, s := range added {
		if list.Style&yaml.FlowStyle == 0 {
			lines.WriteString(strings.Repeat(" ", list.Column-1) + "- " + flowSignature(s) + "\n")
			continue
		}
		if i > 0 || len(list.Content) > 0 {
			lines.WriteString(", ")
		}
		lines.WriteString(flowSignature(s))
	}
	if list.Style&yaml.FlowStyle != 0 {
		return f.splice(f.flowEnd(list), lines.String())
	}
	return f.splice(f.blockEnd(list, tidy), lines.String())
}

// insertField adds a field at the end of a mapping.
func (f *yamlFile) insertField(mapping *yaml.Node, text string, tidy bool) ([]byte, bool) {
	if mapping.Style&yaml.FlowStyle != 0 {
		return f.splice(f.flowEnd(mapping), ", "+text)
	}
	return f.splice(f.blockEnd(mapping, tidy), strings.Repeat(" ", mapping.Column-1)+text+"\n")
}

// splice inserts text at a byte offset; a negative one means that there is no place.
func (f *yamlFile) splice(at int, text string) ([]byte, bool) {
	if at < 0 {
		return nil, false
	}
	if at > 0 && f.src[at-1] != '\n' && strings.HasSuffix(text, "\n") {
		text = "\n" + text
	}
	return slices.Concat(f.src[:at], []byte(text), f.src[at:]), true
}

// blockEnd returns the offset of the line after the root's value n, or after the root itself.
func (f *yamlFile) blockEnd(n *yaml.Node, tidy bool) int {
	end := len(f.src)
	for i := 1; i+1 < len(f.root.Content); i += 2 {
		if f.root.Content[i] == n {
			end = f.runes[f.lines[f.root.Content[i+1].Line-1]]
		}
	}
	for tidy {
		start := bytes.LastIndexByte(f.src[:max(end-1, 0)], '\n') + 1
		line := bytes.TrimSpace(f.src[start:end])
		if start == end || (len(line) > 0 && line[0] != '#') {
			break
		}
		end = start
	}
	return end
}

// flowEnd returns the offset of the bracket that closes a collection in flow style, or -1.
func (f *yamlFile) flowEnd(n *yaml.Node) int {
	depth := 0
	for i := f.offset(n); i < len(f.src); i++ {
		switch c := f.src[i]; {
		case c == '"' || c == '\'':
			size := closing(f.src[i:], c)
			if size == 0 {
				return -1
			}
			i += size - 1
		case c == '#' && (f.src[i-1] == ' ' || f.src[i-1] == '\n' || f.src[i-1] == '\t'):
			for i+1 < len(f.src) && f.src[i+1] != '\n' {
				i++
			}
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// flowSignature writes a signature on one line.
func flowSignature(s Signature) string {
	return fmt.Sprintf("{by: %s, alg: %s, sig: %s}", quoteYAML(s.By), quoteIfAmbiguous(s.Alg), quoteYAML(s.Sig))
}
