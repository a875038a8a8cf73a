package content

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner/cdi"
	"arch.network/runner/closure"
	"arch.network/runner/job"
	"arch.network/runner/oci"
)

// Content is what a job runs on, and where it came from.
type Content struct {
	job.Content
	Resolved []attest.ResourceDescriptor // everything that was fetched
	// Objects are the blobs and trees of the store that each reference became, by its text. They must stay while the job, or its
	// archive entry, needs them.
	Objects map[string][]digest.SHA256
}

// Gatherer gets content. Its fields must not change while it is in use; its methods may be called from several goroutines at
// once.
type Gatherer struct {
	Store *store.Store
	Fetch *source.Fetcher
	// Images is the directory where images are unpacked, made when the first one is.
	Images string
	// CDI are the directories of the host's Container Device Interface specifications. Empty: the usual ones.
	CDI []string

	mu    sync.Mutex // guards cache
	cache *oci.Cache // nil: not opened yet
}

// Close releases what was opened.
func (g *Gatherer) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cache == nil {
		return nil
	}
	err := g.cache.Close()
	g.cache = nil
	return err
}

// Options say where to look first.
type Options struct {
	Base   string   // directory that local references are relative to; empty: there are none
	Beside []string // directories that may hold content under the name that its reference ends in
	// Blobs leaves images among the inputs as the blobs that they are, for a broker that makes the trees itself.
	Blobs bool
	// Log receives what happens while this is fetched, instead of the Fetcher's Log, from one goroutine at a time; nil: that one does.
	Log func(source.Event)
}

