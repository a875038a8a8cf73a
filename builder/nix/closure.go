package nix

import (
	"context"
	"fmt"
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
	store   Store
	top     string
	graph   *drv.Graph
	sources map[string]Object
	outputs map[drv.Wanted]Object // of those that some derivation of the graph needs, whose content no hash fixes
	needs   []string              // outputs that the second build is given; what they refer to is, too
}

// closure reads the graph of a derivation and checks its sources.
func (n *Nix) closure(ctx context.Context, s Store, top string) (*closure, error) {
	g, err := drv.Load(top, s.readDerivation)
	if err != nil {
		return nil, err
	}
	c := &closure{store: s, top: top, graph: g, outputs: map[drv.Wanted]Object{}}
	if c.sources, err = n.checked(ctx, s, g.Sources()); err != nil {
		return nil, err
	}
	if _, err := n.registered(ctx, s, []string{top}); err != nil {
		return nil, err
	}
	return c, nil
}

// realise has Nix build, or get from its substituters, what the derivations of the graph need, and checks each output.
func (n *Nix) realise(ctx context.Context, c *closure) error {
	named := map[drv.Wanted]string{}
	var batch []string
	for _, w := range c.graph.Wanted() {
		d := c.graph.Derivation(w.Drv)
		out, _ := d.Output(w.Output)
		if isPinned(d) {
			continue
		}
		if named[w] = out.Path; out.Path != "" {
			batch = append(batch, w.Drv+"!"+w.Output)
			continue
		}
		paths, err := n.build(ctx, c.store, w.Drv, []string{w.Output}, false)
		if err != nil {
			return err
		}
		named[w] = paths[w.Output]
	}
	for some := range slices.Chunk(batch, maxArgs) {
		if _, err := n.run(ctx, c.store, call{act: "realise what is needed", program: "nix-store", args: append([]string{"--realise"}, some...)}); err != nil {
			return asBuildError(c.top, err)
		}
	}
	objects, err := n.checked(ctx, c.store, slices.Sorted(maps.Values(named)))
	if err != nil {
		return err
	}
	for w, path := range named {
		o := objects[path]
		if err := n.certify(ctx, c.store, c.graph.Derivation(w.Drv), w.Output, &o); err != nil {
			return err
		}
		c.outputs[w] = o
	}
	return n.listNeeds(ctx, c)
}

// isPinned reports whether a derivation fixes the content of its output by a hash that pins it.
func isPinned(d *drv.Derivation) bool {
	_, algo := d.Outputs[0].Address()
	return d.Kind() == drv.Fixed && (algo == "sha256" || algo == "sha512")
}

// listNeeds finds what the build of the top derivation is given, and holds it to the hashes that are fixed. What is named by its content is left
// out: it is built again.
func (n *Nix) listNeeds(ctx context.Context, c *closure) error {
	seen := map[string]bool{}
	fixed := map[string]*drv.Derivation{} // by output path
	var realise []string
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
				realise = append(realise, in.Path)
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
	for some := range slices.Chunk(realise, maxArgs) {
		if _, err := n.run(ctx, c.store, call{act: "realise what is needed", program: "nix-store", args: append([]string{"--realise"}, some...)}); err != nil {
			return asBuildError(c.top, err)
		}
	}
	objects, err := n.checked(ctx, c.store, slices.Sorted(maps.Keys(fixed)))
	if err != nil {
		return err
	}
	for path, d := range fixed {
		o := objects[path]
		if err := n.certify(ctx, c.store, d, d.Outputs[0].Name, &o); err != nil {
			return err
		}
	}
	return nil
}

// certify checks an output against what its derivation, or its own path, says of the content.
func (n *Nix) certify(ctx context.Context, s Store, d *drv.Derivation, output string, o *Object) error {
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
		refs, err := n.references(ctx, s, o.Path)
		if err != nil {
			return err
		}
		if !o.isContentAddressed(refs) {
			return &ChangedError{o.Path, "the one that its name is made of", o.NAR.String()}
		}
	}
	return nil
}

