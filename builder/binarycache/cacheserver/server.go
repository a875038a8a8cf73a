// Package cacheserver publishes stores as binary caches, to be read only: Nix and whoever else speaks that protocol can substitute from them.
// What it publishes is the store of arch (Trees), or the store of a Nix that lies in a directory (Dir).
//
// It promises that what it signs is what it has read itself, and that a NAR which is no longer that breaks off instead of ending. It never
// writes, opens nothing but the paths of its store and the receipts beside it, and works on a bounded number of requests at a time.
package cacheserver

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/binarycache"
	"arch.network/builder/nix/realisation"
)

// Store is what is published.
type Store interface {
	// Dir returns the directory that store paths are in, such as "/nix/store".
	Dir() string
	// Find returns the store path with this hash part; an error that wraps fs.ErrNotExist if there is none.
	Find(ctx context.Context, hash string) (Object, error)
	// Hold keeps what Find returned from being removed until release is called.
	Hold(ctx context.Context) (release func() error, err error)
}

// Object is one path of a store.
type Object struct {
	Path       storepath.Path
	NAR        digest.SHA256
	Size       int64    // bytes of the NAR
	References []string // HASH-NAME, sorted
	CA         string   // see binarycache.NarInfo
	Source     string   // where it is on this machine
}

// Options say how a store is published.
type Options struct {
	Keys     []binarycache.SecretKey // that sign every narinfo; none: only paths named by their content will be accepted
	Priority int                     // see binarycache.Info; zero: 50
	// Receipts is a directory whose subdirectory receipts is published, too. Empty: none.
	Receipts string
	// Realisations says what realisations are published. Nil: none.
	Realisations *Realisations
	Parallel     int // requests that are worked on at a time, the others wait; zero: 8
}

const (
	maxWaiting = 256             // requests that wait; more are asked to come again
	stall      = 2 * time.Minute // that a client may leave a write waiting
)

// New returns a handler for the cache, below "/". Only GET and HEAD are answered.
func New(s Store, o Options) http.Handler {
	if o.Parallel == 0 {
		o.Parallel = 8
	}
	if o.Priority == 0 {
		o.Priority = 50
	}
	return &server{
		store: s, o: o, known: newMemory(),
		working: semaphore.NewWeighted(int64(o.Parallel)), waiting: semaphore.NewWeighted(int64(o.Parallel + maxWaiting)),
	}
}

type server struct {
	store            Store
	o                Options
	known            *memory
	working, waiting *semaphore.Weighted
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	name, rooted := strings.CutPrefix(r.URL.Path, "/")
	if !rooted || r.URL.RawQuery != "" {
		http.NotFound(w, r)
		return
	}
	if name == "nix-cache-info" {
		info := binarycache.Info{StoreDir: s.store.Dir(), WantMassQuery: true, Priority: s.o.Priority}
		s.answer(w, r, info.Encode(), nil, "text/x-nix-cache-info")
		return
	}
	if !s.waiting.TryAcquire(1) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	defer s.waiting.Release(1)
	if s.working.Acquire(r.Context(), 1) != nil {
		return // the client is gone
	}
	defer s.working.Release(1)
	// To hash a large path, and to send it, takes longer than a server's timeouts for requests: from here on it is bounded by stall.
	control := http.NewResponseController(w)
	for _, set := range []func(time.Time) error{control.SetReadDeadline, control.SetWriteDeadline} {
		if err := set(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return // the connection is gone
		}
	}
	s.file(w, r, name)
}

// file answers for what is below the cache.
func (s *server) file(w http.ResponseWriter, r *http.Request, name string) {
	switch base := strings.TrimSuffix(strings.TrimSuffix(name, ".narinfo"), ".ls"); {
	case base+".narinfo" == name && binarycache.ValidHash(base):
		data, err := s.narinfo(r.Context(), base)
		s.answer(w, r, data, err, "text/x-nix-narinfo")
	case base+".ls" == name && binarycache.ValidHash(base):
		data, err := s.listing(r.Context(), base)
		s.answer(w, r, data, err, "application/json")
	case strings.HasPrefix(name, "nar/"):
		s.nar(w, r, name)
	case strings.HasPrefix(name, realisation.Dir+"/"):
		data, err := s.realisation(r.Context(), name)
		s.answer(w, r, data, err, "application/json")
	case strings.HasPrefix(name, binarycache.ReceiptDir+"/"):
		data, err := s.receipts(name)
		s.answer(w, r, data, err, "application/jsonl")
	default:
		http.NotFound(w, r)
	}
}

func (s *server) answer(w http.ResponseWriter, r *http.Request, data []byte, err error, kind string) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.NotFound(w, r)
		return
	case err != nil: // what it is concerns who runs the server, not who asks
		http.Error(w, "the store cannot be read", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method == http.MethodGet {
		_, _ = (&patient{w, http.NewResponseController(w)}).Write(data) // a client that went away is no error of ours
	}
}

// find is Store.Find, which is asked once for each path.
func (s *server) find(ctx context.Context, hash string) (Object, error) {
	if o, ok := s.known.get(hash); ok {
		return o, nil
	}
	o, err := s.store.Find(ctx, hash)
	if err == nil {
		s.known.put(hash, o)
	}
	return o, err
}

func (s *server) narinfo(ctx context.Context, hash string) ([]byte, error) {
	o, err := s.find(ctx, hash)
	if err != nil {
		return nil, err
	}
	n := binarycache.NarInfo{
		StorePath: o.Path, Files: []binarycache.File{{URL: narPath(o), Compression: binarycache.Zstd}},
		NarHash: o.NAR, NarSize: o.Size, References: o.References, CA: o.CA,
	}
	for _, key := range s.o.Keys {
		n.Sigs = append(n.Sigs, key.Sign(n.Fingerprint().String()))
	}
	return n.Encode()
}

func (s *server) listing(ctx context.Context, hash string) ([]byte, error) {
	release, err := s.store.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	o, err := s.find(ctx, hash)
	if err != nil {
		return nil, err
	}
	sum, list, err := nar.HashListing(ctx, o.Source, nar.Options{})
	if err != nil {
		return nil, err
	}
	if sum != o.NAR {
		s.known.forget(hash)
		return nil, errors.New("the path was changed")
	}
	return binarycache.EncodeListing(list)
}

// receipts reads a file of receipts. Its name is one that binarycache.ReceiptPath makes.
func (s *server) receipts(name string) ([]byte, error) {
	if s.o.Receipts == "" || !binarycache.ValidReceiptPath(name) {
		return nil, fs.ErrNotExist
	}
	return os.ReadFile(filepath.Join(s.o.Receipts, filepath.FromSlash(name)))
}
