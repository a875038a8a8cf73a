package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// ReadYAML reads one document of any kind, written in a strict subset of YAML: one document of plain mappings, lists
// and scalars that every reader of YAML 1.1 and 1.2 understands alike. It refuses unknown fields, duplicate and non-NFC
// keys, merge keys, anchors, aliases, tags, directives, a second document, a byte order mark, invalid UTF-8, control and
// text direction characters, scalars whose type depends on the reader, numbers that JSON would change, and whatever is
// over this package's limits; and it refuses what Validate refuses.
//
// The error is a *SyntaxError or an ErrorList, with line and column. A reference that is no pin has an *UnpinnedError in
// its chain.
func ReadYAML(src []byte) (Document, error) {
	file, err := parseYAML(src)
	if err != nil {
		return nil, err
	}
	return file.document()
}

// yamlFile is a source that is well formed, and its tree.
//
// Only yaml.Node is used: decoding into Go values by the library panics on some inputs, takes quadratic time, and
// converts types on its own.
type yamlFile struct {
	src   []byte
	runes []int // byte offset of each character, and the length
	lines []int // index into runes of each line's first character
	root  *yaml.Node
}

// parseYAML checks everything about a source that needs no schema.
func parseYAML(src []byte) (*yamlFile, error) {
	f := &yamlFile{src: src}
	if err := f.scan(); err != nil {
		return nil, err
	}
	if err := f.parse(); err != nil {
		return nil, err
	}
	if err := f.checkNode(f.root, 1); err != nil {
		return nil, err
	}
	return f, nil
}

// scan checks the characters and indexes them.
func (f *yamlFile) scan() error {
	if len(f.src) > MaxSize {
		return &SyntaxError{Line: 1, Column: 1, Msg: fmt.Sprintf("the file has %d bytes; at most %d are allowed", len(f.src), MaxSize), Cure: "move large values into files and refer to them by their pins"}
	}
	f.runes = make([]int, 0, len(f.src)+1)
	f.lines = []int{0}
	for i := 0; i < len(f.src); {
		r, size := utf8.DecodeRune(f.src[i:])
		here := func(cure, format string, args ...any) error {
			return &SyntaxError{Line: len(f.lines), Column: len(f.runes) - f.lines[len(f.lines)-1] + 1, Msg: fmt.Sprintf(format, args...), Cure: cure}
		}
		lineStart := len(f.runes) == f.lines[len(f.lines)-1]
		switch {
		case r == utf8.RuneError && size == 1:
			return here("save the file as UTF-8", "byte 0x%02x is not valid UTF-8", f.src[i])
		case r == '\r':
			return here("save the file with Unix line ends (LF)", "carriage return")
		case badRune(r) != "":
			return here("remove it, or write it as an escape where it is meant", "%s", badRune(r))
		case lineStart && r == '%':
			return here("remove the line", "a YAML directive is not allowed")
		case lineStart && bytes.HasPrefix(f.src[i:], []byte("...")):
			return here("remove the line", "an end marker is not allowed; a file is one document")
		}
		f.runes = append(f.runes, i)
		i += size
		if r == '\n' {
			f.lines = append(f.lines, len(f.runes))
		}
	}
	f.runes = append(f.runes, len(f.src))
	return nil
}

// offset returns the byte offset of a node.
func (f *yamlFile) offset(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(f.lines) {
		return len(f.src)
	}
	return f.runes[min(f.lines[n.Line-1]+n.Column-1, len(f.runes)-1)]
}

// parse makes the tree, of exactly one document.
func (f *yamlFile) parse() error {
	dec := yaml.NewDecoder(bytes.NewReader(f.src))
	var doc, second yaml.Node
	if err := decodeNode(dec, &doc); errors.Is(err, io.EOF) {
		return &SyntaxError{Line: 1, Column: 1, Msg: "the document is empty", Cure: "begin with apiVersion: " + APIVersion}
	} else if err != nil {
		return f.libraryError(err)
	}
	if err := decodeNode(dec, &second); err == nil {
		return at(&second, "put each document into a file of its own", "a second document begins here")
	} else if !errors.Is(err, io.EOF) {
		return f.libraryError(err)
	}
	f.root = doc.Content[0]
	if f.root.Kind != yaml.MappingNode {
		return at(f.root, "begin with apiVersion: "+APIVersion, "the document is not a mapping")
	}
	return nil
}

// decodeNode reads the next document's tree. The library panics on broken invariants of its own ("please report"); on
// bytes from strangers that must be no more than a refusal.
func decodeNode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	return dec.Decode(n)
}

var (
	libraryLine  = compiled(`^yaml: (?:line ([0-9]+): )?`)
	libraryAlias = compiled(`^unknown anchor '(.*)' referenced$`)
	// parserProblem are the messages of the library's parser. It counts their lines from 0, those of its scanner from 1.
	parserProblem = compiled(`did not find expected (<document start>|node content|'-' indicator|key|',' or)`)
)

