package derivation

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"arch.network/attest"
	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/diff"
	"arch.network/builder/nix/drv"
	"arch.network/builder/store"
)

// Builder builds derivations. Its fields are set once, before use; all are needed unless said otherwise.
type Builder struct {
	At    Backend      // where derivations are realised first
	Store *store.Store // ours, where outputs are kept
	Fetch Fetcher      // for Rebuild
	Now   func() time.Time
	Temp  string // directory for stores of second builds; empty: os.TempDir

	// Events is told what is being done; nil: nobody.
	Events func(stage builder.Stage, name string)
}

func (b *Builder) event(stage builder.Stage, name string) {
	if b.Events != nil {
		b.Events(stage, name)
	}
}

// Request asks for a build.
type Request struct {
	Of     Evaluated
	Attest bool // check and list everything that went in
	Again  bool // build a second time, and compare
}

// NotReproducibleError says that a second build gave something else.
type NotReproducibleError struct {
	Drv     string
	Differ  []builder.Mismatch
	Reports map[string]*diff.Report // by output
	Where   string                  // the second build was
}

func (e *NotReproducibleError) Error() string {
	var names []string
	for _, m := range e.Differ {
		names = append(names, m.Output)
	}
	return fmt.Sprintf("derivation %s is not reproducible: output %s differs when built again %s", e.Drv, strings.Join(names, ", "), e.Where)
}

// Hint tells what to look at.
func (e *NotReproducibleError) Hint() string {
	return fmt.Sprintf("see what differs: arch diff %s %s", e.Differ[0].A, e.Differ[0].B)
}

// Build builds what a request names. Without Attest only the outputs are checked and kept.
func (b *Builder) Build(ctx context.Context, req Request) (*builder.Made, error) {
	e := req.Of
	c, err := open(ctx, b.At, e.Drv)
	if err != nil {
		return nil, err
	}
	here := runtime.GOOS + "/" + runtime.GOARCH
	d := c.graph.Derivation(e.Drv)
	on, err := platform(e.Drv, d, here)
	if err != nil {
		return nil, err
	}
	if on != here {
		return nil, &builder.PlatformError{Build: e.Drv, Want: on, Here: here}
	}
	made := &builder.Made{}
	b.event(builder.StageBuild, e.Drv)
	started := b.now()
	outputs, err := Built(ctx, b.At, e.Drv, d)
	if err != nil {
		return nil, err
	}
	if made.Manifest, err = document(c, e, on, outputs); err != nil {
		return nil, err
	}
	if req.Attest {
		if err := c.realise(ctx); err != nil {
			return nil, err
		}
		if made.Dependencies, err = c.dependencies(e.Flakes); err != nil {
			return nil, err
		}
		if made.Sources, err = b.carried(ctx, c, e.Flakes); err != nil {
			return nil, err
		}
	}
	if made.Record, err = b.keep(ctx, made.Manifest, outputs); err != nil {
		return nil, err
	}
	made.Record.Started, made.Record.Finished = started, b.notBefore(started)
	made.Record.Dependencies = append(made.Record.Dependencies, e.Tools...)
	if made.ID, err = b.buildID(made); err != nil {
		return nil, err
	}
	if req.Again {
		return made, b.again(ctx, c, made)
	}
	return made, nil
}

func (b *Builder) now() time.Time { return b.Now().UTC().Truncate(time.Second) }

func (b *Builder) notBefore(started time.Time) time.Time {
	if now := b.now(); now.After(started) {
		return now
	}
	return started
}

// document returns the Build of what was evaluated.
func document(c *closure, e Evaluated, platform string, outputs map[string]Object) (*manifest.Build, error) {
	name, err := drv.Name(e.Drv)
	if err != nil {
		return nil, err
	}
	d := c.graph.Derivation(e.Drv)
	doc := &manifest.Build{
		APIVersion: manifest.APIVersion, Kind: "Build", Metadata: manifest.Metadata{Name: documentName(name)},
		Spec: manifest.BuildSpec{
			Platform: platform, SourceDateEpoch: StoreTime,
			Derivation: &manifest.BuildDerivation{
				Ref:    manifest.Ref{Scheme: manifest.RefStore, Location: e.Drv, Digest: narOfFile(d.Encode())},
				Flakes: e.Flakes, Attribute: e.Attribute,
			},
		},
	}
	for _, o := range d.Outputs {
		kind := manifest.OutputTree
		if isFile(outputs[o.Name].at) {
			kind = manifest.OutputFile
		}
		doc.Spec.Outputs = append(doc.Spec.Outputs, manifest.BuildOutput{Name: outputFile(storepath.OutputName(name, o.Name)), Of: o.Name, Type: kind})
	}
	if err := doc.Validate(); err != nil {
		return nil, fmt.Errorf("describe %s: %w", e.Drv, err)
	}
	return doc, nil
}

