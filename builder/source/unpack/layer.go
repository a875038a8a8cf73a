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

// LayerEntryKind is what an entry of a layer does.
type LayerEntryKind uint8

// The kinds of entries of layers.
const (
	LayerDir      LayerEntryKind = iota // makes a directory, or keeps the one that is there
	LayerFile                           // makes a regular file
	LayerSymlink                        // makes a symbolic link
	LayerLink                           // makes another name of the file Target
	LayerWhiteout                       // hides what lower layers have at Name
	LayerOpaque                         // hides what lower layers have in the directory Name
)

// LayerEntry is one step that a layer takes on the root file system that the layers below it made.
// What makes nothing (devices, FIFOs, notes of aufs) is no LayerEntry.
type LayerEntry struct {
	Kind       LayerEntryKind
	Name       string // as in the archive, with the prefix of a whiteout taken off; within Limits, without ".."
	Target     string // of a link
	Executable bool   // of a file
	Size       int64  // of a file, in bytes
}

// ReadLayer reads one layer of an OCI image: image-spec layer.md. It calls entry for each step, in order; content has the Size
// bytes of a file, and is nil otherwise. The compression is the one that the layer's media type says; another is an error. If diff is
// not nil it receives the uncompressed bytes, which the image's configuration has the hash of.
//
// The sizes of the files together, and everything else that Limits bounds, is checked before entry sees it. Nothing is written
// anywhere: Tree.Apply takes the steps.
func ReadLayer(ctx context.Context, r io.Reader, c Compression, limits Limits, diff io.Writer, entry func(LayerEntry, io.Reader) error) error {
	l := layerReader{names: names{RootFS, limits.withDefaults()}, entry: entry}
	return l.stream(ctx, r, &c, func(plain io.Reader, m *meter) error {
		l.meter = m
		if diff != nil {
			plain = io.TeeReader(plain, diff)
		}
		if err := l.untar(ctx, plain, l.header); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, plain) // the padding belongs to the hash
		return err
	})
}

// layerReader turns the headers of a layer into steps.
type layerReader struct {
	names
	meter *meter
	bytes int64 // of files so far
	entry func(LayerEntry, io.Reader) error
}

func (l *layerReader) header(h *tar.Header, r io.Reader) error {
	if _, err := l.split(h.Name); err != nil {
		return err
	}
	parent, base := path.Split(strings.TrimRight(h.Name, "/"))
	for e := range strings.SplitSeq(parent, "/") {
		if strings.HasPrefix(e, whiteoutPrefix) {
			return &EntryError{h.Name, "lies below a whiteout"}
		}
	}
	switch {
	case !strings.HasPrefix(base, whiteoutPrefix):
		return l.plain(h, r)
	case base == whiteoutOpaque:
		return l.entry(LayerEntry{Kind: LayerOpaque, Name: parent}, nil)
	case strings.HasPrefix(base, whiteoutMeta):
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return &EntryError{h.Name, "whiteout of nothing"}
	}
	return l.entry(LayerEntry{Kind: LayerWhiteout, Name: parent + hidden}, nil)
}

// plain is a header that is no whiteout.
func (l *layerReader) plain(h *tar.Header, r io.Reader) error {
	e := LayerEntry{Name: h.Name}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return nil
	case tar.TypeDir:
		e.Kind = LayerDir
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		e.Kind, e.Executable, e.Size = LayerFile, h.Mode&0o100 != 0, h.Size
		if e.Size < 0 || e.Size > l.limits.Bytes-l.bytes {
			return &LimitError{"bytes", l.limits.Bytes}
		}
		l.bytes += e.Size
		return l.entry(e, l.meter.content(r))
	case tar.TypeSymlink:
		e.Kind, e.Target = LayerSymlink, h.Linkname
		if err := l.checkTarget(e.Name, e.Target); err != nil {
			return err
		}
	case tar.TypeLink:
		e.Kind, e.Target = LayerLink, h.Linkname
		if _, err := l.split(e.Target); err != nil {
			return err
		}
	default:
		return &EntryError{h.Name, fmt.Sprintf("unknown type %q", h.Typeflag)}
	}
	return l.entry(e, nil)
}

// Layer applies one layer of an OCI image on top of what the tree holds, as ReadLayer reads it. The tree must be a RootFS.
func (t *Tree) Layer(ctx context.Context, r io.Reader, c Compression, diff io.Writer) error {
	if err := t.NextLayer(); err != nil {
		return err
	}
	return ReadLayer(ctx, r, c, t.limits, diff, t.Apply)
}

// NextLayer says that what is applied from now on lies above all that the tree holds. The tree must be a RootFS.
func (t *Tree) NextLayer() error {
	if t.mode != RootFS {
		return fmt.Errorf("apply image layer: tree is no root file system")
	}
	t.layer++
	return nil
}

// Apply takes one step of a layer; content has the bytes of a file.
func (t *Tree) Apply(e LayerEntry, content io.Reader) error {
	switch e.Kind {
	case LayerDir:
		return t.Dir(e.Name)
	case LayerFile:
		return t.File(e.Name, e.Executable, e.Size, content)
	case LayerSymlink:
		return t.Symlink(e.Name, e.Target)
	case LayerLink:
		return t.Link(e.Name, e.Target)
	case LayerWhiteout:
		parent, base := path.Split(strings.TrimRight(e.Name, "/"))
		return t.whiteout(e.Name, parent, base)
	case LayerOpaque:
		return t.whiteout(e.Name, e.Name, "")
	}
	return &EntryError{e.Name, fmt.Sprintf("unknown kind %d", e.Kind)}
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
