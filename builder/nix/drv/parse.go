package drv

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"arch.network/attest/digest/storepath"
)

// SyntaxError says where a file stops being a derivation.
type SyntaxError struct {
	Offset int // bytes before the fault
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("read derivation: at byte %d: %s", e.Offset, e.Reason)
}

// Parse reads a .drv file. Errors are of type *SyntaxError.
func Parse(data []byte) (*Derivation, error) {
	if len(data) > MaxSize {
		return nil, &SyntaxError{MaxSize, fmt.Sprintf("the file has %d bytes, over the limit of %d", len(data), MaxSize)}
	}
	p := &parser{data: data}
	d := p.file()
	if p.err == nil {
		p.check(d)
	}
	if p.err != nil {
		return nil, p.err
	}
	return d, nil
}

// parser reads ATerms. After an error every method does nothing.
type parser struct {
	data    []byte
	at      int
	dynamic bool // the version that allows Input.Dynamic
	err     *SyntaxError
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = &SyntaxError{p.at, fmt.Sprintf(format, args...)}
	}
}

func (p *parser) file() *Derivation {
	d := &Derivation{}
	if p.dynamic = p.has(`DrvWithVersion("xp-dyn-drv",`); !p.dynamic {
		p.expect("Derive(")
	}
	d.Outputs = items(p, p.output)
	p.expect(",")
	d.Inputs = items(p, func() Input { return p.input(0) })
	p.expect(",")
	d.Sources = items(p, p.text)
	p.expect(",")
	d.System = p.text()
	p.expect(",")
	d.Builder = p.text()
	p.expect(",")
	d.Args = items(p, p.text)
	p.expect(",")
	d.Env = items(p, p.variable)
	p.expect(")")
	if p.at < len(p.data) {
		p.fail("there is more behind the derivation")
	}
	return d
}

func (p *parser) output() Output {
	var o Output
	p.expect("(")
	for i, to := range []*string{&o.Name, &o.Path, &o.Algo, &o.Hash} {
		if i > 0 {
			p.expect(",")
		}
		*to = p.text()
	}
	p.expect(")")
	return o
}

func (p *parser) input(depth int) Input {
	if depth > maxDepth {
		p.fail("derivations of derivations go deeper than %d", maxDepth)
		return Input{}
	}
	var in Input
	p.expect("(")
	in.Path = p.text()
	p.expect(",")
	if p.dynamic && p.has("(") {
		in.Outputs = items(p, p.text)
		p.expect(",")
		in.Dynamic = items(p, func() Input { return p.input(depth + 1) })
		p.expect(")")
		if len(in.Dynamic) == 0 {
			p.fail("an input with no dynamic outputs is written without them")
		}
	} else {
		in.Outputs = items(p, p.text)
	}
	p.expect(")")
	return in
}

func (p *parser) variable() Var {
	var v Var
	p.expect("(")
	v.Name = p.text()
	p.expect(",")
	v.Value = p.text()
	p.expect(")")
	return v
}

// has skips a literal if it is next.
func (p *parser) has(literal string) bool {
	if p.err != nil || !strings.HasPrefix(string(p.data[p.at:min(len(p.data), p.at+len(literal))]), literal) {
		return false
	}
	p.at += len(literal)
	return true
}

func (p *parser) expect(literal string) {
	if !p.has(literal) {
		p.fail("want %q", literal)
	}
}

// text reads a string.
func (p *parser) text() string {
	p.expect(`"`)
	if p.err != nil {
		return ""
	}
	var out strings.Builder
	for from := p.at; p.at < len(p.data); p.at++ {
		switch c := p.data[p.at]; c {
		case '"':
			out.Write(p.data[from:p.at])
			p.at++
			return out.String()
		case '\n', '\r', '\t':
			p.fail("character %q must be escaped", c)
			return ""
		case '\\':
			out.Write(p.data[from:p.at])
			p.at++
			plain, ok := p.escaped()
			if !ok {
				p.fail("no such escape")
				return ""
			}
			out.WriteByte(plain)
			from = p.at + 1
		}
	}
	p.fail("the file ends within a string")
	return ""
}

// escaped returns what the character after a backslash stands for.
func (p *parser) escaped() (byte, bool) {
	if p.at < len(p.data) {
		for plain, short := range escapes {
			if p.data[p.at] == short {
				return plain, true
			}
		}
	}
	return 0, false
}

// items reads a list.
func items[T any](p *parser, read func() T) []T {
	p.expect("[")
	if p.has("]") {
		return nil
	}
	var out []T
	for p.err == nil {
		out = append(out, read())
		if p.has("]") {
			break
		}
		p.expect(",")
	}
	return out
}

// check holds the lists to their order, and paths to their form.
func (p *parser) check(d *Derivation) {
	if p.dynamic && !slices.ContainsFunc(d.Inputs, func(in Input) bool { return len(in.Dynamic) > 0 }) {
		p.fail("a derivation without dynamic inputs is written as Derive(…)")
	}
	if len(d.Outputs) == 0 {
		p.fail("it has no outputs")
	}
	ascending(p, "outputs", d.Outputs, func(o Output) string { return o.Name })
	ascending(p, "variables", d.Env, func(v Var) string { return v.Name })
	ascending(p, "sources", d.Sources, func(s string) string { return s })
	ascending(p, "inputs", d.Inputs, func(in Input) string { return in.Path })
	for _, o := range d.Outputs {
		if !outputName(o.Name) {
			p.fail("%q is no name of an output", o.Name)
		}
		if o.Path != "" {
			p.storePath(o.Path)
		}
		if o.Hash != "" && o.Algo == "" {
			p.fail("output %q has a hash of no algorithm", o.Name)
		}
	}
	for _, s := range d.Sources {
		p.storePath(s)
	}
	for _, in := range d.Inputs {
		if _, err := Name(in.Path); err != nil {
			p.fail("%v", err)
		}
		p.checkInput(in)
	}
}

func (p *parser) checkInput(in Input) {
	if len(in.Outputs)+len(in.Dynamic) == 0 {
		p.fail("no output of input %q is wanted", in.Path)
	}
	ascending(p, "outputs of an input", in.Outputs, func(s string) string { return s })
	ascending(p, "dynamic outputs", in.Dynamic, func(in Input) string { return in.Path })
	for _, name := range in.Outputs {
		if !outputName(name) {
			p.fail("%q is no name of an output", name)
		}
	}
	for _, sub := range in.Dynamic {
		if !outputName(sub.Path) {
			p.fail("%q is no name of an output", sub.Path)
		}
		p.checkInput(sub)
	}
}

func (p *parser) storePath(s string) {
	if _, err := storepath.Parse(s); err != nil {
		p.fail("%v", err)
	}
}

// outputName reports whether s may name an output: it becomes part of the name of a store object.
func outputName(s string) bool { return storepath.CheckName(s) == nil }

// ascending wants a list sorted by key, with no key twice.
func ascending[T any](p *parser, what string, list []T, key func(T) string) {
	if !slices.IsSortedFunc(list, func(a, b T) int { return cmp.Compare(key(a), key(b)) }) {
		p.fail("its %s are not sorted", what)
	}
	for i := 1; i < len(list); i++ {
		if key(list[i-1]) == key(list[i]) {
			p.fail("its %s hold %q twice", what, key(list[i]))
		}
	}
}
