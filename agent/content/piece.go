package content

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/store"
)

// Piece is one thing that a document pins by the hash of its bytes or of its Nix archive, and that can be handed to somebody else by it.
type Piece struct {
	Ref    manifest.Ref
	Kind   store.Kind
	Digest digest.SHA256
}

// Pieces are those of a document, in the order of its references, each once. Of a store path it is the path alone, without what it refers to.
// Images, Go modules and IPFS content are not among them: their pins are of something else.
func Pieces(doc *manifest.Job) []Piece {
	var out []Piece
	seen := map[digest.SHA256]bool{}
	for _, ref := range references(doc) {
		p := Piece{Ref: ref, Kind: store.Blob, Digest: ref.Digest}
		switch ref.Scheme {
		case manifest.RefURL, manifest.RefModel:
		case manifest.RefTree, manifest.RefGit, manifest.RefStore:
			p.Kind = store.Tree
		default:
			continue
		}
		if !seen[p.Digest] {
			seen[p.Digest] = true
			out = append(out, p)
		}
	}
	return out
}

// Find returns the path of a file or tree that is what the piece's pin says: in a store, if s is not nil, at the place that a file URL or a
// store path names, or in one of dirs under the name that the reference ends in; for HASH-NAME in a store of Nix or Guix, that is NAME. Empty: there is none.
func (p Piece) Find(ctx context.Context, s *store.Store, dirs []string) (string, error) {
	if s != nil {
		path, ok := s.BlobPath(p.Digest)
		if p.Kind == store.Tree {
			path, ok = s.TreePath(p.Digest)
		}
		if ok {
			return path, nil
		}
	}
	var candidates []string
	if place, ok := strings.CutPrefix(p.Ref.Location, "file://"); ok {
		candidates = append(candidates, place)
	}
	base := filepath.Base(p.Ref.Location)
	if p.Ref.Scheme == manifest.RefStore {
		candidates = append(candidates, p.Ref.Location)
		_, base, _ = strings.Cut(base, "-")
	}
	if base != "" && !strings.ContainsAny(base, "?&/") && base != "." && base != ".." {
		for _, dir := range dirs {
			candidates = append(candidates, filepath.Join(dir, base))
		}
	}
	for _, path := range candidates {
		var sum digest.SHA256
		var err error
		if _, serr := os.Lstat(path); serr != nil {
			continue
		}
		if p.Kind == store.Tree {
			sum, _, err = nar.Hash(ctx, path, nar.Options{})
		} else {
			sum, err = hashFile(path)
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err == nil && sum == p.Digest { // what cannot be read, or is something else, is not it
			return path, nil
		}
	}
	return "", nil
}

// Open returns what is handed over of a piece that was found at path: the file's bytes, or the tree's Nix archive. Who gets it compares
// its hash. Size is negative if it is not known beforehand.
func (p Piece) Open(ctx context.Context, path string) (r io.ReadCloser, size int64, err error) {
	if p.Kind == store.Blob {
		f, err := openFile(path)
		if err != nil {
			return nil, 0, err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, 0, err
		}
		return f, info.Size(), nil
	}
	from, to := io.Pipe()
	go func() { to.CloseWithError(nar.Dump(ctx, to, path, nar.Options{})) }()
	return from, -1, nil
}
