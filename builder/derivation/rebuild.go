package derivation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/nix/drv"
	"arch.network/builder/source"
	"arch.network/runner"
)

// Rebuild builds again what a claim says, as a second build is, from what the receipt carries, what the fetcher finds, and what the backend can
// get or build of the inputs in b.At, and compares every output. What is built of a flake is evaluated again, too: whoever signs a claim vouches
// for all of it. The results are those of builder.Rebuild; as is judge, which compares and explains.
func (b *Builder) Rebuild(ctx context.Context, judge *builder.Builder, r *builder.Rebuild, receipt *attest.Receipt, originals map[string]string) error {
	again := &rebuild{Builder: b, of: r, claim: r.Build.Spec.Derivation}
	c, err := again.prepare(ctx, receipt)
	if err == nil {
		err = again.compare(ctx, judge, c, originals)
	}
	if missing, ok := errors.AsType[*source.MissingError](err); ok {
		judge.Fail(r, attest.InputsMissing, err, runner.Confinement{Driver: b.At.Confinement().Driver})
		r.Negative.Missing = missing.Inputs
		return nil
	}
	if failed, ok := errors.AsType[*BuildError](err); ok {
		judge.Fail(r, attest.FailedToBuild, failed, b.At.Confinement())
		return nil
	}
	return err
}

// rebuild is one rebuild.
type rebuild struct {
	*Builder
	of    *builder.Rebuild
	claim *manifest.BuildDerivation
}

// lie says in what the claim contradicts itself.
func (r *rebuild) lie(format string, args ...any) error {
	return &builder.ClaimError{Name: r.of.Build.Metadata.Name, Cause: fmt.Sprintf(format, args...)}
}

// prepare brings derivations and sources into the store, evaluates the flake again, and realises what is needed.
func (r *rebuild) prepare(ctx context.Context, receipt *attest.Receipt) (*closure, error) {
	top := r.claim.Ref.Location
	files, err := openBundles(receipt)
	if err != nil {
		return nil, err
	}
	g, err := drv.Load(top, func(path string) ([]byte, error) {
		if data, ok := files[strings.TrimPrefix(path, r.At.Kind().Dir+"/")]; ok {
			return data, nil
		}
		return reader(r.At)(path)
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil, &source.MissingError{Inputs: []string{r.claim.Ref.String()}, Cure: "take the receipt as arch build wrote it: it carries the derivations"}
	}
	if err != nil {
		return nil, r.lie("%v", err)
	}
	if got := narOfFile(g.Derivation(top).Encode()); got != r.claim.Ref.Digest {
		return nil, r.lie("derivation %s has the hash %s, not %s", top, got, r.claim.Ref.Digest)
	}
	if err := r.bringAll(ctx, g); err != nil {
		return nil, err
	}
	if err := r.At.EvaluateAgain(ctx, r.of.Build, r.Fetch); err != nil {
		return nil, err
	}
	c, err := open(ctx, r.At, top)
	if err != nil {
		return nil, err
	}
	return c, c.realise(ctx)
}

// openBundles returns every derivation that the receipt carries, by the last element of its path. Nothing is checked here.
func openBundles(receipt *attest.Receipt) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, s := range receipt.Sources {
		if s.Name != bundleName || s.MediaType != attest.MediaNARZstd {
			continue
		}
		content, err := s.Open()
		if err != nil {
			return nil, err
		}
		if err := readBundle(content, files); err != nil {
			return nil, fmt.Errorf("read carried derivations: %w", err)
		}
	}
	return files, nil
}

