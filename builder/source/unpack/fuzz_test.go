package unpack

import (
	"archive/tar"
	"bytes"
	"testing"
)

// FuzzArchives feeds anything to every unpacker. Whatever comes of it, nothing outside of the tree may change, and
// nothing may be in it but files, directories and links with the modes that are promised.
func FuzzArchives(f *testing.F) {
	link := e{name: "l", typ: tar.TypeSymlink, link: "../canary"}
	f.Add(tarOf(f, e{name: "a/b", body: "x"}, link, e{name: "l/x"}))
	f.Add(squeeze(f, Gzip, tarOf(f, link, e{name: "h", typ: tar.TypeLink, link: "l/secret"}, e{name: "l/.wh.secret"})))
	f.Add(squeeze(f, XZ, tarOf(f, e{name: "../x"})))
	f.Add(squeeze(f, Zstd, tarOf(f, e{name: "a"})))
	f.Add(zipOf(f, link, e{name: "l/x"}))
	f.Add(arOf("debian-binary", "2.0\n", "data.tar", string(tarOf(f, link, e{name: "l/x"}))))
	f.Add(sparse(f, "70000000"))
	limits := Limits{Bytes: 1 << 20, Files: 100}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range []struct {
			mode   Mode
			unpack func(*Tree) error
		}{
			{Strict, func(tree *Tree) error { return tree.Tar(t.Context(), bytes.NewReader(b), 0) }},
			{Strict, func(tree *Tree) error { return tree.Zip(t.Context(), bytes.NewReader(b), int64(len(b)), 0) }},
			{RootFS, func(tree *Tree) error { return tree.Deb(t.Context(), bytes.NewReader(b), 0) }},
			{RootFS, func(tree *Tree) error { return tree.Layer(t.Context(), bytes.NewReader(b), None, nil) }},
		} {
			in, check := arena(t)
			_ = c.unpack(newTree(t, in, c.mode, limits))
			check()
			list(t, in)
		}
	})
}
