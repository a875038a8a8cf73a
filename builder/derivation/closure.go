package derivation

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/manifest"
	"arch.network/builder/nix/drv"
)

// closure is a derivation with everything that it is built from, found in a store and checked there.
type closure struct {
	store   Backend
	top     string
	graph   *drv.Graph
	sources map[string]Object
	outputs map[drv.Wanted]Object // of those that some derivation of the graph needs, whose content no hash fixes
	needs   []string              // outputs that the second build is given; what they refer to is, too
}

// reader returns what reads the content of the .drv file at a path.
func reader(b Backend) func(path string) ([]byte, error) {
	return func(path string) ([]byte, error) { return ReadFile(b.File(path)) }
}

// ReadFile returns the content of a .drv file, by where it is on this machine.
func ReadFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > drv.MaxSize:
		return nil, fmt.Errorf("it is no regular file of at most %d bytes", drv.MaxSize)
	}
	return io.ReadAll(io.LimitReader(f, drv.MaxSize+1))
}

// open reads the graph of a derivation and checks its sources.
func open(ctx context.Context, s Backend, top string) (*closure, error) {
	g, err := drv.Load(top, reader(s))
	if err != nil {
		return nil, err
	}
	c := &closure{store: s, top: top, graph: g, outputs: map[drv.Wanted]Object{}}
	if c.sources, err = checked(ctx, s, g.Sources()); err != nil {
		return nil, err
	}
	if _, err := s.Hashes(ctx, []string{top}); err != nil {
		return nil, err
	}
	return c, nil
}

// realise has the backend build, or get from its substituters, what the derivations of the graph need, and checks each output.
func (c *closure) realise(ctx context.Context) error {
	named := map[drv.Wanted]string{}
	var batch []drv.Wanted
	for _, w := range c.graph.Wanted() {
		d := c.graph.Derivation(w.Drv)
		out, _ := d.Output(w.Output)
		if isPinned(d) {
			continue
		}
		if named[w] = out.Path; out.Path != "" {
			batch = append(batch, w)
			continue
		}
		paths, err := c.store.Build(ctx, w.Drv, []string{w.Output})
		if err != nil {
			return err
		}
		named[w] = paths[w.Output]
	}
	if err := c.store.Realise(ctx, c.top, batch); err != nil {
		return err
	}
	objects, err := checked(ctx, c.store, slices.Sorted(maps.Values(named)))
	if err != nil {
		return err
	}
	for w, path := range named {
		o := objects[path]
		if err := certify(ctx, c.store, c.graph.Derivation(w.Drv), w.Output, &o); err != nil {
			return err
		}
		c.outputs[w] = o
	}
	return c.listNeeds(ctx)
}

// isPinned reports whether a derivation fixes the content of its output by a hash that pins it.
func isPinned(d *drv.Derivation) bool {
	_, algo := d.Outputs[0].Address()
	return d.Kind() == drv.Fixed && (algo == "sha256" || algo == "sha512")
}