// Gather gets everything that doc refers to. The caller holds a lease of the store while it uses the paths. What is missing is
// reported for all of it in one *source.MissingError; what is not what its pin says is a *source.PinError or a
// *closure.HashError.
func (g *Gatherer) Gather(ctx context.Context, doc *manifest.Job, o Options) (*Content, error) {
	fetch := g.Fetch
	if o.Log != nil {
		fetch = fetch.Telling(o.Log)
	}
	c := &Content{Objects: map[string][]digest.SHA256{}}
	c.Inputs = map[string]string{}
	refs := map[string]manifest.Ref{"image": doc.Spec.Image}
	for name, ref := range doc.Spec.Inputs {
		refs["input "+name] = ref
	}
	var missing *source.MissingError
	for _, what := range slices.Sorted(maps.Keys(refs)) {
		ref := refs[what]
		if err := g.offer(ctx, ref, o.Beside); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		err := g.one(ctx, fetch, what, ref, o, c)
		if m, ok := errors.AsType[*source.MissingError](err); ok {
			if missing == nil {
				missing = &source.MissingError{Cause: m.Cause, Cure: missingHint(m, ref)}
			}
			missing.Inputs = append(missing.Inputs, what+": "+ref.String())
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	if missing != nil {
		return nil, missing
	}
	var err error
	c.Devices, err = devices(doc.Spec.Capabilities.Devices, g.CDI)
	return c, err
}

// AtHand reports whether the store has everything that doc refers to, so that Gather fetches and unpacks nothing. It is false for images and
// store paths, which take work, and it is true only as long as the caller holds a lease of the store.
func (g *Gatherer) AtHand(doc *manifest.Job) bool {
	for _, ref := range references(doc) {
		ok := false
		switch ref.Scheme {
		case manifest.RefURL, manifest.RefModel:
			_, ok = g.Store.BlobPath(ref.Digest)
		case manifest.RefTree, manifest.RefGit:
			_, ok = g.Store.TreePath(ref.Digest)
		}
		if !ok {
			return false
		}
	}
	return len(doc.Spec.Capabilities.Devices) == 0
}

func (c *Content) add(ref manifest.Ref, d ...digest.SHA256) {
	c.Objects[ref.String()] = append(c.Objects[ref.String()], d...)
}

// All are the digests of all objects.
func (c *Content) All() (out []digest.SHA256) {
	for _, ref := range slices.Sorted(maps.Keys(c.Objects)) {
		out = append(out, c.Objects[ref]...)
	}
	return out
}

// missingHint tells where content may be put.
func missingHint(m *source.MissingError, ref manifest.Ref) string {
	if m.Cure != "" && ref.Scheme != manifest.RefTree {
		return m.Cure
	}
	return fmt.Sprintf("put it beside the document as %s, name its directory with --content, or its archive with --archive", filepath.Base(ref.Location))
}

// one gets what one reference names.
func (g *Gatherer) one(ctx context.Context, fetch *source.Fetcher, what string, ref manifest.Ref, o Options, c *Content) error {
	name, isInput := strings.CutPrefix(what, "input ")
	if isInput && o.Blobs && ref.Scheme == manifest.RefOCI {
		got, err := fetch.FetchRef(ctx, ref)
		for _, d := range got.Dependencies {
			d.Name = name
			c.Resolved = append(c.Resolved, d)
		}
		c.add(ref, got.Blobs...)
		return err
	}
	if isInput {
		tree, err := fetch.Fetch(ctx, manifest.BuildInput{Name: name, Ref: ref}, o.Base, nil)
		if err != nil {
			return err
		}
		c.Inputs[name] = tree.Path
		c.Resolved = append(c.Resolved, tree.Dependencies...)
		c.add(ref, tree.NAR)
		if _, ok := g.Store.BlobPath(ref.Digest); ok { // what the tree was made of
			c.add(ref, ref.Digest)
		}
		return nil
	}
	got, err := fetch.FetchRef(ctx, ref)
	if err != nil {
		return err
	}
	c.Resolved = append(c.Resolved, got.Dependencies...)
	return g.program(ctx, got, c)
}

// program makes of the fetched image what the runtime needs.
func (g *Gatherer) program(ctx context.Context, got source.Content, c *Content) error {
	switch got.Kind {
	case source.ContentImage:
		root, err := g.imageRoot(ctx, got)
		if err != nil {
			return err
		}
		c.Program.Image = &root
		c.add(got.Ref, got.Blobs...)
		return nil
	case source.ContentPath:
		return g.closure(ctx, got, c)
	}
	c.add(got.Ref, got.Digest)
	info, err := os.Lstat(got.Path)
	switch {
	case err != nil:
		return err
	case info.IsDir(): // a tree that holds the module
		c.Program.Image = &oci.Root{Dir: got.Path}
	case info.Mode().IsRegular():
		c.Program.Module = got.Path
	default:
		return errors.New("it is neither a file nor a directory, so no module")
	}
	return nil
}

// imageRoot unpacks an image, or finds it unpacked.
func (g *Gatherer) imageRoot(ctx context.Context, got source.Content) (oci.Root, error) {
	cache, err := g.images(ctx)
	if err != nil {
		return oci.Root{}, err
	}
	return cache.Root(ctx, oci.Image{Digest: got.Digest, Platform: "linux/" + runtime.GOARCH, Blobs: g.Store.OpenBlob})
}

func (g *Gatherer) images(ctx context.Context) (*oci.Cache, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cache != nil {
		return g.cache, nil
	}
	if err := os.MkdirAll(g.Images, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of images: %w", err)
	}
	cache, err := oci.Open(ctx, oci.Options{Dir: g.Images})
	g.cache = cache
	return cache, err
}

// closure finds every store path that the program refers to, each checked against the NAR hash that somebody vouches for:
// its own name, if that says what is in it, or else the host's Nix or Guix.
func (g *Gatherer) closure(ctx context.Context, got source.Content, c *Content) error {
	host := &closure.Host{}
	defer host.Close()
	top := got.Ref.Location
	paths, err := closure.Compute(ctx, top, got.Ref.Digest, closure.Options{Verify: host.Verify, Locate: g.Fetch.StorePath})
	if err != nil {
		return err
	}
	c.Program.Closure = paths
	for _, p := range paths {
		if _, ok := g.Store.TreePath(p.NAR); ok {
			c.add(got.Ref, p.NAR)
		}
		if p.StorePath == top {
			continue // is there by its own reference
		}
		ref := manifest.Ref{Scheme: manifest.RefStore, Location: p.StorePath, Digest: p.NAR}
		c.Resolved = append(c.Resolved, attest.ResourceDescriptor{
			Name: filepath.Base(p.StorePath), URI: ref.String(), MediaType: attest.MediaNAR, Digest: map[string]string{"sha256": p.NAR.Hex()},
		})
	}
	return nil
}

// devices looks up the devices that the document names.
func devices(names, dirs []string) (job.Devices, error) {
	if len(names) == 0 {
		return job.Devices{}, nil
	}
	if len(dirs) == 0 {
		dirs = cdi.Directories()
	}
	e, err := cdi.Resolve(names, dirs)
	return job.Devices{Nodes: e.Devices, Mounts: e.Mounts, Env: e.Env}, err
}