// StoreTime is the time of every file in a store, in Unix seconds.
const StoreTime = 1

// documentName makes of a derivation's name one that a document may have: labels of lower-case letters, digits and hyphens.
func documentName(name string) string {
	clean := regexp.MustCompile(`[^a-z0-9.]+`).ReplaceAllString(strings.ToLower(name), "-")
	clean = regexp.MustCompile(`-*\.[-.]*`).ReplaceAllString(clean, ".")
	var labels []string
	for label := range strings.SplitSeq(clean, ".") {
		if label = strings.Trim(label[:min(len(label), 63)], "-"); label != "" {
			labels = append(labels, label)
		}
	}
	if len(labels) == 0 {
		return "derivation"
	}
	return strings.Join(labels, ".")
}

// outputFile makes of the name of a store object one that an output may have.
func outputFile(name string) string {
	clean := strings.TrimLeft(regexp.MustCompile(`[^A-Za-z0-9._+-]`).ReplaceAllString(name, "-"), "._+-")
	if clean == "" {
		return "output"
	}
	return strings.TrimSuffix(clean[:min(len(clean), 128)], ".jsonl")
}

// keep puts the outputs into our store and describes them.
func (b *Builder) keep(ctx context.Context, doc *manifest.Build, outputs map[string]Object) (builder.Record, error) {
	version, err := b.At.Version(ctx)
	if err != nil {
		return builder.Record{}, err
	}
	rec := builder.Record{
		Confinement: b.At.Confinement(), Run: rand.Text(), Tools: map[string]string{b.At.Kind().Tool: version},
		Dependencies: slices.Clone(b.At.Surroundings()),
	}
	for _, decl := range doc.Spec.Outputs {
		o := outputs[decl.Of]
		path, err := b.add(ctx, o)
		if err != nil {
			return rec, err
		}
		out := builder.Output{Output: attest.Output{Name: decl.Name, NAR: o.NAR, URI: o.Path}, Type: decl.Type, Path: path}
		if decl.Type == manifest.OutputFile {
			out.File = o.File
		} else if out.Programs, err = programs(path); err != nil {
			return rec, err
		}
		rec.Outputs = append(rec.Outputs, out)
	}
	return rec, nil
}

// add copies an object into our store, where it must have the hash that was found.
func (b *Builder) add(ctx context.Context, o Object) (string, error) {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(nar.Dump(ctx, w, o.at, nar.Options{}))
	}()
	_, err := b.Store.AddTree(ctx, r, o.NAR)
	r.CloseWithError(io.ErrClosedPipe)
	<-done
	if err != nil {
		return "", fmt.Errorf("keep %s: %w", o.Path, err)
	}
	path, ok := b.Store.TreePath(o.NAR)
	if !ok {
		return "", fmt.Errorf("keep %s: it is not in the store", o.Path)
	}
	return path, nil
}

// buildID is the hash of all that decides a build's claim but its outputs.
func (b *Builder) buildID(made *builder.Made) (digest.SHA256, error) {
	id, err := manifest.ID(made.Manifest)
	if err != nil {
		return digest.SHA256{}, err
	}
	data, err := canonical.Marshal(map[string]any{
		"builder": b.At.Kind().Type, "manifest": id, "resolvedDependencies": made.Dependencies,
	})
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("name build: %w", err)
	}
	return digest.Of(data), nil
}

// order returns the second build of a closure.
func (b *Builder) order(c *closure) Order {
	return Order{Top: c.top, Derivation: c.graph.Derivation(c.top), Needs: slices.Clone(c.needs), Temp: b.Temp}
}

// again builds a second time and compares every output.
func (b *Builder) again(ctx context.Context, c *closure, made *builder.Made) error {
	kind := b.At.Kind()
	b.event(builder.StageVary, kind.Second)
	err := b.At.Again(ctx, b.order(c), func(s Backend, outputs map[string]Object) error {
		var differ []builder.Mismatch
		for i, decl := range made.Manifest.Spec.Outputs {
			first, second := made.Record.Outputs[i], outputs[decl.Of]
			if first.NAR == second.NAR {
				continue
			}
			path, err := b.add(ctx, second)
			if err != nil {
				return err
			}
			differ = append(differ, builder.Mismatch{Output: decl.Name, First: first.NAR, Second: second.NAR, A: first.Path, B: path})
		}
		inputs, err := b.rebuiltInputs(ctx, c, s)
		if err != nil {
			return err
		}
		differ = append(differ, inputs...)
		if len(differ) == 0 {
			return nil
		}
		return explain(ctx, c.top, kind.Second, differ)
	})
	if err != nil {
		return err
	}
	made.Record.Variation = &builder.Variation{Factors: kind.Varied}
	if runtime.NumCPU() == 1 {
		made.Record.Variation.Missing = made.Record.Variation.Factors
	}
	return nil
}

