package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
	"arch.network/runner/closure"
	"arch.network/runner/job"
	"arch.network/runner/oci"
)

// gatherer brings together what one document pins.
type gatherer struct {
	server *Server
	fetch  func(item Item) (io.Reader, error) // asks the client; the reader ends where the content does

	mu   sync.Mutex // one item at a time
	ref  manifest.Ref
	left int64 // bytes that may still be sent
	held []string
	root *oci.Root // nil: none was made
}

// gather returns the content of a document. release must be called when the job is over, also after an error.
func (g *gatherer) gather(ctx context.Context, doc *manifest.Job) (job.Content, error) {
	c := job.Content{Inputs: map[string]string{}}
	for _, capability := range doc.Spec.Capabilities.FS {
		_, path, _ := strings.Cut(capability, ":")
		if err := checkHostPath(path); err != nil {
			return job.Content{}, about("capability "+capability, err)
		}
	}
	var err error
	if c.Program, err = g.program(ctx, doc); err != nil {
		return job.Content{}, about("image", err)
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Spec.Inputs)) {
		g.ref = doc.Spec.Inputs[name]
		if c.Inputs[name], err = g.input(ctx); err != nil {
			return job.Content{}, about("input "+name, err)
		}
	}
	if names := doc.Spec.Capabilities.Devices; len(names) > 0 {
		if g.server.o.Devices == nil {
			return job.Content{}, refuse(CodeContent, "start the broker with the directories of device specifications", "this broker gives no devices, but the job asks for %q", names)
		}
		if c.Devices, err = g.server.o.Devices(names); err != nil {
			return job.Content{}, about("devices", err)
		}
	}
	return c, nil
}