func readBundle(content []byte, files map[string][]byte) error {
	in := nar.NewReader(bytes.NewReader(content), nar.Limits{Depth: 1, Entries: drv.MaxGraph})
	for {
		e, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Type != nar.Regular {
			continue
		}
		if e.Size > drv.MaxSize {
			return fmt.Errorf("%q has %d bytes, over the limit of %d", e.Path, e.Size, drv.MaxSize)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		files[e.Path] = data
	}
}

// claimed returns the NAR hash that the claim gives a store path.
func (r *rebuild) claimed(path string) (digest.SHA256, bool) {
	claim, err := r.of.Subject.Claim()
	if err != nil {
		return digest.SHA256{}, false
	}
	for _, d := range claim.ResolvedDependencies {
		if d.Name == path && d.MediaType == attest.MediaNAR {
			return d.SHA256()
		}
	}
	return digest.SHA256{}, false
}

// bringAll brings the sources and the derivations of a graph into the store, each after what it refers to.
func (r *rebuild) bringAll(ctx context.Context, g *drv.Graph) error {
	var objects []Import
	var inputs []manifest.BuildInput
	missing, err := r.At.Missing(ctx, append(g.Sources(), g.Paths()...))
	if err != nil {
		return err
	}
	for _, p := range g.Sources() {
		sum, ok := r.claimed(p)
		if !ok {
			return r.lie("it does not list the source %s of its derivation", p)
		}
		if missing[p] {
			inputs = append(inputs, manifest.BuildInput{Name: p, Ref: manifest.Ref{Scheme: manifest.RefStore, Location: p, Digest: sum}})
		}
	}
	trees, err := r.Fetch.FetchAll(ctx, inputs, "")
	if err != nil {
		return err
	}
	for _, in := range inputs {
		refs, err := referencesOf(ctx, in.Ref.Location, trees[in.Name].Path, g)
		if err != nil {
			return err
		}
		objects = append(objects, Import{Path: in.Ref.Location, File: trees[in.Name].Path, References: refs})
	}
	if err := r.At.Import(ctx, inOrder(objects)); err != nil {
		return err
	}
	return r.bringDerivations(ctx, g, missing)
}

// referencesOf finds what a source refers to: none, unless only that gives its path.
func referencesOf(ctx context.Context, at, file string, g *drv.Graph) ([]string, error) {
	var candidates []storepath.Path
	for _, p := range g.Sources() {
		if c, err := storepath.Parse(p); err == nil && p != at {
			candidates = append(candidates, c)
		}
	}
	o, err := Read(ctx, at, file, candidates)
	if err != nil {
		return nil, err
	}
	if o.isContentAddressed(nil) {
		return nil, nil
	}
	return o.refs, nil
}

// inOrder sorts objects so that each comes after those that it refers to.
func inOrder(objects []Import) []Import {
	var out []Import
	waiting := map[string]bool{}
	for _, o := range objects {
		waiting[o.Path] = true
	}
	for len(objects) > 0 {
		before := len(out)
		objects = slices.DeleteFunc(objects, func(o Import) bool {
			ready := !slices.ContainsFunc(o.References, func(ref string) bool { return waiting[ref] && ref != o.Path })
			if ready {
				out = append(out, o)
			}
			return ready
		})
		for _, o := range out[before:] {
			delete(waiting, o.Path)
		}
		if len(out) == before { // in a circle: the backend will say so
			return append(out, objects...)
		}
	}
	return out
}

// bringDerivations writes the derivations that the store lacks.
func (r *rebuild) bringDerivations(ctx context.Context, g *drv.Graph, missing map[string]bool) error {
	dir, err := os.MkdirTemp(r.Temp, "arch-derivations-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var objects []Import
	for _, p := range g.Paths() {
		if !missing[p] {
			continue
		}
		d := g.Derivation(p)
		file := path.Join(dir, path.Base(p))
		if err := os.WriteFile(file, d.Encode(), 0o444); err != nil {
			return err
		}
		objects = append(objects, Import{Path: p, File: file, References: d.References()})
	}
	return r.At.Import(ctx, objects)
}

// compare checks the claim's dependencies against what is in the store, builds again, and has the result judged.
func (r *rebuild) compare(ctx context.Context, judge *builder.Builder, c *closure, originals map[string]string) error {
	made := &builder.Made{Manifest: r.of.Build}
	var err error
	if made.Dependencies, err = c.dependencies(r.claim.Flakes); err != nil {
		return err
	}
	if err := r.checkDependencies(c, made.Dependencies); err != nil {
		return err
	}
	started := r.now()
	return r.At.Again(ctx, r.order(c), func(_ Backend, outputs map[string]Object) error {
		if err := r.checkDocument(c, outputs); err != nil {
			return err
		}
		if made.Record, err = r.keep(ctx, r.of.Build, outputs); err != nil {
			return err
		}
		made.Record.Started, made.Record.Finished = started, r.notBefore(started)
		if made.ID, err = r.buildID(made); err != nil {
			return err
		}
		return judge.Judge(ctx, r.of, made, originals)
	})
}

// checkDependencies compares what the claim lists with what is here. An object of another content is missing as claimed; an object that the
// derivation does not give is a lie.
func (r *rebuild) checkDependencies(c *closure, ours []attest.ResourceDescriptor) error {
	claim, err := r.of.Subject.Claim()
	if err != nil {
		return err
	}
	key := func(d attest.ResourceDescriptor) string {
		uri, _, _ := strings.Cut(d.URI, "#sha256-")
		return uri + " " + d.Name + " " + d.MediaType
	}
	have := map[string]attest.ResourceDescriptor{}
	for _, d := range ours {
		have[key(d)] = d
	}
	var others []string
	seen := map[string]bool{}
	for _, d := range claim.ResolvedDependencies {
		seen[key(d)] = true
		got, ok := have[key(d)]
		want, _ := d.SHA256()
		found, _ := got.SHA256()
		switch {
		case !ok && !c.namesContent():
			return r.lie("it lists %q, which its derivation does not need", d)
		case !ok || want != found:
			others = append(others, d.URI)
		}
	}
	for _, d := range ours {
		if !seen[key(d)] && !c.namesContent() {
			return r.lie("it does not list %q, which its derivation needs", d)
		}
	}
	if len(others) > 0 {
		return &source.MissingError{Inputs: others, Cure: "what the store has or builds here has another content: rebuild those first, or find out who is right"}
	}
	return nil
}

// namesContent reports whether some output of the graph is named by its content, so that another content has another path.
func (c *closure) namesContent() bool {
	for _, p := range c.graph.Paths() {
		if k := c.graph.Derivation(p).Kind(); k == drv.ContentAddressed || k == drv.Deferred {
			return true
		}
	}
	return false
}

// checkDocument compares the claim's manifest with the one that its derivation gives.
func (r *rebuild) checkDocument(c *closure, outputs map[string]Object) error {
	ours, err := document(c, Evaluated{Drv: c.top, Flakes: r.claim.Flakes, Attribute: r.claim.Attribute}, r.of.Build.Spec.Platform, outputs)
	if err != nil {
		return err
	}
	for i := range ours.Spec.Outputs { // what kind of thing came out is compared by its bytes
		if i < len(r.of.Build.Spec.Outputs) {
			ours.Spec.Outputs[i].Type = r.of.Build.Spec.Outputs[i].Type
		}
	}
	want, err := manifest.ID(ours)
	if err != nil {
		return err
	}
	got, err := manifest.ID(r.of.Build)
	if err != nil {
		return err
	}
	if want != got {
		return r.lie("its manifest is not the one that derivation %s gives", c.top)
	}
	return nil
}