// libraryError turns an error of the YAML library into ours. The library tells no column: it is that of the line's first
// character that is not blank.
func (f *yamlFile) libraryError(err error) error {
	m := libraryLine().FindStringSubmatch(err.Error())
	if m == nil {
		return &SyntaxError{Line: 1, Column: 1, Msg: fmt.Sprintf("not YAML: %q", err.Error()), Err: err}
	}
	line, _ := strconv.Atoi(m[1])
	text := strings.ReplaceAll(strings.TrimPrefix(err.Error(), m[0]), "\n", " ")
	if parserProblem().MatchString(text) {
		line++
	}
	e := &SyntaxError{Msg: "not YAML: " + shorten(text), Cure: "check the indentation, colons, brackets and quotes around this line", Err: err}
	e.Line = min(max(line, 1), len(f.lines))
	e.Column = f.firstColumn(e.Line)
	if alias := libraryAlias().FindStringSubmatch(text); alias != nil {
		e.Msg, e.Cure = fmt.Sprintf("the alias *%s is not allowed", shorten(alias[1])), "write the value out"
		f.findAlias(e, alias[1])
	}
	return e
}

// findAlias puts e at the first place outside comments that looks like the alias: the library does not tell.
func (f *yamlFile) findAlias(e *SyntaxError, name string) {
	for i, line := range strings.Split(string(f.src), "\n") {
		code, _, _ := strings.Cut(" "+line, " #")
		if before, _, found := strings.Cut(code, "*"+name); found {
			e.Line, e.Column = i+1, utf8.RuneCountInString(before)
			return
		}
	}
}

// firstColumn returns the column of a line's first character that is not blank.
func (f *yamlFile) firstColumn(line int) int {
	rest := f.src[f.runes[f.lines[line-1]]:]
	return 1 + len(rest) - len(bytes.TrimLeft(rest, " \t"))
}

// at makes an error that points at a node.
func at(n *yaml.Node, cure, format string, args ...any) *SyntaxError {
	return &SyntaxError{Line: n.Line, Column: n.Column, Msg: fmt.Sprintf(format, args...), Cure: cure}
}

// checkNode refuses what no document may hold, whatever its schema.
func (f *yamlFile) checkNode(n *yaml.Node, depth int) error {
	switch c := f.byteAt(n); {
	case n.Kind == yaml.AliasNode:
		return at(n, "write the value out", "the alias *%s is not allowed", shorten(n.Value))
	case n.Anchor != "" || c == '&':
		return at(n, "remove it, and write the value out where it is used", "an anchor is not allowed")
	case n.Style&yaml.TaggedStyle != 0 || c == '!':
		return at(n, "remove it; the schema says what type a value has", "a tag is not allowed")
	}
	if f.tightComment(n) {
		return at(n, "put a space before the #", "a comment follows without a space, which some readers refuse")
	}
	switch n.Kind {
	case yaml.MappingNode, yaml.SequenceNode:
		if depth > MaxDepth {
			return at(n, "", "nested deeper than %d levels", MaxDepth)
		}
	case yaml.ScalarNode:
		if msg := badText(n.Value); msg != "" {
			return at(n, "remove it", "%s", msg)
		}
	}
	if n.Kind == yaml.MappingNode {
		return f.checkMapping(n, depth)
	}
	if len(n.Content) > MaxKeys {
		return at(n.Content[MaxKeys], "", "a list of %d items; at most %d are allowed", len(n.Content), MaxKeys)
	}
	for _, child := range n.Content {
		if err := f.checkNode(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// tightComment reports whether a comment touches the end of a quoted scalar, a block scalar's header or a collection in
// flow style: the library takes it, YAML 1.2.2 (section 6.6) does not. Collections in flow style are read once for each
// level around them, so the work is linear by MaxDepth.
func (f *yamlFile) tightComment(n *yaml.Node) bool {
	end := -1
	switch {
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		_, end, _ = f.span(n)
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		end = f.offset(n)
		for end < len(f.src) && strings.IndexByte("|>+-0123456789", f.src[end]) >= 0 {
			end++
		}
	case n.Style&yaml.FlowStyle != 0:
		end = f.flowEnd(n) + 1
	}
	return end > 0 && end < len(f.src) && f.src[end] == '#'
}

func (f *yamlFile) byteAt(n *yaml.Node) byte {
	if off := f.offset(n); off < len(f.src) {
		return f.src[off]
	}
	return 0
}

func (f *yamlFile) checkMapping(n *yaml.Node, depth int) error {
	if len(n.Content) > 2*MaxKeys {
		return at(n.Content[2*MaxKeys], "", "a mapping of %d keys; at most %d are allowed", len(n.Content)/2, MaxKeys)
	}
	seen := make(map[string]int, len(n.Content)/2)
	for pair := range slices.Chunk(n.Content, 2) {
		key, value := pair[0], pair[1]
		if err := f.checkNode(key, depth+1); err != nil {
			return err
		}
		if err := checkKey(key); err != nil {
			return err
		}
		if line, dup := seen[key.Value]; dup {
			return at(key, "remove one of them", "the key %q is given twice, first in line %d", key.Value, line)
		}
		seen[key.Value] = key.Line
		if err := f.checkNode(value, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// checkKey wants a string, to every reader.
func checkKey(key *yaml.Node) error {
	if key.Kind != yaml.ScalarNode {
		return at(key, "write a plain word before the colon", "a key must be a string")
	}
	if !isQuoted(key) {
		if key.Value == "<<" {
			return at(key, "write the fields out", "a merge key is not allowed")
		}
		if kind := plainKind(key.Value); kind != kindString && key.Value != "" {
			return at(key, "quote it: "+strconv.Quote(shorten(key.Value)), "the key %s is %s to some readers, not a string", shorten(key.Value), kind)
		}
	}
	if msg, cure := badKey(key.Value); msg != "" {
		return at(key, cure, "%s", msg)
	}
	return nil
}
