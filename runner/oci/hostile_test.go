package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/builder/source/imagespec"
	"arch.network/builder/source/unpack"
	"arch.network/runner/oci"
)

// arena is a cache beside a file that no image may reach.
func arena(t testing.TB) (o oci.Options, check func()) {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "canary", "secret")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "canary"), 0o755), os.WriteFile(secret, []byte("secret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return oci.Options{Dir: filepath.Join(dir, "cache"), Limits: unpack.Limits{Bytes: 1 << 20, Files: 1000, Slack: 1 << 20}}, func() {
		t.Helper()
		info, err := os.Lstat(secret)
		if err != nil || info.Mode() != 0o600 || info.Size() != 6 || nlink(t, secret) != 1 {
			t.Errorf("the canary is %v, %v", info, err)
		}
		entries, _ := os.ReadDir(dir)
		inner, _ := os.ReadDir(filepath.Join(dir, "canary"))
		if len(entries) != 2 || len(inner) != 1 {
			t.Errorf("beside the cache: %v %v", entries, inner)
		}
		nothingLeft(t, filepath.Join(dir, "cache"))
	}
}

// The corpus of hostile layers. The way out of the root would be ../../../../canary.
func TestHostileLayers(t *testing.T) {
	const out = "../../../../canary"
	link := func(name, to string) e { return e{name: name, typ: tar.TypeSymlink, link: to} }
	hard := func(name, to string) e { return e{name: name, typ: tar.TypeLink, link: to} }
	for _, tt := range []struct {
		name   string
		layers [][]e
		want   []string
		err    string
	}{
		{"absolute link out", [][]e{{link("l", "/canary"), {name: "l/x", body: "evil"}}}, []string{"canary/", `canary/x "evil"`, "l -> /canary"}, ""},
		{"relative link out", [][]e{{link("l", out), {name: "l/x", body: "evil"}}}, []string{"canary/", `canary/x "evil"`, "l -> " + out}, ""},
		{"link out in a lower layer", [][]e{{link("l", out)}, {{name: "l/x", body: "evil"}}}, []string{"canary/", `canary/x "evil"`, "l -> " + out}, ""},
		{"dot dot", [][]e{{{name: out + "/x"}}}, nil, `".." in the name`},
		{"dot dot in the middle", [][]e{{{name: "a/../../x"}}}, nil, `".." in the name`},
		{"absolute name", [][]e{{{name: "/etc/x", body: "x"}}}, []string{"etc/", `etc/x "x"`}, ""},
		{"hard link out", [][]e{{hard("h", out+"/secret")}}, nil, `".." in the name`},
		{"absolute hard link", [][]e{{hard("h", "/etc/passwd")}}, nil, "which is no file of the archive so far"},
		{"hard link through a link", [][]e{{link("l", out), hard("h", "l/secret")}}, nil, "which is no file of the archive so far"},
		{"hard link to a link", [][]e{{link("l", out+"/secret"), hard("h", "l"), {name: "h", body: "mine"}}}, []string{`h "mine"`, "l -> " + out + "/secret"}, ""},
		{"hard link to a lower layer", [][]e{{{name: "a", body: "a"}}, {hard("b", "a")}}, []string{`a "a"`, `b "a"`}, ""},
		{"hard link to what is hidden", [][]e{{{name: "a", body: "a"}}, {{name: ".wh.a"}, hard("b", "a")}}, nil, "which is no file of the archive so far"},
		{"hard link to itself", [][]e{{{name: "a"}, hard("a", "a")}}, nil, "hard link to itself"},
		{"whiteout through a link", [][]e{{link("l", out)}, {{name: "l/.wh.secret"}}}, []string{"l -> " + out}, ""},
		{"opaque through a link", [][]e{{link("l", out)}, {{name: "l/.wh..wh..opq"}}}, []string{"l -> " + out}, ""},
		{"whiteout of nothing", [][]e{{{name: ".wh."}}}, nil, "whiteout of nothing"},
		{"whiteout of dot", [][]e{{{name: ".wh.."}}}, nil, "whiteout of nothing"},
		{"whiteout of dot dot", [][]e{{{name: "a/.wh..."}}}, nil, "whiteout of nothing"},
		{"below a whiteout", [][]e{{{name: ".wh.a/x"}}}, nil, "lies below a whiteout"},
		{"opaque in another layer", [][]e{{{name: "d/a"}}, {{name: "d/.wh..wh..opq"}, {name: "d/b"}}, {{name: "d/c"}}}, []string{"d/", `d/b ""`, `d/c ""`}, ""},
		{"opaque last in its layer", [][]e{{{name: "d/a"}}, {{name: "d/b"}, {name: "d/.wh..wh..opq"}}}, []string{"d/", `d/b ""`}, ""},
		{"link loop", [][]e{{link("a", "b"), link("b", "a"), {name: "a/x"}}}, nil, "leads through too many symbolic links"},
		{"absolute links of the image", [][]e{{{name: "usr/lib64", typ: tar.TypeDir}, link("lib64", "/usr/lib64")}, {{name: "lib64/ld", body: "x"}}}, []string{"lib64 -> /usr/lib64", "usr/", "usr/lib64/", `usr/lib64/ld "x"`}, ""},
		{"file over a link", [][]e{{link("l", out+"/secret")}, {{name: "l", body: "mine"}}}, []string{`l "mine"`}, ""},
		{"link over a directory", [][]e{{{name: "d/x"}}, {link("d", out), {name: "d/y", body: "y"}}}, []string{"canary/", `canary/y "y"`, "d -> " + out}, ""},
		{"twice in one layer", [][]e{{{name: "a", body: "1"}, {name: "a", body: "2", mode: 0o755}}}, []string{`a* "2"`}, ""},
		{"twice, as a directory", [][]e{{{name: "a", body: "1"}, {name: "a/b", body: "2"}}}, []string{"a/", `a/b "2"`}, ""},
		{"devices and sockets", [][]e{{{name: "null", typ: tar.TypeChar}, {name: "sda", typ: tar.TypeBlock}, {name: "fifo", typ: tar.TypeFifo}, {name: "x"}}}, []string{`x ""`}, ""},
		{"set-user-ID", [][]e{{{name: "su", mode: 0o6755}, {name: "spool", typ: tar.TypeDir, mode: 0o1777}, {name: "locked", typ: tar.TypeDir, mode: 0}}}, []string{"locked/", "spool/", `su* ""`}, ""},
		{"unknown type", [][]e{{{name: "x", typ: 'Z'}}}, nil, "unknown type 'Z'"},
		{"mount points of its own", [][]e{{link("tmp", out), {name: "dev", body: "x"}, {name: "proc/x", body: "y"}}}, []string{`dev "x"`, "proc/", `proc/x "y"`, "tmp -> " + out}, ""},
		{"too many entries", [][]e{many(1001)}, nil, "exceeds the limit of 1000 entries"},
		{"too many in two layers", [][]e{many(600), prefixed("b", many(600))}, nil, "exceeds the limit of 1000 entries"},
		{"many whiteouts", [][]e{whiteouts(1001)}, nil, "exceeds the limit of 1000 entries"},
		{"too many bytes", [][]e{{{name: "a", body: strings.Repeat("x", 600<<10)}, {name: "b", body: strings.Repeat("x", 600<<10)}}}, nil, "exceeds the limit of 1048576 bytes"},
		{"too many bytes in two layers", [][]e{{{name: "a", body: strings.Repeat("x", 600<<10)}}, {{name: "b", body: strings.Repeat("x", 600<<10)}}}, nil, "exceeds the limit of 1048576 bytes"},
		{"long name", [][]e{{{name: strings.Repeat("n", 256)}}}, nil, "exceeds the limit of 255 bytes in a name"},
		{"huge name", [][]e{{{name: strings.Repeat("n/", 200_000) + "x"}}}, nil, "exceeds the limit of 4095 bytes in a path"},
		{"huge target", [][]e{{link("l", strings.Repeat("n", 5000))}}, nil, "exceeds the limit of 4095 bytes in a symbolic link's target"},
		{"deep", [][]e{{{name: strings.Repeat("d/", 300) + "x"}}}, nil, "exceeds the limit of 256 path elements"},
		{"deep through links", [][]e{{{name: strings.Repeat("d/", 200) + "x"}, link("l", strings.Repeat("d/", 200)), {name: "l/" + strings.Repeat("d/", 200) + "x"}}}, nil, "exceeds the limit of 256 path elements"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, check := arena(t)
			w := newWorld(t)
			var layers []layer
			for n, entries := range tt.layers {
				layers = append(layers, layer{tarOf(t, entries...), []string{"gzip", "", "zstd"}[n%3]})
			}
			root, err := openCache(t, o).Root(t.Context(), w.put(w.image(map[string]any{}, layers...)))
			check()
			if tt.err == "" && err != nil || !strings.HasSuffix(errText(err), tt.err) {
				t.Fatalf("error %q does not end in %q", errText(err), tt.err)
			}
			if tt.err != "" {
				if _, ok := errors.AsType[*oci.ImageError](err); !ok {
					t.Errorf("error is %T", err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, list(t, root.Dir)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}

func many(n int) []e {
	list := make([]e, n)
	for i := range list {
		list[i].name = fmt.Sprintf("f%d", i)
	}
	return list
}

func prefixed(dir string, list []e) []e {
	for i := range list {
		list[i].name = dir + "/" + list[i].name
	}
	return list
}

func whiteouts(n int) []e {
	list := many(n)
	for i := range list {
		list[i].name = ".wh." + list[i].name
	}
	return list
}

// What no writer of tars makes by itself, and documents that lie.
func TestHostileImages(t *testing.T) {
	plain := layer{tarOf(t, e{name: "x", body: "x"}), "gzip"}
	layerOf := func(i image) map[string]any { return i.Manifest["layers"].([]any)[0].(map[string]any) }
	replace := func(w *world, i image, plain []byte) {
		layerOf(i)["mediaType"] = "application/vnd.oci.image.layer.v1.tar"
		layerOf(i)["digest"], layerOf(i)["size"] = w.blob(plain), len(plain)
		i.Config["rootfs"].(map[string]any)["diff_ids"] = []any{digest.Of(plain)}
	}
	for _, tt := range []struct {
		name   string
		layer  layer
		change func(w *world, i image)
		image  func(img *oci.Image)
		err    string
	}{
		{name: "as it should be", layer: plain},
		{name: "index and image", layer: plain, change: func(_ *world, i image) { i.Manifest["manifests"] = []any{} }, err: "it must be either an index or an image"},
		{name: "media type of an index", layer: plain, change: func(_ *world, i image) { i.Manifest["mediaType"] = imagespec.MediaTypeIndex }, err: "is that of something else"},
		{name: "layer of unknown type", layer: plain, change: func(_ *world, i image) {
			layerOf(i)["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar"
		}, err: `has the unknown media type "application/vnd.oci.image.layer.nondistributable.v1.tar"`},
		{name: "layer packed otherwise", layer: plain, change: func(_ *world, i image) { layerOf(i)["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd" }, err: `archive is compressed with "gzip", but said to be with "zstd"`},
		{name: "plain layer that is packed", layer: plain, change: func(w *world, i image) { replace(w, i, plain.packed(t)) }, err: `archive is compressed with "gzip", but said to be with ""`},
		{name: "plain layer of another hash", layer: layer{plain.tar, ""}, change: func(_ *world, i image) {
			i.Config["rootfs"].(map[string]any)["diff_ids"] = []any{digest.Of([]byte("other"))}
		}, err: "the configuration says sha256:"},
		{name: "layer is longer", layer: plain, change: func(_ *world, i image) { layerOf(i)["size"] = 1 }, err: "it does not have the 1 bytes that its descriptor says"},
		{name: "layer is shorter", layer: plain, change: func(_ *world, i image) { layerOf(i)["size"] = 1 << 40 }, err: "it does not have the 1099511627776 bytes that its descriptor says"},
		{name: "layer of negative size", layer: plain, change: func(_ *world, i image) { layerOf(i)["size"] = -1 }, err: "bytes that its descriptor says"},
		{name: "layer was changed", layer: plain, change: func(w *world, i image) {
			b := plain.packed(w.t)
			b[len(b)-1]++
			w.write(layerOf(i)["digest"].(digest.SHA256), b)
		}, err: "its bytes have the digest sha256:"},
		{name: "layer is gone", layer: plain, change: func(w *world, i image) {
			os.Remove(filepath.Join(w.dir, "blobs/sha256", layerOf(i)["digest"].(digest.SHA256).Hex()))
		}, err: "no such file or directory"},
		{name: "other uncompressed bytes", layer: plain, change: func(_ *world, i image) {
			i.Config["rootfs"].(map[string]any)["diff_ids"] = []any{digest.Of([]byte("other"))}
		}, err: "the configuration says sha256:"},
		{name: "fewer layers in the configuration", layer: plain, change: func(_ *world, i image) {
			i.Config["rootfs"].(map[string]any)["diff_ids"] = []any{}
		}, err: "it lists 0 layers, its manifest 1"},
		{name: "other architecture", layer: plain, change: func(_ *world, i image) { i.Config["architecture"] = "arm64" }, err: `it is for "linux/arm64", not for linux/amd64`},
		{name: "no architecture", layer: plain, change: func(_ *world, i image) { delete(i.Config, "architecture") }, err: `it is for "linux/", not for linux/amd64`},
		{name: "no platform asked for", layer: plain, image: func(img *oci.Image) { img.Platform = "" }, err: `it is for "linux/amd64", not for `},
		{name: "513 layers", layer: plain, change: func(_ *world, i image) {
			list := make([]any, 513)
			for n := range list {
				list[n] = layerOf(i)
			}
			i.Manifest["layers"] = list
		}, err: "it has 513 layers, more than 512"},
		{name: "manifest of 5 MiB", layer: plain, change: func(_ *world, i image) {
			i.Manifest["annotations"] = map[string]any{"x": strings.Repeat("x", 5<<20)}
		}, err: "it has more than 4194304 bytes"},
		{name: "configuration of 5 MiB", layer: plain, change: func(_ *world, i image) { i.Config["x"] = strings.Repeat("x", 5<<20) }, err: "more than 4194304"},
		{name: "configuration of 5 MiB that does not say so", layer: plain, change: func(w *world, i image) {
			i.Config["x"] = strings.Repeat("x", 5<<20)
			d, _ := w.json(i.Config)
			i.Manifest["config"] = map[string]any{"mediaType": imagespec.MediaTypeConfig, "digest": d, "size": 100}
		}, err: "it has more than 4194304 bytes"},
		{name: "artifact", layer: plain, change: func(w *world, i image) {
			d, size := w.json(i.Config)
			i.Manifest["config"] = map[string]any{"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": d, "size": size}
		}, err: "it is no image that can be run, but an artifact of another type"},
		{name: "module", layer: plain, change: func(w *world, i image) {
			d, size := w.json(i.Config)
			i.Manifest["config"] = map[string]any{"mediaType": "application/vnd.wasm.config.v0+json", "digest": d, "size": size}
			layerOf(i)["mediaType"] = "application/wasm"
		}, err: "it is a WebAssembly module and no container image"},
		{name: "index within an index", layer: plain, change: func(w *world, i image) {
			inner, size := w.json(map[string]any{"schemaVersion": 2, "manifests": []any{}})
			for k := range i.Manifest {
				delete(i.Manifest, k)
			}
			i.Manifest["schemaVersion"] = 2
			i.Manifest["config"] = nil
			i.Manifest["manifests"] = []any{map[string]any{"mediaType": imagespec.MediaTypeManifest, "digest": inner, "size": size, "platform": map[string]any{"os": "linux", "architecture": "amd64"}}}
			i.Config = nil
		}, err: "an index within an index"},
		{name: "gzip bomb", layer: plain, change: func(w *world, i image) {
			var b bytes.Buffer
			z, _ := gzip.NewWriterLevel(&b, 9)
			z.Write(tarOf(w.t, e{name: "a", body: strings.Repeat("\x00", 700<<10)}))
			z.Write(make([]byte, 8<<20)) // behind the end of the archive
			z.Close()
			layerOf(i)["digest"], layerOf(i)["size"] = w.blob(b.Bytes()), b.Len()
		}, err: "archive expands to more than 200 times its size"},
		{name: "sparse bomb", layer: plain, change: func(w *world, i image) {
			b := sparseBomb(w.t)
			replace(w, i, b)
		}, err: "archive exceeds the limit of 1048576 bytes"},
		{name: "tar that ends early", layer: plain, change: func(w *world, i image) {
			b := tarOf(w.t, e{name: "a", body: strings.Repeat("a", 5000)})[:2000]
			replace(w, i, b)
		}, err: "unexpected EOF"},
		{name: "no tar", layer: plain, change: func(w *world, i image) {
			b := bytes.Repeat([]byte("not a tar "), 200)
			replace(w, i, b)
		}, err: "invalid tar header"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, check := arena(t)
			w := newWorld(t)
			i := w.image(map[string]any{}, tt.layer)
			if tt.change != nil {
				tt.change(w, i)
			}
			if c, has := i.Manifest["config"]; has && c == nil {
				delete(i.Manifest, "config")
			}
			var img oci.Image
			if _, isIndex := i.Manifest["manifests"]; isIndex && i.Manifest["layers"] == nil {
				d, _ := w.json(i.Manifest)
				img = oci.Image{Digest: d, Platform: platform, Blobs: oci.Layout(w.dir)}
			} else {
				img = w.put(i)
			}
			if tt.image != nil {
				tt.image(&img)
			}
			_, err := openCache(t, o).Root(t.Context(), img)
			check()
			if tt.err == "" && err != nil || !strings.Contains(errText(err), tt.err) {
				t.Errorf("error %q does not say %q", errText(err), tt.err)
			}
		})
	}
}

// sparseBomb is a tar of 3 KiB whose only file has a hole of 64 MiB.
func sparseBomb(t testing.TB) []byte {
	t.Helper()
	var record bytes.Buffer
	for _, kv := range []string{"GNU.sparse.size=67108864", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,0"} {
		fmt.Fprintf(&record, "%d %s\n", len(kv)+4, kv)
	}
	var b bytes.Buffer
	b.Write(rawHeader("x", 'x', record.Len()))
	b.Write(record.Bytes())
	b.Write(make([]byte, (512-record.Len()%512)%512))
	b.Write(rawHeader("hole", '0', 0))
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

// rawHeader is a USTAR header, for what archive/tar refuses to write.
func rawHeader(name string, typ byte, size int) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        ", size))
	h[156] = typ
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// Neither owners nor extended attributes nor capabilities come into being.
func TestAttributes(t *testing.T) {
	o, check := arena(t)
	w := newWorld(t)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw+ep
	l := layer{tarOf(t, e{name: "ping", mode: 0o755, pax: map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.x": "y", "uid": "0"}}), ""}
	root, err := openCache(t, o).Root(t.Context(), w.put(w.image(map[string]any{}, l)))
	check()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(root.Dir+"/ping", &st); err != nil || int(st.Uid) != os.Geteuid() {
		t.Errorf("owner is %d, %v", st.Uid, err)
	}
	for _, name := range []string{"security.capability", "user.x"} {
		if n, err := unix.Lgetxattr(root.Dir+"/ping", name, make([]byte, 64)); err == nil {
			t.Errorf("attribute %s of %d bytes", name, n)
		}
	}
}

func nlink(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return uint64(st.Nlink)
}

// FuzzRoot: whatever two layers say, nothing outside of the cache changes, and what comes of them has only what is promised.
func FuzzRoot(f *testing.F) {
	link := e{name: "l", typ: tar.TypeSymlink, link: "../../../../canary"}
	f.Add(tarOf(f, link, e{name: "a/b", body: "x"}), tarOf(f, e{name: "l/.wh.secret"}, e{name: "l/x", body: "y"}), "0", "/")
	f.Add(tarOf(f, e{name: "etc/passwd", body: passwdFile}), tarOf(f, e{name: "h", typ: tar.TypeLink, link: "etc/passwd"}), "app", "/l/x")
	f.Fuzz(func(t *testing.T, one, two []byte, user, dir string) {
		o, check := arena(t)
		w := newWorld(t)
		config := map[string]any{"User": user, "WorkingDir": dir, "Volumes": map[string]any{dir: map[string]any{}}}
		root, err := openCache(t, o).Root(t.Context(), w.put(w.image(config, layer{one, ""}, layer{two, "gzip"})))
		check()
		if err != nil {
			return
		}
		list(t, root.Dir)
		if root.User.UID < 0 || root.User.GID < 0 {
			t.Errorf("user is %+v", root.User)
		}
	})
}

// A layout is somebody else's directory: what is no file in it is refused, and nothing outside of it is opened.
func TestHostileLayout(t *testing.T) {
	w := newWorld(t)
	blobs := filepath.Join(w.dir, "blobs/sha256")
	fifo, dir, out := digest.Of([]byte("fifo")), digest.Of([]byte("dir")), digest.Of([]byte("out"))
	if err := errors.Join(unix.Mkfifo(filepath.Join(blobs, fifo.Hex()), 0o644), os.Mkdir(filepath.Join(blobs, dir.Hex()), 0o755), os.Symlink("/etc/passwd", filepath.Join(blobs, out.Hex()))); err != nil {
		t.Fatal(err)
	}
	for _, d := range []digest.SHA256{fifo, dir, out, digest.Of([]byte("none"))} {
		_, err := openCache(t, oci.Options{}).Root(t.Context(), oci.Image{Digest: d, Platform: platform, Blobs: oci.Layout(w.dir)})
		if err == nil {
			t.Errorf("%s is an image", d)
		}
	}
}