// references returns what Nix's database says that an object refers to, besides itself.
func (n *Nix) references(ctx context.Context, s Store, path string) ([]string, error) {
	text, err := n.run(ctx, s, call{act: "look up references of " + path, program: "nix-store", args: []string{"--query", "--references", path}})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(strings.Fields(string(text)), func(ref string) bool { return ref == path }), nil
}

// BuildError says that Nix could not build a derivation.
type BuildError struct {
	Drv string
	*CommandError
}

// Tail returns the end of the log, which is untrusted.
func (e *BuildError) Tail() string { return e.Output }

func asBuildError(path string, err error) error {
	if c, ok := err.(*CommandError); ok && isBuildFailure(c.Status) {
		c.Act = "build " + path
		return &BuildError{path, c}
	}
	return err
}

// build realises all outputs of a derivation and returns the paths of some; with none named, of all.
func (n *Nix) build(ctx context.Context, s Store, path string, outputs []string, oneCPU bool) (map[string]string, error) {
	data, err := s.readDerivation(path)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", path, err)
	}
	d, err := drv.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", path, err)
	}
	if len(outputs) == 0 {
		for _, o := range d.Outputs {
			outputs = append(outputs, o.Name)
		}
	}
	all := call{act: "build " + path, program: "nix-store", args: []string{"--realise", path}, oneCPU: oneCPU}
	if _, err := n.run(ctx, s, all); err != nil {
		return nil, asBuildError(path, err)
	}
	paths := map[string]string{}
	for _, name := range outputs {
		o, ok := d.Output(name)
		if !ok {
			return nil, fmt.Errorf("build %s: it has no output %q", path, name)
		}
		if paths[name] = o.Path; o.Path != "" {
			continue
		}
		// One by one: what is printed is then the path of this one.
		text, err := n.run(ctx, s, call{act: "find output " + name + " of " + path, program: "nix-store", args: []string{"--realise", path + "!" + name}})
		if err != nil {
			return nil, asBuildError(path, err)
		}
		paths[name] = strings.TrimSpace(string(text))
		if _, err := storepath.Parse(paths[name]); err != nil {
			return nil, fmt.Errorf("find output %s of %s: %w", name, path, err)
		}
	}
	return paths, nil
}

// built realises all outputs of the top derivation and checks them.
func (n *Nix) built(ctx context.Context, s Store, top string, d *drv.Derivation, oneCPU bool) (map[string]Object, error) {
	paths, err := n.build(ctx, s, top, nil, oneCPU)
	if err != nil {
		return nil, err
	}
	objects, err := n.checked(ctx, s, slices.Sorted(maps.Values(paths)))
	if err != nil {
		return nil, err
	}
	outputs := map[string]Object{}
	for name, path := range paths {
		o := objects[path]
		if err := n.certify(ctx, s, d, name, &o); err != nil {
			return nil, err
		}
		outputs[name] = o
	}
	return outputs, nil
}

// dependencies lists everything that went in.
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
	for path, o := range c.sources {
		object(path, o.NAR)
	}
	for w, o := range c.outputs {
		d := c.graph.Derivation(w.Drv)
		if d.Kind() == drv.Fixed {
			continue // below, with its URLs
		}
		object(o.Path, o.NAR)
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

// urls returns where a fixed derivation says that it fetches from, as fetchurl, builtin:fetchurl, fetchgit and fetchzip write it.
func urls(d *drv.Derivation) []string {
	var list []string
	for _, name := range []string{"url", "urls"} {
		if value, ok := d.Lookup(name); ok {
			list = append(list, strings.Fields(value)...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
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

// isFile reports whether an object is a regular file.
func (s Store) isFile(path string) bool {
	info, err := os.Lstat(s.file(path))
	return err == nil && info.Mode().IsRegular()
}
