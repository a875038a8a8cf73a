// Package tilehttp publishes logs over HTTP and reads published ones, by C2SP tlog-tiles: whoever speaks that can read our logs, and we theirs.
//
// The server promises to open nothing but a log's checkpoint, tiles and bundles, and never to write. The client promises bounds on what it
// reads, and nothing about whether it is right: attest/ledger finds that out.
package tilehttp

import (
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"arch.network/attest/ledger"
)

// NewServer returns a handler that serves the log read from source, below "/". Only GET and HEAD are answered.
func NewServer(source ledger.Source) http.Handler { return &server{source} }

type server struct{ source ledger.Source }

// How long answers may be kept. What a path of a tile holds never changes; a partial one may be gone after a while. The checkpoint is asked for
// anew each time.
const (
	cacheFull    = "public, max-age=31536000, immutable"
	cachePartial = "public, max-age=600"
	cacheNothing = "no-cache"
)

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	path, rooted := strings.CutPrefix(r.URL.Path, "/")
	if !rooted || r.URL.RawQuery != "" {
		http.NotFound(w, r)
		return
	}
	if path == ledger.CheckpointPath {
		data, err := s.source.ReadCheckpoint(r.Context())
		answer(w, r, data, err, "text/plain; charset=utf-8", cacheNothing)
		return
	}
	tile, bundle, err := ledger.ParsePath(path)
	cache := cacheFull
	if strings.Contains(path, ".p/") {
		cache = cachePartial
	}
	var data []byte
	switch {
	case err != nil:
		http.NotFound(w, r)
		return
	case tile != nil:
		data, err = s.source.ReadTile(r.Context(), path)
	case bundle != nil:
		data, err = s.source.ReadBundle(r.Context(), path)
	}
	answer(w, r, data, err, "application/octet-stream", cache)
}

func answer(w http.ResponseWriter, r *http.Request, data []byte, err error, kind, cache string) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.NotFound(w, r)
		return
	case err != nil: // what it is concerns who runs the server, not who asks
		http.Error(w, "the log cannot be read", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", cache)
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodGet {
		_, _ = w.Write(data) // a client that went away is no error of ours
	}
}