// rebuiltInputs compares the inputs that were built again in s, because they are named by their content or by what is.
func (b *Builder) rebuiltInputs(ctx context.Context, c *closure, s Backend) ([]builder.Mismatch, error) {
	var differ []builder.Mismatch
	for _, w := range c.graph.Wanted() {
		first, ok := c.outputs[w]
		if d := c.graph.Derivation(w.Drv); !ok || d.Outputs[0].Path != "" {
			continue
		}
		paths, err := s.Build(ctx, w.Drv, []string{w.Output})
		if err != nil {
			return nil, err
		}
		objects, err := checked(ctx, s, []string{paths[w.Output]})
		if err != nil {
			return nil, err
		}
		second := objects[paths[w.Output]]
		if first.NAR == second.NAR {
			continue
		}
		m := builder.Mismatch{Output: "of input " + filepath.Base(w.Drv) + ": " + w.Output, First: first.NAR, Second: second.NAR}
		if m.A, err = b.add(ctx, first); err != nil {
			return nil, err
		}
		if m.B, err = b.add(ctx, second); err != nil {
			return nil, err
		}
		differ = append(differ, m)
	}
	return differ, nil
}

// explain compares what differs.
func explain(ctx context.Context, top, where string, differ []builder.Mismatch) error {
	e := &NotReproducibleError{Drv: top, Differ: differ, Reports: map[string]*diff.Report{}, Where: where}
	for _, m := range differ {
		report, err := diff.Compare(ctx, m.A, m.B, diff.Options{})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil { // what cannot be explained differs all the same
			e.Reports[m.Output] = report
		}
	}
	return e
}

// carried are the sources that the receipt carries: all derivations as one tree of files, and as many sources and trees of local flakes as
// fit into builder.MaxCarried together.
func (b *Builder) carried(ctx context.Context, c *closure, flakes []manifest.BuildFlake) ([]attest.Source, error) {
	bundle, err := bundle(c.graph)
	if err != nil {
		return nil, err
	}
	first, err := attest.NewSource(attest.MediaNARZstd, bundleName, bundle)
	if err != nil {
		return nil, err
	}
	list, left := []attest.Source{first}, builder.MaxCarried
	carry := func(name, file string) error {
		buf := limited{left: left}
		if err := nar.Dump(ctx, &buf, file, nar.Options{}); err != nil {
			if errors.Is(err, errTooMuch) {
				return nil
			}
			return err
		}
		s, err := attest.NewSource(attest.MediaNARZstd, name, buf.Bytes())
		if err != nil {
			return err
		}
		list, left = append(list, s), left-buf.Len()
		return nil
	}
	for _, path := range c.graph.Sources() {
		if err := carry(path, c.store.File(path)); err != nil {
			return nil, err
		}
	}
	for _, f := range flakes {
		tree, err := storepath.Source(c.store.Kind().Dir, "source", f.Ref.Digest, nil, false)
		if err != nil {
			return nil, err
		}
		if _, known := c.sources[tree.String()]; known || f.URL != "" {
			continue
		}
		if err := carry(f.Ref.Location, c.store.File(tree.String())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return list, nil
}

// bundleName is the name of the carried tree that holds every derivation, each as a file with the name of its store object.
const bundleName = "derivations"

// bundle returns the NAR of all derivations of a graph.
func bundle(g *drv.Graph) ([]byte, error) {
	paths := g.Paths()
	slices.SortFunc(paths, func(a, b string) int { return nar.Compare(filepath.Base(a), filepath.Base(b)) })
	var buf bytes.Buffer
	w := nar.NewWriter(&buf, nar.Limits{})
	if err := w.WriteEntry(nar.Entry{Type: nar.Directory}); err != nil {
		return nil, err
	}
	for _, path := range paths {
		data := g.Derivation(path).Encode()
		if err := w.WriteEntry(nar.Entry{Path: filepath.Base(path), Type: nar.Regular, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return buf.Bytes(), err
}

// isFile reports whether there is a regular file at a path.
func isFile(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}