// listNeeds finds what the build of the top derivation is given, and holds it to the hashes that are fixed. What is named by its content is left
// out: it is built again.
func (c *closure) listNeeds(ctx context.Context) error {
	seen := map[string]bool{}
	fixed := map[string]*drv.Derivation{} // by output path
	var realise []drv.Wanted
	for todo := []string{c.top}; len(todo) > 0; {
		path := todo[0]
		todo = todo[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		for _, in := range c.graph.Derivation(path).Inputs {
			d := c.graph.Derivation(in.Path)
			switch d.Kind() {
			case drv.ContentAddressed, drv.Deferred:
				todo = append(todo, in.Path)
				continue
			case drv.Fixed:
				fixed[d.Outputs[0].Path] = d
				realise = append(realise, drv.Wanted{Drv: in.Path, Output: d.Outputs[0].Name})
			}
			for _, name := range in.Outputs {
				out, _ := d.Output(name)
				c.needs = append(c.needs, out.Path)
			}
		}
	}
	slices.Sort(c.needs)
	c.needs = slices.Compact(c.needs)
	// The output of the top derivation may have been there without them.
	if err := c.store.Realise(ctx, c.top, realise); err != nil {
		return err
	}
	objects, err := checked(ctx, c.store, slices.Sorted(maps.Keys(fixed)))
	if err != nil {
		return err
	}
	for path, d := range fixed {
		o := objects[path]
		if err := certify(ctx, c.store, d, d.Outputs[0].Name, &o); err != nil {
			return err
		}
	}
	return nil
}

// certify checks an output against what its derivation, or its own path, says of the content.
func certify(ctx context.Context, s Backend, d *drv.Derivation, output string, o *Object) error {
	out, _ := d.Output(output)
	method, algo := out.Address()
	switch {
	case out.Hash != "" && algo == "sha256":
		got := o.Flat
		if method == storepath.Recursive {
			got = o.NAR
		}
		if got.Hex() != out.Hash {
			return &ChangedError{o.Path, "sha256:" + out.Hash + " by its derivation", got.String()}
		}
	case out.Hash == "" && out.Algo != "" && (method == storepath.Recursive || method == storepath.ByText || method == storepath.Flat) && algo == "sha256":
		refs, err := s.References(ctx, o.Path)
		if err != nil {
			return err
		}
		if !o.isContentAddressed(refs) {
			return &ChangedError{o.Path, "the one that its name is made of", o.NAR.String()}
		}
	}
	return nil
}

// Built realises all outputs of a derivation that b has, and checks them.
func Built(ctx context.Context, b Backend, top string, d *drv.Derivation) (map[string]Object, error) {
	paths, err := b.Build(ctx, top, nil)
	if err != nil {
		return nil, err
	}
	objects, err := checked(ctx, b, slices.Sorted(maps.Values(paths)))
	if err != nil {
		return nil, err
	}
	outputs := map[string]Object{}
	for name, path := range paths {
		o := objects[path]
		if err := certify(ctx, b, d, name, &o); err != nil {
			return nil, err
		}
		outputs[name] = o
	}
	return outputs, nil
}

// dependencies lists everything that went in, in an order that depends on nothing else.
func (c *closure) dependencies(flakes []manifest.BuildFlake) ([]attest.ResourceDescriptor, error) {
	var list []attest.ResourceDescriptor
	object := func(path string, sum digest.SHA256) {
		ref := manifest.Ref{Scheme: manifest.RefStore, Location: path, Digest: sum}
		list = append(list, attest.ResourceDescriptor{
			Name: path, URI: ref.String(), Digest: map[string]string{"sha256": sum.Hex()}, MediaType: attest.MediaNAR,
		})
	}
	for _, f := range flakes {
		list = append(list, attest.ResourceDescriptor{
			Name: f.Ref.Location, URI: f.Ref.String(), Digest: map[string]string{"sha256": f.Ref.Digest.Hex()}, MediaType: attest.MediaNAR,
			DownloadLocation: f.URL,
		})
	}
	for _, path := range c.graph.Paths() {
		data := c.graph.Derivation(path).Encode()
		object(path, narOfFile(data))
	}
	built := map[string]Object{}
	for w, o := range c.outputs {
		if c.graph.Derivation(w.Drv).Kind() != drv.Fixed { // those are below, with their URLs
			built[o.Path] = o
		}
	}
	for _, objects := range []map[string]Object{c.sources, built} {
		for _, path := range slices.Sorted(maps.Keys(objects)) {
			object(path, objects[path].NAR)
		}
	}
	for _, path := range c.graph.Paths() {
		if d := c.graph.Derivation(path); d.Kind() == drv.Fixed {
			fixed, err := c.fixed(path, d)
			if err != nil {
				return nil, err
			}
			list = append(list, fixed...)
		}
	}
	return list, nil
}

// fixed describes the output of a derivation whose content is fixed: once for its store path, and once for each URL that it says it has.
func (c *closure) fixed(path string, d *drv.Derivation) ([]attest.ResourceDescriptor, error) {
	out := d.Outputs[0]
	method, algo := out.Address()
	sums := map[string]string{algo: out.Hash}
	if algo != "sha256" && algo != "sha512" { // does not pin: what was there is told, too
		o, ok := c.outputs[drv.Wanted{Drv: path, Output: out.Name}]
		if !ok {
			return nil, fmt.Errorf("list dependencies: output of %s, which %s does not pin, was not realised", path, algo)
		}
		if algo != "sha1" {
			delete(sums, algo)
		}
		if sums["sha256"] = o.NAR.Hex(); method == storepath.Flat {
			sums["sha256"] = o.Flat.Hex()
		}
	}
	media := attest.MediaFile
	if method == storepath.Recursive {
		media = attest.MediaNAR
	}
	list := []attest.ResourceDescriptor{{Name: out.Path, URI: out.Path, Digest: sums, MediaType: media}}
	for _, u := range urls(d) {
		list = append(list, attest.ResourceDescriptor{Name: out.Path, URI: u, Digest: sums, MediaType: media})
	}
	return list, nil
}

// urls returns where a fixed derivation says that it fetches from, as fetchurl, builtin:fetchurl, fetchgit and fetchzip of Nix write it, or
// builtin:download and builtin:git-download of Guix.
func urls(d *drv.Derivation) []string {
	var list []string
	for _, name := range []string{"url", "urls"} {
		if value, ok := d.Lookup(name); ok {
			list = append(list, words(value)...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// words returns the words of a text; if it is an expression of Scheme, the strings in it.
func words(text string) []string {
	if !strings.HasPrefix(text, `"`) && !strings.HasPrefix(text, "(") {
		return strings.Fields(text)
	}
	var list []string
	for {
		_, rest, ok := strings.Cut(text, `"`)
		if !ok {
			return list
		}
		var word strings.Builder
		for rest != "" && rest[0] != '"' {
			if rest[0] == '\\' && len(rest) > 1 {
				rest = rest[1:]
			}
			word.WriteByte(rest[0])
			rest = rest[1:]
		}
		list = append(list, word.String())
		text = strings.TrimPrefix(rest, `"`)
	}
}

// narOfFile returns the NAR hash of a regular file.
func narOfFile(data []byte) digest.SHA256 {
	var sum digest.Writer
	w := nar.NewWriter(&sum, nar.Limits{})
	// A digest.Writer never fails, and the entry is a valid one.
	_ = w.WriteEntry(nar.Entry{Type: nar.Regular, Size: int64(len(data))})
	_, _ = w.Write(data)
	_ = w.Close()
	return sum.Sum()
}
