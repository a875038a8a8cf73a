package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner"
	"arch.network/runner/job"
	"arch.network/runner/oci"
)

// runshop is everything that running a job needs, opened.
type runshop struct {
	app      *app
	store    *store.Store
	lease    *store.Lease
	fetch    *source.Fetcher
	progress *progress
	driver   driver
	runner   runner.Runner
	closers  []func() error // called last to first
}

func (a *app) openRunshop(t *jobTarget, o runOptions) (*runshop, error) {
	s, err := a.openStore()
	if err != nil {
		return nil, err
	}
	w := &runshop{app: a, store: s, progress: newProgress(a), driver: t.driver}
	w.closers = append(w.closers, s.Close)
	if w.lease, err = s.Lease(context.Background()); err != nil {
		w.close()
		return nil, err
	}
	w.closers = append(w.closers, w.lease.Release)
	w.fetch = a.newFetcher(s, o.fetchFlags, w.progress)
	return w, nil
}

// close releases everything. What fails then has no effect on the job.
func (w *runshop) close() {
	w.progress.end()
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
}

// jobContent is what a job runs on, and where it came from.
type jobContent struct {
	job.Content
	inputs []attest.ResourceDescriptor // everything that was fetched
}

// fetchJob gets everything that the document refers to. What is missing offline is reported for all of it at once.
func (w *runshop) fetchJob(ctx context.Context, t *jobTarget, o runOptions) (*jobContent, error) {
	c := &jobContent{}
	c.Inputs = map[string]string{}
	dirs := append(append([]string{t.dir}, o.content...), defaultResult)
	refs := map[string]manifest.Ref{"image": t.doc.Spec.Image}
	for name, ref := range t.doc.Spec.Inputs {
		refs["input "+name] = ref
	}
	var missing *source.MissingError
	for _, what := range sortedKeys(refs) {
		ref := refs[what]
		if err := w.offer(ctx, ref, dirs); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		err := w.fetchOne(ctx, t, what, ref, c)
		if m, ok := errors.AsType[*source.MissingError](err); ok {
			if missing == nil {
				missing = &source.MissingError{Cause: m.Cause, Cure: missingHint(m, ref)}
			}
			missing.Inputs = append(missing.Inputs, what+": "+ref.String())
			continue
		}
		if err != nil {
			return nil, pinStatus(fmt.Errorf("%s: %w", what, err))
		}
	}
	if missing != nil {
		return nil, missing
	}
	var err error
	c.Devices, err = resolveDevices(t.doc.Spec.Capabilities.Devices, o.cdi)
	return c, err
}

// missingHint tells where content may be put.
func missingHint(m *source.MissingError, ref manifest.Ref) string {
	if m.Cure != "" && ref.Scheme != manifest.RefTree {
		return m.Cure
	}
	return fmt.Sprintf("put it beside the document as %s, name its directory with --content, or its archive with --archive", filepath.Base(ref.Location))
}

// pinStatus gives content that is not what its pin says the exit status of a failed verification.
func pinStatus(err error) error {
	if _, ok := errors.AsType[*source.PinError](err); ok {
		return withStatus(exitVerification, err)
	}
	return err
}

// fetchOne gets what one reference names.
func (w *runshop) fetchOne(ctx context.Context, t *jobTarget, what string, ref manifest.Ref, c *jobContent) error {
	name, isInput := strings.CutPrefix(what, "input ")
	if isInput && t.byBroker && ref.Scheme == manifest.RefOCI { // it makes the tree itself, of the blobs
		got, err := w.fetch.FetchRef(ctx, ref)
		for _, d := range got.Dependencies {
			d.Name = name
			c.inputs = append(c.inputs, d)
		}
		return err
	}
	if isInput {
		tree, err := w.fetch.Fetch(ctx, manifest.BuildInput{Name: name, Ref: ref}, t.dir, nil)
		if err != nil {
			return err
		}
		c.Inputs[name] = tree.Path
		c.inputs = append(c.inputs, tree.Dependencies...)
		return nil
	}
	got, err := w.fetch.FetchRef(ctx, ref)
	if err != nil {
		return err
	}
	c.inputs = append(c.inputs, got.Dependencies...)
	return w.program(ctx, t, got, c)
}