// about says what content an error is about, and keeps a Refusal one.
func about(what string, err error) error {
	if r, ok := errors.AsType[*Refusal](err); ok {
		named := *r
		named.Message = what + ": " + r.Message
		return &named
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (g *gatherer) release() {
	g.server.cache.release(g.held)
	if g.root != nil {
		g.server.images.Release(*g.root)
		g.server.cleanImages()
	}
}

// program makes of the image what the runtime needs.
func (g *gatherer) program(ctx context.Context, doc *manifest.Job) (job.Program, error) {
	g.ref = doc.Spec.Image
	switch g.ref.Scheme {
	case manifest.RefStore:
		return g.closure(ctx)
	case manifest.RefOCI:
		return g.image(ctx, doc)
	case manifest.RefTree, manifest.RefGit, manifest.RefGo:
		dir, err := g.input(ctx)
		if err != nil {
			return job.Program{}, err
		}
		return treeProgram(dir)
	}
	d, err := blobDigest(g.ref)
	if err != nil {
		return job.Program{}, err
	}
	module, err := g.get(ctx, Blob, d)
	return job.Program{Module: module}, err
}

// treeProgram is a module, or a directory that holds one.
func treeProgram(path string) (job.Program, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return job.Program{}, err
	case info.IsDir():
		return job.Program{Image: &oci.Root{Dir: path}}, nil
	case info.Mode().IsRegular():
		return job.Program{Module: path}, nil
	}
	return job.Program{}, refuse(CodeContent, "", "it is neither a module nor a directory that holds one")
}

// blobDigest is what the bytes of a reference hash to.
func blobDigest(ref manifest.Ref) (digest.SHA256, error) {
	switch ref.Scheme {
	case manifest.RefURL, manifest.RefModel:
		return ref.Digest, nil
	case manifest.RefCID:
		d, err := digest.ParseCID(ref.Location)
		if err != nil {
			return digest.SHA256{}, refuse(CodeContent, "pin the bytes themselves: a CID of a raw block, or a URL with its hash", "%s names a graph of blocks, which cannot be sent", ref)
		}
		return d, nil
	}
	return digest.SHA256{}, refuse(CodeContent, "pin it as tree:NAME#sha256-…, by its NAR", "a %s reference is not a hash of bytes that can be sent", ref.Scheme)
}

// image gets an image, or the module if the reference names one.
func (g *gatherer) image(ctx context.Context, doc *manifest.Job) (job.Program, error) {
	if doc.Spec.Runtime == manifest.RuntimeWasm {
		path, err := g.get(ctx, Blob, g.ref.Digest)
		if err != nil {
			return job.Program{}, err
		}
		if m, err := readManifest(path); err != nil {
			return job.Program{}, err
		} else if m.Kind() == imagespec.Module {
			module, err := g.get(ctx, Blob, m.Layers[0].Digest)
			return job.Program{Module: module}, err
		}
	}
	root, err := g.server.images.Root(ctx, oci.Image{
		Digest: g.ref.Digest, Platform: "linux/" + runtime.GOARCH,
		Blobs: func(d digest.SHA256) (*os.File, error) {
			path, err := g.get(ctx, Blob, d)
			if err != nil {
				return nil, err
			}
			return os.Open(path)
		},
	})
	if err != nil {
		if _, ok := errors.AsType[*Refusal](err); !ok {
			if bad, ok := errors.AsType[*oci.ImageError](err); ok {
				err = refuse(CodeContent, bad.Hint(), "%v", bad)
			}
		}
		return job.Program{}, err
	}
	g.root = &root
	return job.Program{Image: &root}, nil
}

func readManifest(path string) (*imagespec.Document, error) {
	data, err := readImageDocument(path)
	if err != nil {
		return nil, err
	}
	doc, err := imagespec.Parse(data)
	if err != nil {
		return nil, refuse(CodeContent, "", "manifest: %v", err)
	}
	return doc, nil
}

// closure finds the closure of a store path. A path that the host's own store does not have is asked for if its NAR hash is known, from the pin
// or from whoever vouches for it; what is sent must have that hash.
func (g *gatherer) closure(ctx context.Context) (job.Program, error) {
	var sending error // of the client or its connection
	options := closure.Options{Locate: func(ctx context.Context, path string, want digest.SHA256) (string, error) {
		_, err := os.Lstat(path)
		if err == nil || want.IsZero() || !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
		g.ref = manifest.Ref{Scheme: manifest.RefStore, Location: path, Digest: want}
		path, sending = g.get(ctx, Tree, want)
		return path, sending
	}}
	if open := g.server.o.Store; open != nil {
		v, err := open(ctx, g.ref.Location)
		if err != nil && !errors.Is(err, closure.ErrUnknown) {
			return job.Program{}, err
		}
		if err == nil {
			defer v.Close()
			options.Verify = v.Verify
		}
	}
	paths, err := closure.Compute(ctx, g.ref.Location, g.ref.Digest, options)
	if sending != nil {
		return job.Program{}, sending
	}
	if err != nil {
		hint := "have the node's operator realise it in the host's store"
		if h, ok := errors.AsType[interface {
			error
			Hint() string
		}](err); ok {
			hint = h.Hint()
		}
		return job.Program{}, refuse(CodeContent, hint, "%v", err)
	}
	return job.Program{Closure: paths}, nil
}

// toolchainModule is the module that toolchains are published as: go.dev/doc/toolchain.
const toolchainModule = "golang.org/toolchain"

// input gets what g.ref pins.
func (g *gatherer) input(ctx context.Context) (string, error) {
	switch g.ref.Scheme {
	case manifest.RefTree, manifest.RefGit, manifest.RefStore:
		return g.get(ctx, Tree, g.ref.Digest)
	case manifest.RefOCI:
		return g.rootFS(ctx)
	case manifest.RefGo:
		if g.ref.Location == toolchainModule {
			return "", refuse(CodeContent, "pin it as tree:NAME#sha256-…, by its NAR", "a Go toolchain is not used as its module has it: programs and go.mod files are changed")
		}
		return g.get(ctx, Module, g.ref.Digest)
	}
	d, err := blobDigest(g.ref)
	if err != nil {
		return "", err
	}
	return g.get(ctx, Blob, d)
}

// get returns where content is, and asks the client for what is not there.
func (g *gatherer) get(ctx context.Context, kind ContentKind, d digest.SHA256) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	name := objectName(kind, d)
	for {
		if path, ok := g.take(name); ok {
			return path, nil
		}
		if err := ctx.Err(); err != nil {
			return "", err
		}
		r, err := g.fetch(Item{Kind: kind, Digest: d, Ref: g.ref.String()})
		if err != nil {
			return "", err
		}
		n, err := g.server.cache.receive(ctx, kind, d, g.ref, r, g.left)
		g.left -= n
		if err != nil {
			return "", contentError(kind, d, err)
		}
	}
}

// take returns the path of an object that is there. It stays until release.
func (g *gatherer) take(name string) (string, bool) {
	path, ok := g.server.cache.take(name)
	if ok {
		g.held = append(g.held, name)
	}
	return path, ok
}

// contentError gives what is wrong with content its code.
func contentError(kind ContentKind, d digest.SHA256, err error) error {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	if _, ok := errors.AsType[*protocolError](err); ok || isTimeout(err) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return refuse(CodeContent, "", "%s %s: %v", kind, d, err)
}
