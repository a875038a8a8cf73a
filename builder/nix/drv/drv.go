// Package drv reads and writes derivations (.drv files), the recipes of Nix's and Guix's stores, and computes what they are named by:
// the path of the file itself, and the paths of the outputs that are known before building.
//
// The format is that of github.com/NixOS/nix, doc/manual/source/protocols/derivation-aterm.md: an ATerm, Derive(…), or
// DrvWithVersion("xp-dyn-drv",…) where a derivation depends on outputs of derivations that are built themselves.
//
// It promises that Parse accepts only what Encode writes, byte for byte, so that nothing in a file is overlooked; that it believes no
// path that it can compute (Check); and that sizes are bounded. It never reads a store and builds nothing.
package drv

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
)

// Limits of a file.
const (
	MaxSize  = 16 << 20 // bytes; the largest of nixpkgs have under 1 MiB
	maxDepth = 16       // derivations that make derivations
)

// Suffix ends the names of derivations.
const Suffix = ".drv"

// Derivation is the content of a .drv file. Lists are in the order of the file.
type Derivation struct {
	Outputs []Output // sorted by name; at least one
	Inputs  []Input  // derivations whose outputs are needed, sorted by path
	Sources []string // other store paths that are needed, sorted
	System  string   // such as "x86_64-linux"
	Builder string   // absolute path, or "builtin:NAME"
	Args    []string
	Env     []Var // sorted by name
}

// Output is one output of a derivation.
type Output struct {
	Name string // such as "out"
	Path string // empty: not known before it is built
	// Algo is empty, or the method and algorithm of a content address, such as "r:sha256" (see storepath.Method).
	Algo string
	Hash string // hexadecimal, if the content is fixed; empty otherwise
}

// Input is a derivation that is needed.
type Input struct {
	Path    string
	Outputs []string // sorted
	// Dynamic are outputs that are derivations themselves, of which outputs are needed: sorted by Path, which is here the name of
	// an output.
	Dynamic []Input
}

// Var is a variable of the builder's environment.
type Var struct {
	Name, Value string
}

// Kind says what is known of a derivation's outputs.
type Kind int

// The kinds.
const (
	InputAddressed   Kind = iota // named by the recipe
	Fixed                        // one output, of known content
	ContentAddressed             // named by the content, once it is there
	Deferred                     // named by the recipe, once the inputs' names are known
)

// Kind returns the derivation's kind. Check reports outputs that do not fit together.
func (d *Derivation) Kind() Kind {
	o := d.Outputs[0]
	switch {
	case o.Hash != "":
		return Fixed
	case o.Algo != "":
		return ContentAddressed
	case o.Path == "":
		return Deferred
	}
	return InputAddressed
}

// Lookup returns the value of an environment variable.
func (d *Derivation) Lookup(name string) (string, bool) {
	i, ok := slices.BinarySearchFunc(d.Env, name, func(v Var, n string) int { return strings.Compare(v.Name, n) })
	if !ok {
		return "", false
	}
	return d.Env[i].Value, true
}

// Output returns the output with a name.
func (d *Derivation) Output(name string) (Output, bool) {
	for _, o := range d.Outputs {
		if o.Name == name {
			return o, true
		}
	}
	return Output{}, false
}

// References returns every store path that the file refers to, sorted.
func (d *Derivation) References() []string {
	refs := slices.Clone(d.Sources)
	for _, in := range d.Inputs {
		refs = append(refs, in.Path)
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}

// Encode returns the content of the file.
func (d *Derivation) Encode() []byte {
	var w writer
	w.derivation(d, d.Inputs, false)
	return w.Bytes()
}

// Path returns the path of the file in the store dir. name is the derivation's, without .drv.
func (d *Derivation) Path(dir, name string) (storepath.Path, error) {
	return storepath.Text(dir, name+Suffix, digest.Of(d.Encode()), d.References())
}

// Name returns a derivation's name from its path.
func Name(path string) (string, error) {
	p, err := storepath.Parse(path)
	if err != nil {
		return "", err
	}
	name, ok := strings.CutSuffix(p.Name, Suffix)
	if !ok {
		return "", fmt.Errorf("%q is no derivation: its name does not end in %s", path, Suffix)
	}
	return name, nil
}

// writer writes ATerms.
type writer struct{ bytes.Buffer }

// derivation writes d with inputs in place of its own; masked leaves out what depends on the outputs' paths.
func (w *writer) derivation(d *Derivation, inputs []Input, masked bool) {
	if slices.ContainsFunc(inputs, func(in Input) bool { return len(in.Dynamic) > 0 }) {
		w.WriteString(`DrvWithVersion("xp-dyn-drv",`)
	} else {
		w.WriteString("Derive(")
	}
	list(w, d.Outputs, func(o Output) {
		path := o.Path
		if masked {
			path = ""
		}
		w.tuple(o.Name, path, o.Algo, o.Hash)
	})
	w.WriteByte(',')
	list(w, inputs, w.input)
	w.WriteByte(',')
	list(w, d.Sources, w.quote)
	for _, s := range []string{d.System, d.Builder} {
		w.WriteByte(',')
		w.quote(s)
	}
	w.WriteByte(',')
	list(w, d.Args, w.quote)
	w.WriteByte(',')
	list(w, d.Env, func(v Var) {
		if _, isOutput := d.Output(v.Name); masked && isOutput {
			v.Value = ""
		}
		w.tuple(v.Name, v.Value)
	})
	w.WriteByte(')')
}

func (w *writer) input(in Input) {
	w.WriteByte('(')
	w.quote(in.Path)
	w.WriteByte(',')
	if len(in.Dynamic) > 0 {
		w.WriteByte('(')
		list(w, in.Outputs, w.quote)
		w.WriteByte(',')
		list(w, in.Dynamic, w.input)
		w.WriteByte(')')
	} else {
		list(w, in.Outputs, w.quote)
	}
	w.WriteByte(')')
}

func list[T any](w *writer, items []T, write func(T)) {
	w.WriteByte('[')
	for i, item := range items {
		if i > 0 {
			w.WriteByte(',')
		}
		write(item)
	}
	w.WriteByte(']')
}

func (w *writer) tuple(parts ...string) {
	w.WriteByte('(')
	for i, p := range parts {
		if i > 0 {
			w.WriteByte(',')
		}
		w.quote(p)
	}
	w.WriteByte(')')
}

// escapes are the characters that a string cannot hold as they are, and what stands for them after a backslash.
var escapes = map[byte]byte{'"': '"', '\\': '\\', '\n': 'n', '\r': 'r', '\t': 't'}

func (w *writer) quote(s string) {
	w.WriteByte('"')
	for i := range len(s) {
		if short, ok := escapes[s[i]]; ok {
			w.WriteByte('\\')
			w.WriteByte(short)
			continue
		}
		w.WriteByte(s[i])
	}
	w.WriteByte('"')
}
