package diff

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strings"
)

// The files of an OCI image layout (image-spec 1.1, image-layout.md).
const (
	indexFile   = "index.json"
	layoutFile  = "oci-layout"
	blobsPath   = "blobs/sha256"
	maxDocument = 4 << 20 // bytes of an index, manifest or config
)

// isLayout reports whether a directory with these entries is an OCI layout.
func isLayout[E interface{ Name() string }](entries []E) bool {
	found := 0
	for _, entry := range entries {
		switch entry.Name() {
		case indexFile, layoutFile, "blobs":
			found++
		}
	}
	return found == 3
}

// layout is the comparison of two OCI layouts: documents and layers are paired by their place, since their names are their digests.
type layout struct {
	e            *explainer
	dir          string
	rootA, rootB *os.Root
	explained    map[string]bool // paths of the blobs that were paired
}

// descriptor is what an index or manifest says of another blob.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
}

// document is what is needed of an index or manifest.
type document struct {
	Manifests []descriptor `json:"manifests"`
	Config    *descriptor  `json:"config"`
	Layers    []descriptor `json:"layers"`
}

func (e *explainer) ociLayout(dir string, rootA, rootB *os.Root) error {
	l := &layout{e: e, dir: dir, rootA: rootA, rootB: rootB, explained: map[string]bool{}}
	a, err := e.open(rootA, path.Join(dir, indexFile))
	if err != nil {
		return err
	}
	b, err := e.open(rootB, path.Join(dir, indexFile))
	if err != nil {
		return err
	}
	err = l.document(place{path: path.Join(dir, indexFile)}, a, b, 0)
	e.explained = l.explained
	return err
}

// document compares two indexes or manifests and everything that they name.
func (l *layout) document(at place, a, b content, depth int) error {
	s, err := compareBytes(l.e.ctx, a, b)
	if err != nil || s.first < 0 {
		return err
	}
	docA, textA, okA := readDocument(a)
	docB, textB, okB := readDocument(b)
	if !okA || !okB || depth > l.e.opts.Depth {
		return l.e.contents(at, a, b, depth)
	}
	before := len(l.e.found)
	if err := l.children(at, "manifest", docA.Manifests, docB.Manifests, depth); err != nil {
		return err
	}
	if docA.Config != nil && docB.Config != nil {
		if err := l.child(at.in("config"), *docA.Config, *docB.Config, depth); err != nil {
			return err
		}
	}
	if err := l.children(at, "layer", docA.Layers, docB.Layers, depth); err != nil {
		return err
	}
	own := len(l.e.found)
	if err := l.e.contents(at, bytesContent(textA.text), bytesContent(textB.text), depth); err != nil {
		return err
	}
	for i := own; i < len(l.e.found); i++ {
		d := &l.e.found[i]
		d.Offset = textA.original(d.Offset)
		d.SizeA, d.SizeB, d.ExcerptA, d.ExcerptB = a.size, b.size, excerpt(a, d.Offset), excerpt(b, d.Offset)
	}
	if len(l.e.found) == before {
		l.e.add(at, a, b, s, Content, "Only digests differ, of blobs that are not there on both sides to be compared.")
	}
	return nil
}

// children compares what two lists name. Where one is longer, the text of the document shows it.
func (l *layout) children(at place, what string, as, bs []descriptor, depth int) error {
	for i := range min(len(as), len(bs)) {
		if err := l.child(at.in(fmt.Sprintf("%s %d", what, i+1)), as[i], bs[i], depth); err != nil {
			return err
		}
	}
	return nil
}

var ociDigest = compiled(`^sha256:[0-9a-f]{64}$`)

func (l *layout) child(at place, a, b descriptor, depth int) error {
	if a.Digest == b.Digest || !ociDigest().MatchString(a.Digest) || !ociDigest().MatchString(b.Digest) {
		return nil
	}
	pathA, pathB := l.blob(a), l.blob(b)
	_, errA := l.rootA.Lstat(pathA)
	_, errB := l.rootB.Lstat(pathB)
	if errA != nil || errB != nil {
		return nil // an image may be stored in part
	}
	l.explained[pathA], l.explained[pathB] = true, true
	contentA, err := l.e.open(l.rootA, pathA)
	if err != nil {
		return err
	}
	contentB, err := l.e.open(l.rootB, pathB)
	if err != nil {
		return err
	}
	if strings.HasSuffix(a.MediaType, "json") && strings.HasSuffix(b.MediaType, "json") {
		return l.document(at, contentA, contentB, depth+1)
	}
	return l.e.contents(at, contentA, contentB, depth)
}

func (l *layout) blob(d descriptor) string {
	return path.Join(l.dir, blobsPath, strings.TrimPrefix(d.Digest, "sha256:"))
}

// What follows from what a document names: the digest and the size of each.
var (
	digestText = compiled(`sha256:[0-9a-f]{64}`)
	sizeText   = compiled(`"size": *\d+`)
)

// ownText is a document without the digests and sizes that follow from what it names.
type ownText struct {
	text []byte
	cuts []cut
}

// cut is where the own text is shorter than the document.
type cut struct {
	offset int64 // in the own text
	size   int64
}

// original is the offset in the document of an offset in the own text.
func (t ownText) original(offset int64) int64 {
	shift := int64(0)
	for _, c := range t.cuts {
		if c.offset <= offset {
			shift += c.size
		}
	}
	return offset + shift
}

// readDocument reads a document of at most maxDocument bytes.
func readDocument(c content) (doc document, own ownText, ok bool) {
	if c.size > maxDocument {
		return document{}, ownText{}, false
	}
	data, err := c.head(c.size)
	if err != nil || json.Unmarshal(data, &doc) != nil {
		return document{}, ownText{}, false
	}
	data = digestText().ReplaceAllLiteral(data, []byte("sha256:"+strings.Repeat("-", 64)))
	last := 0
	for _, match := range sizeText().FindAllIndex(data, -1) {
		own.text = append(append(own.text, data[last:match[0]]...), `"size":0`...)
		own.cuts = append(own.cuts, cut{int64(len(own.text)), int64(match[1] - match[0] - len(`"size":0`))})
		last = match[1]
	}
	own.text = append(own.text, data[last:]...)
	return doc, own, true
}

// dropExplained removes the differences of names that a layout's comparison has explained: a blob with another content has another name.
func (c *comparison) dropExplained(e *explainer) {
	if len(e.explained) == 0 {
		return
	}
	kept := c.tree[:0]
	for _, d := range c.tree {
		if d.cause != Missing || !e.explained[d.path] {
			kept = append(kept, d)
		}
	}
	c.tree = kept
}
