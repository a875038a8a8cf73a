package unpack

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"strings"
)

// The names of OCI image-spec layer.md, "Whiteouts". Names below whiteoutMeta other than whiteoutOpaque are notes of
// aufs that no image needs.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// Layer applies one layer of an OCI image on top of what the tree holds: image-spec layer.md. The compression is the
// one that the layer's media type says; another is an error. If diff is not nil it receives the uncompressed bytes,
// which the image's configuration has the hash of. The tree must be a RootFS.
func (t *Tree) Layer(ctx context.Context, r io.Reader, c Compression, diff io.Writer) error {
	if t.mode != RootFS {
		return fmt.Errorf("apply image layer: tree is no root file system")
	}
	t.layer++
	return t.stream(ctx, r, &c, func(plain io.Reader) error {
		if diff != nil {
			plain = io.TeeReader(plain, diff)
		}
		if err := t.untar(ctx, plain, t.layerEntry); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, plain) // the padding belongs to the hash
		return err
	})
}

func (t *Tree) layerEntry(h *tar.Header, r io.Reader) error {
	parent, base := path.Split(strings.TrimRight(h.Name, "/"))
	for e := range strings.SplitSeq(parent, "/") {
		if strings.HasPrefix(e, whiteoutPrefix) {
			return &EntryError{h.Name, "lies below a whiteout"}
		}
	}
	switch {
	case !strings.HasPrefix(base, whiteoutPrefix):
		return t.plainEntry(0)(h, r)
	case base == whiteoutOpaque:
		return t.whiteout(h.Name, parent, "")
	case strings.HasPrefix(base, whiteoutMeta):
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return &EntryError{h.Name, "whiteout of nothing"}
	}
	return t.whiteout(h.Name, parent, hidden)
}

// whiteout hides what lower layers put at base in the directory parent, or all they put there if base is empty.
// What this layer made stays, wherever in the layer the whiteout stands.
func (t *Tree) whiteout(name, parent, base string) error {
	elems, err := t.split(parent)
	if err != nil {
		return err
	}
	at, err := t.walk(name, elems, false)
	if err != nil || at.node == nil {
		return err
	}
	if base != "" {
		if at.node.children[base] == nil {
			return nil
		}
		_, err := t.purge(at, base)
		return err
	}
	_, err = t.purgeChildren(at)
	return err
}

// purge removes what lower layers left at base, and tells whether something of this layer kept it alive.
func (t *Tree) purge(at place, base string) (alive bool, err error) {
	n := at.node.children[base]
	kept, err := t.purgeChildren(place{n, join(at.path, base)})
	if err != nil || kept || n.layer == t.layer {
		return true, err
	}
	return false, t.remove(at, base)
}

// purgeChildren purges all that is in a directory, and tells whether something is left. It looks at it once in a layer:
// what came later is this layer's, and a hostile one would have a full directory looked at for each of its entries.
func (t *Tree) purgeChildren(at place) (kept bool, err error) {
	if at.node.purged == t.layer {
		return len(at.node.children) > 0, nil
	}
	for child := range at.node.children {
		alive, err := t.purge(at, child)
		if err != nil {
			return false, err
		}
		kept = kept || alive
	}
	at.node.purged = t.layer
	return kept, nil
}