// program makes of the fetched image what the runtime needs.
func (w *runshop) program(ctx context.Context, t *jobTarget, got source.Content, c *jobContent) error {
	switch got.Kind {
	case source.ContentImage:
		root, err := w.imageRoot(ctx, got)
		if err != nil {
			return err
		}
		c.Program.Image = &root
		return nil
	case source.ContentPath:
		return w.closure(ctx, got, c)
	}
	info, err := os.Lstat(got.Path)
	switch {
	case err != nil:
		return err
	case info.IsDir(): // a tree that holds the module
		c.Program.Image = &oci.Root{Dir: got.Path}
	case info.Mode().IsRegular():
		c.Program.Module = got.Path
	default:
		return fmt.Errorf("it is %s, not a module", kindOf(info.Mode()))
	}
	return nil
}

// imageRoot unpacks an image, or finds it unpacked.
func (w *runshop) imageRoot(ctx context.Context, got source.Content) (oci.Root, error) {
	dir, err := w.app.cacheDir("images")
	if err != nil {
		return oci.Root{}, err
	}
	cache, err := oci.Open(ctx, oci.Options{Dir: dir})
	if err != nil {
		return oci.Root{}, err
	}
	w.closers = append(w.closers, cache.Close)
	return cache.Root(ctx, oci.Image{Digest: got.Digest, Platform: "linux/" + runtime.GOARCH, Blobs: w.store.OpenBlob})
}

// offer puts a file into the store that lies in one of dirs under the name that a reference ends in, if it is what the
// pin says. What is not is left alone: it is somebody else's file.
func (w *runshop) offer(ctx context.Context, ref manifest.Ref, dirs []string) error {
	base := filepath.Base(ref.Location)
	switch ref.Scheme {
	case manifest.RefTree, manifest.RefURL, manifest.RefModel:
	case manifest.RefStore: // HASH-NAME is looked for as NAME
		_, base, _ = strings.Cut(base, "-")
	case manifest.RefOCI:
		w.offerLayout(base, dirs)
		return nil
	default:
		return nil
	}
	if base == "" || base == "." || base == ".." || base == "/" || strings.ContainsAny(base, "?&") {
		return nil
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, base)
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return err
		}
		if ok, err := w.take(ctx, ref, path, info); ok || err != nil {
			return err
		}
	}
	return nil
}

// offerLayout has the fetcher look into an image layout that lies in one of dirs under the last name of a repository.
func (w *runshop) offerLayout(base string, dirs []string) {
	for _, dir := range dirs {
		layout := filepath.Join(dir, base)
		if info, err := os.Lstat(filepath.Join(layout, "oci-layout")); err == nil && info.Mode().IsRegular() {
			w.fetch.Archives = append(w.fetch.Archives, layout)
		}
	}
}

// take puts what is at path into the store, if it is what ref pins.
func (w *runshop) take(ctx context.Context, ref manifest.Ref, path string, info fs.FileInfo) (bool, error) {
	if ref.Scheme == manifest.RefTree || ref.Scheme == manifest.RefStore {
		if !info.Mode().IsRegular() && !info.IsDir() {
			return false, nil
		}
		if _, ok := w.store.TreePath(ref.Digest); ok {
			return true, nil
		}
		if sum, _, err := nar.Hash(ctx, path, nar.Options{}); err != nil || sum != ref.Digest {
			return false, ctx.Err() // what cannot be read is not ours
		}
		got, err := w.store.AddTreeFrom(ctx, path, nar.Options{})
		return got == ref.Digest, err
	}
	if !info.Mode().IsRegular() {
		return false, nil
	}
	if sum, err := hashFile(path); err != nil || sum != ref.Digest {
		return false, ctx.Err()
	}
	return w.takeFile(ctx, path, ref.Digest)
}

func (w *runshop) takeFile(ctx context.Context, path string, want digest.SHA256) (bool, error) {
	f, err := openRegular(path)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	_, _, err = w.store.AddBlob(ctx, f, want)
	if _, ok := errors.AsType[*store.MismatchError](err); ok {
		return false, nil // changed since
	}
	return err == nil, err
}
