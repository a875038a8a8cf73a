package bench

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/builder/source/imagespec"
	"arch.network/runner/closure"
	"arch.network/runner/namespace"
	"arch.network/runner/oci"
)

// imageFile is a file of the measured image.
type imageFile struct {
	name string
	body []byte
}

// imageFiles are 5,000 files of 20 MB together in 100 directories.
func imageFiles() []imageFile {
	noise := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{2}).Read(noise)
	files := make([]imageFile, 5000)
	for i := range files {
		at := i * 131 % (len(noise) - 4096)
		files[i] = imageFile{fmt.Sprintf("usr/share/d%02d/e%d/f%04d", i/100, i/50%2, i), noise[at : at+4096]}
	}
	return files
}

// imageLayout writes an image whose layers have the given tars, and returns it.
func imageLayout(b *testing.B, config map[string]any, layers ...[]byte) oci.Image {
	b.Helper()
	dir := b.TempDir()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		b.Fatal(err)
	}
	put := func(data []byte, mediaType string) map[string]any {
		d := digest.Of(data)
		if err := os.WriteFile(filepath.Join(blobs, d.Hex()), data, 0o644); err != nil {
			b.Fatal(err)
		}
		return map[string]any{"mediaType": mediaType, "digest": d, "size": len(data)}
	}
	document := func(v any, mediaType string) map[string]any {
		data, err := json.Marshal(v)
		if err != nil {
			b.Fatal(err)
		}
		return put(data, mediaType)
	}
	var diffs, list []any
	for _, l := range layers {
		diffs = append(diffs, digest.Of(l))
		list = append(list, put(l, "application/vnd.oci.image.layer.v1.tar"))
	}
	c := document(map[string]any{"os": "linux", "architecture": "amd64", "config": config, "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}}, imagespec.MediaTypeConfig)
	m := document(map[string]any{"schemaVersion": 2, "config": c, "layers": list}, imagespec.MediaTypeManifest)
	return oci.Image{Digest: m["digest"].(digest.SHA256), Platform: "linux/amd64", Blobs: oci.Layout(dir)}
}

func layerOf(b *testing.B, files []imageFile, mode int64) []byte {
	b.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: mode, Size: int64(len(f.body))}); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(f.body); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// BenchmarkImageUnpack makes the root file system of an image of 5,000 files and 20 MB with an empty cache: its layer is hashed,
// unpacked, hashed again by file, and linked together. Beside it, the same files are written without any care. A second image on
// the same layer costs what "merge" says, an image that is there what "again" says, and one that is checked again what
// "recheck" says. The target is unpack at most 2 times plain.
func BenchmarkImageUnpack(b *testing.B) {
	files := imageFiles()
	layer := layerOf(b, files, 0o644)
	one := imageLayout(b, nil, layer)
	two := imageLayout(b, nil, layer, layerOf(b, []imageFile{{"etc/x", []byte("x")}}, 0o644))
	costs := map[string][]cost{}
	measure := func(name string, f func() error) { costs[name] = append(costs[name], withChildren(b, f)) }
	for b.Loop() {
		work, err := os.MkdirTemp("", "arch-bench-oci-")
		if err != nil {
			b.Fatal(err)
		}
		now := time.Now()
		cache, err := oci.Open(b.Context(), oci.Options{Dir: filepath.Join(work, "cache"), Now: func() time.Time { return now }})
		if err != nil {
			b.Fatal(err)
		}
		root := func(img oci.Image) func() error {
			return func() error { _, err := cache.Root(b.Context(), img); return err }
		}
		measure("plain", func() error { return writePlain(filepath.Join(work, "plain"), files) })
		measure("unpack", root(one))
		measure("merge", root(two))
		measure("again", root(two))
		now = now.Add(48 * time.Hour)
		measure("recheck", root(two))
		cache.Close()
		if err := os.RemoveAll(work); err != nil {
			b.Fatal(err)
		}
	}
	plain := middleOf(costs["plain"])
	for name, list := range costs {
		m := middleOf(list)
		b.ReportMetric(m.cpu.Seconds()*1000, "cpu-ms/"+name)
		b.ReportMetric(m.cpu.Seconds()/plain.cpu.Seconds(), "cpu-x/"+name)
		b.ReportMetric(m.wall.Seconds()/plain.wall.Seconds(), "wall-x/"+name)
	}
}

