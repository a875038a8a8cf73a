package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"arch.network/attest/digest"
	"arch.network/builder/source/imagespec"
	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/oci"
	"arch.network/runner/systemd"
)

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	inner := func() (runner.Runner, error) {
		return namespace.New(namespace.Options{NoCgroups: true, CountRefused: true})
	}
	if handled, code := systemd.Main(os.Args, inner); handled {
		os.Exit(code)
	}
	if os.Getenv(crashCache) != "" {
		crash()
	}
	os.Exit(m.Run())
}

const platform = "linux/amd64"

// e is an entry of a layer.
type e struct {
	name, link, body string
	typ              byte // zero: a file
	mode             int64
	pax              map[string]string
}

func tarOf(t testing.TB, entries ...e) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.typ, Mode: e.mode, Size: int64(len(e.body)), Format: tar.FormatPAX, PAXRecords: e.pax}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// world is a set of blobs, as an OCI layout on disk.
type world struct {
	t      testing.TB
	dir    string
	packed map[digest.SHA256][]byte // layers of each hash and compression: packing is slow with -race
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t, t.TempDir(), map[digest.SHA256][]byte{}}
	if err := os.MkdirAll(filepath.Join(w.dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) blob(b []byte) digest.SHA256 {
	w.t.Helper()
	d := digest.Of(b)
	w.write(d, b)
	return d
}

func (w *world) write(d digest.SHA256, b []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "blobs", "sha256", d.Hex()), b, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) json(v any) (digest.SHA256, int) {
	w.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.blob(b), len(b)
}

// layer is a layer before it is packed.
type layer struct {
	tar  []byte
	pack string // "", "gzip" or "zstd"
}

func (l layer) packed(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	switch l.pack {
	case "gzip":
		z := gzip.NewWriter(&b)
		z.Write(l.tar)
		z.Close()
	case "zstd":
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		z.Write(l.tar)
		z.Close()
	default:
		return l.tar
	}
	return b.Bytes()
}

// image is a manifest before it is written; tests change it.
type image struct {
	Manifest map[string]any
	Config   map[string]any
}

func (w *world) image(config any, layers ...layer) image {
	w.t.Helper()
	var diffs, list []any
	for _, l := range layers {
		key := digest.Of([]byte(l.pack + digest.Of(l.tar).String()))
		if w.packed[key] == nil {
			w.packed[key] = l.packed(w.t)
		}
		packed := w.packed[key]
		mediaType := "application/vnd.oci.image.layer.v1.tar"
		if l.pack != "" {
			mediaType += "+" + l.pack
		}
		diffs = append(diffs, digest.Of(l.tar))
		list = append(list, map[string]any{"mediaType": mediaType, "digest": w.blob(packed), "size": len(packed)})
	}
	if layers == nil {
		diffs, list = []any{}, []any{}
	}
	return image{
		Manifest: map[string]any{"schemaVersion": 2, "mediaType": imagespec.MediaTypeManifest, "layers": list},
		Config: map[string]any{
			"os": "linux", "architecture": "amd64", "config": config,
			"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
		},
	}
}

// put writes an image and returns it as a runner gets it.
func (w *world) put(i image) oci.Image {
	w.t.Helper()
	if i.Manifest["config"] == nil {
		d, size := w.json(i.Config)
		i.Manifest["config"] = map[string]any{"mediaType": imagespec.MediaTypeConfig, "digest": d, "size": size}
	}
	d, _ := w.json(i.Manifest)
	return oci.Image{Digest: d, Platform: platform, Blobs: oci.Layout(w.dir)}
}

func openCache(t testing.TB, o oci.Options) *oci.Cache {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "cache")
	}
	c, err := oci.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// list lists a tree: "dir/", "file* "content"", "link -> target"; without empty mount points. It fails on anything else, and on modes that are not promised.
func list(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch mode := info.Mode(); {
		case mode.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			lines = append(lines, rel+" -> "+target)
			return err
		case mode == fs.ModeDir|0o755:
			lines = append(lines, rel+"/")
		case mode == 0o644 || mode == 0o755:
			data, err := os.ReadFile(path)
			if mode == 0o755 {
				rel += "*"
			}
			lines = append(lines, fmt.Sprintf("%s %.40q", rel, data))
			return err
		default:
			t.Errorf("%s has mode %v", rel, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		mountPoint := slices.Contains([]string{"dev/", "inputs/", "outputs/", "proc/", "tmp/"}, line)
		return mountPoint && !slices.ContainsFunc(lines, func(other string) bool { return other != line && strings.HasPrefix(other, line) })
	})
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// nothingLeft checks that a cache has no temporary files.
func nothingLeft(t testing.TB, cache string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(cache, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		t.Errorf("left behind: tmp/%s", entry.Name())
	}
}

func busybox(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("/bin/busybox")
	if err != nil || bytes.Contains(data, []byte("/ld-linux")) || !strings.HasPrefix(string(data), "\x7fELF") {
		t.Skip("cannot run here: /bin/busybox of the package busybox-static is not installed")
	}
	return string(data)
}
