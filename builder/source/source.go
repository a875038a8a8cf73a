// Package source gets the inputs of a build: it turns each pinned reference of a manifest into a tree in the store,
// before the build starts. It is the only part of a build that may use the network. For a job it gets, by FetchRef, what the
// document refers to: files, trees, and images as their blobs.
//
// It promises:
//   - Nothing becomes visible that is not what its pin says: bytes, trees, modules, images and commits are checked
//     against the pin first, whatever sent them. The one exception is a job's path of the host's own Nix or Guix store, which is
//     found and not read: package runner/closure checks it with all that it refers to.
//   - The order of asking is the store, what the receipt carried, archives, mirrors, what is installed on this
//     machine, the origin. With Offline no socket is ever opened, and what is missing is a *MissingError.
//   - A Tree's Dependencies are complete and depend on the references alone, so that every builder lists the same.
//   - What archives hold is unpacked by package unpack, under its promises.
//   - Every wait is bounded and ends with the context; every size has a limit before memory or disk is taken.
//
// It never runs what it fetched, never asks for credentials, and never writes outside of the store, the directory of
// unfinished downloads and temporary directories. The one program that it runs is git, with an environment of its own.
//
// # Archive directories
//
// Export writes, and Fetcher.Archives and Fetcher.Mirrors read, a directory of this form. An OCI image layout is one, too.
//
//	blobs/sha256/HEX          bytes by their SHA-256: downloads, module zips, image manifests, configurations, layers
//	nars/sha256/HEX.nar.zst   trees by the SHA-256 of their NAR, compressed with zstd
//	pins/HEX                  for a Go module: the SHA-256 of its zip, in hexadecimal; HEX is the SHA-256 of the
//	                          reference as it stands in a manifest. It is a hint: the zip is checked against the reference.
package source

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/unpack"
	"arch.network/builder/store"
)

// Fetcher gets inputs. Its fields must not change while it is in use; its methods may be called from several
// goroutines, but Log is then called from each of them.
type Fetcher struct {
	Store *store.Store // where everything is kept; required

	Platform string // which image of a multi-platform OCI index is meant, as "linux/amd64"; empty: linux and this machine's GOARCH

	// Offline forbids every socket. Archives, file: URLs and what is installed here remain.
	Offline  bool
	Archives []string                 // archive directories, see the package documentation
	Mirrors  []string                 // URLs of archive directories, asked before the origin; http, https or file
	Carried  map[digest.SHA256][]byte // what a receipt carried: blobs by their hash, and NARs, plain or zstd, by the NAR's hash

	HTTP        *http.Client  // nil: one with sane time limits; its CheckRedirect is not used
	MaxDownload int64         // bytes of one download; zero: 8 GiB
	Partial     string        // directory of unfinished downloads, which are resumed; empty: the store's directory with ".partial" appended
	Limits      unpack.Limits // of archives and images

	GoProxy    string // in the syntax of GOPROXY; empty: https://proxy.golang.org. "direct" is not supported
	GoSumDB    bool   // Resolve checks new Go modules against the checksum database
	SumDB      string // the database in the syntax of GOSUMDB, "NAME+HASH+KEY [URL]"; empty: sum.golang.org
	GoModCache string // a GOMODCACHE whose zips are used when they match; empty: none
	// Toolchains are GOROOT directories. One of them is used in place of golang.org/toolchain when its files have the pinned hash.
	Toolchains []string

	Git        string // git program; empty: "git" in PATH
	DockerAuth bool   // use the credentials of the user's Docker configuration for registries; false: anonymous

	// Sleep waits between tries; nil: really.
	Sleep func(ctx context.Context, d time.Duration) error
	// Log receives what happens, for people; nil: nobody.
	Log func(Event)

	once sync.Once // guards own
	own  http.RoundTripper
}

// Telling returns a Fetcher like f, of the same connections, that tells what happens to log instead.
func (f *Fetcher) Telling(log func(Event)) *Fetcher {
	client := http.Client{Transport: f.transport()}
	if f.HTTP != nil {
		client.Jar, client.Timeout = f.HTTP.Jar, f.HTTP.Timeout
	}
	return &Fetcher{
		Store: f.Store, Platform: f.Platform, Offline: f.Offline, Archives: f.Archives, Mirrors: f.Mirrors, Carried: f.Carried,
		HTTP: &client, MaxDownload: f.MaxDownload, Partial: f.Partial, Limits: f.Limits,
		GoProxy: f.GoProxy, GoSumDB: f.GoSumDB, SumDB: f.SumDB, GoModCache: f.GoModCache, Toolchains: f.Toolchains,
		Git: f.Git, DockerAuth: f.DockerAuth, Sleep: f.Sleep, Log: log,
	}
}

// EventKind says what an Event tells.
type EventKind string

// The kinds of events.
const (
	EventStart    EventKind = "start"    // something is being fetched or made
	EventProgress EventKind = "progress" // Bytes have arrived
	EventRetry    EventKind = "retry"    // Detail says what went wrong; it is tried again
	EventSkip     EventKind = "skip"     // a place was asked in vain: Detail says why; the next one is tried
	EventDone     EventKind = "done"
)

// Event is one step of fetching, for progress displays. Nothing is decided by it.
type Event struct {
	Kind   EventKind
	What   string // the reference or URL
	Bytes  int64  // so far
	Total  int64  // expected; zero: unknown
	Detail string
}