func writePlain(dir string, files []imageFile) error {
	for _, f := range files {
		name := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, f.body, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// middleOf is the cost in the middle, each dimension by itself.
func middleOf(list []cost) cost {
	var cpu, wall []time.Duration
	for _, c := range list {
		cpu, wall = append(cpu, c.cpu), append(wall, c.wall)
	}
	slices.Sort(cpu)
	slices.Sort(wall)
	return cost{cpu[len(cpu)/2], wall[len(wall)/2]}
}

// BenchmarkImageStart runs the shell of a small image that is in the cache, from its digest to its end, beside the same program without
// anything around it. The first process is runner/namespace/first. The target is at most 5 ms of CPU time over that.
func BenchmarkImageStart(b *testing.B) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		b.Skip("cannot run here: /bin/busybox of the package busybox-static is not installed")
	}
	img := imageLayout(b, map[string]any{"Entrypoint": []string{"/bin/busybox", "true"}}, layerOf(b, []imageFile{{"bin/busybox", busybox}}, 0o755))
	cache, err := oci.Open(b.Context(), oci.Options{Dir: filepath.Join(b.TempDir(), "cache")})
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	driver, err := namespace.New(namespace.Options{Executable: buildFirst(b)})
	if err != nil {
		b.Fatal(err)
	}
	ways := map[string]func() error{
		"plain": func() error { return exec.CommandContext(b.Context(), "/bin/busybox", "true").Run() },
		"image": func() error {
			root, err := cache.Root(b.Context(), img)
			if err != nil {
				return err
			}
			spec, err := oci.Spec(root, oci.Run{Writable: []string{"/tmp"}})
			if err != nil {
				return err
			}
			result, err := driver.Run(b.Context(), spec)
			if err == nil && !result.OK() {
				err = fmt.Errorf("run true: %+v", result)
			}
			return err
		},
	}
	if err := ways["image"](); err != nil { // unpacks
		b.Fatal(err)
	}
	costs := map[string][]cost{}
	for b.Loop() {
		for name, run := range ways {
			costs[name] = append(costs[name], withChildren(b, run))
		}
	}
	image, plain := middleOf(costs["image"]), middleOf(costs["plain"])
	b.ReportMetric(image.cpu.Seconds()*1000, "cpu-ms/image")
	b.ReportMetric((image.cpu-plain.cpu).Seconds()*1000, "cpu-ms/over-plain")
	b.ReportMetric(image.wall.Seconds()*1000, "wall-ms/image")
}

// BenchmarkClosure checks and searches a store path of 256 MiB in large files, beside hashing it alone. The target is 500 MB/s.
func BenchmarkClosure(b *testing.B) {
	size := narBytes(b)
	top := "/nix/store/" + "0123456789abcdfghijklmnpqrsvwxyz" + "-large"
	dir := filepath.Join(b.TempDir(), "store")
	largeFiles(b, filepath.Join(dir, filepath.Base(top)), size)
	pin, _, err := nar.Hash(b.Context(), filepath.Join(dir, filepath.Base(top)), nar.Options{})
	if err != nil {
		b.Fatal(err)
	}
	o := closure.Options{Dir: dir, Locate: func(_ context.Context, path string, _ digest.SHA256) (string, error) {
		return filepath.Join(dir, filepath.Base(path)), nil
	}}
	b.SetBytes(int64(size))
	for b.Loop() {
		if _, err := closure.Compute(b.Context(), top, pin, o); err != nil {
			b.Fatal(err)
		}
	}
}