// Tree is a fetched input.
type Tree struct {
	NAR    digest.SHA256
	Path   string              // on the host, in the store: a directory, or a file or link if the input is one
	Pinned manifest.BuildInput // the input as a receipt states it: a local path is replaced by a tree: reference
	// Dependencies has one entry for each thing that was fetched: its URI is the reference, its digest what the
	// reference pins ("sha256", "dirHash" for Go modules, "gitCommit"). They depend on the references alone.
	Dependencies []attest.ResourceDescriptor
}

// Fetch gets one input. base is the directory of the manifest, which local paths are relative to; others are the inputs
// fetched before, by name, which a GoModules input refers to.
// The caller holds a store.Lease for as long as it uses the tree.
func (f *Fetcher) Fetch(ctx context.Context, in manifest.BuildInput, base string, others map[string]Tree) (Tree, error) {
	lease, err := f.Store.Lease(ctx)
	if err != nil {
		return Tree{}, err
	}
	defer lease.Release()
	t, err := f.fetch(ctx, in, base, others)
	if err != nil {
		return Tree{}, fmt.Errorf("fetch input %q: %w", in.Name, err)
	}
	path, ok := f.Store.TreePath(t.NAR)
	if !ok {
		return Tree{}, fmt.Errorf("fetch input %q: %w", in.Name, &store.NotFoundError{Kind: store.Tree, Digest: t.NAR})
	}
	t.Path = path
	return t, nil
}

// FetchAll gets all inputs of a build, by name. What is missing offline is reported for all of them in one *MissingError.
func (f *Fetcher) FetchAll(ctx context.Context, inputs []manifest.BuildInput, base string) (map[string]Tree, error) {
	trees := make(map[string]Tree, len(inputs))
	var missing missingList
	fetch := func(in manifest.BuildInput) error {
		if in.GoModules != nil {
			if _, ok := trees[in.GoModules.Of]; !ok && missing.err() != nil {
				return nil // its go.sum is missing itself
			}
		}
		t, err := f.Fetch(ctx, in, base, trees)
		if missing.add(in.Name, err) {
			return nil
		}
		trees[in.Name] = t
		return err
	}
	// Module sets come last: they are read from another input, which may stand anywhere in the list.
	for _, last := range []bool{false, true} {
		for _, in := range inputs {
			if (in.GoModules != nil) == last {
				if err := fetch(in); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := missing.err(); err != nil {
		return nil, err
	}
	return trees, nil
}

func (f *Fetcher) fetch(ctx context.Context, in manifest.BuildInput, base string, others map[string]Tree) (Tree, error) {
	switch {
	case in.Path != "":
		return f.local(ctx, in, base)
	case in.GoModules != nil:
		return f.goModules(ctx, in, others)
	}
	m, err := f.reference(ctx, in)
	if err != nil {
		return Tree{}, err
	}
	for i := range m.Dependencies {
		m.Dependencies[i].Name = in.Name
	}
	return Tree{NAR: m.NAR, Pinned: in, Dependencies: m.Dependencies}, nil
}

// memory is what is remembered of a fetched reference: the tree it became, and what was fetched for it.
type memory struct {
	NAR          digest.SHA256               `json:"nar"`
	Dependencies []attest.ResourceDescriptor `json:"dependencies"`
}

// pinKind is the kind of the store's records of what references became. The number is raised when the same
// reference is to become another tree.
const pinKind = "pin-1"

// reference gets what a pinned reference names.
func (f *Fetcher) reference(ctx context.Context, in manifest.BuildInput) (memory, error) {
	key := in.Ref.String()
	if in.Unpack != "" {
		key += " unpack=" + in.Unpack + " strip=" + strconv.Itoa(in.Strip)
	}
	if in.Ref.Scheme == manifest.RefOCI {
		key += " platform=" + f.platform()
	}
	return f.remembered(key, func() (memory, error) { return f.make(ctx, in) })
}

// remembered returns the tree that key became earlier if the store still has it, and makes it otherwise.
func (f *Fetcher) remembered(key string, make func() (memory, error)) (memory, error) {
	var m memory
	value, ok, err := f.Store.Recall(pinKind, key)
	// A damaged record is no reason to fail: the tree is made again from what is pinned.
	if err == nil && ok && json.Unmarshal(value, &m) == nil {
		if _, ok := f.Store.TreePath(m.NAR); ok {
			return m, nil
		}
	}
	if m, err = make(); err != nil {
		return memory{}, err
	}
	if value, err = json.Marshal(m); err != nil {
		return memory{}, err
	}
	return m, f.Store.Remember(pinKind, key, value)
}

// make gets a reference that is not remembered.
func (f *Fetcher) make(ctx context.Context, in manifest.BuildInput) (memory, error) {
	ref := in.Ref
	switch ref.Scheme {
	case manifest.RefURL:
		return f.file(ctx, in, func() error { return f.url(ctx, ref) })
	case manifest.RefModel, manifest.RefCID:
		return f.file(ctx, in, nil)
	case manifest.RefTree:
		return f.tree(ctx, ref, treeDependency(ref), nil)
	case manifest.RefStore:
		return f.tree(ctx, ref, treeDependency(ref), func() error { return f.storePath(ctx, ref) })
	case manifest.RefGit:
		return f.tree(ctx, ref, gitDependency(ref), func() error { return f.git(ctx, ref) })
	case manifest.RefGo:
		return f.goModule(ctx, ref)
	case manifest.RefOCI:
		return f.image(ctx, ref)
	}
	return memory{}, fmt.Errorf("reference %s: scheme %q cannot be fetched", ref, ref.Scheme)
}

func (f *Fetcher) platform() string {
	if f.Platform != "" {
		return f.Platform
	}
	return "linux/" + runtime.GOARCH
}

func (f *Fetcher) log(e Event) {
	if f.Log != nil {
		f.Log(e)
	}
}
