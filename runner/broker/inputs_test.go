package broker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/dirhash"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/source/unpack"
	"arch.network/runner"
)

// seeInput runs a job with one input and returns where it was, or the error.
func (w *world) seeInput(ref manifest.Ref) error {
	j := newJob()
	j.Spec.Inputs = map[string]manifest.Ref{"in": ref}
	_, err := w.run(sign(w.t, j, "alice", "bob"))
	return err
}

// inputWorld is a broker whose jobs note what their input is.
func inputWorld(t *testing.T) (w *world, seen *map[string]string) {
	seen = new(map[string]string)
	return newWorld(t, func(_ context.Context, spec runner.Spec) (runner.Result, error) {
		for _, m := range spec.Mounts {
			if m.Target == "/inputs/in" {
				var err error
				if *seen, err = listing(m.Source); err != nil {
					return runner.Result{}, err
				}
			}
		}
		return runner.Result{Reason: runner.ReasonExit}, nil
	}), seen
}

// listing tells what is in a directory: mode and content of each file, target of each link.
func listing(dir string) (map[string]string, error) {
	list := map[string]string{}
	return list, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		list[rel] = info.Mode().String()
		switch {
		case d.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			list[rel] = "-> " + to
			return err
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			list[rel] += " " + string(data)
			return err
		}
		return nil
	})
}

// module is the NAR of a module's files, and its reference.
func goModule(t *testing.T, change func(dir string) error) ([]byte, manifest.Ref) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "module")
	for name, text := range map[string]string{"go.mod": "module example.org/m\n", "sub/a.go": "package sub\n"} {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	h1, err := dirhash.HashDir(dir, "example.org/m@v1.2.3", dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := manifest.ParseRef("go:example.org/m@v1.2.3#" + h1)
	if err != nil {
		t.Fatal(err)
	}
	if err := change(dir); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := nar.Dump(t.Context(), &b, dir, nar.Options{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), ref
}

func TestGoModule(t *testing.T) {
	w, seen := inputWorld(t)
	archive, ref := goModule(t, func(string) error { return nil })
	w.blobs[ref.Digest] = archive
	for range 2 { // the second time nothing is sent
		if err := w.seeInput(ref); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{".": "dr-xr-xr-x", "go.mod": "-r--r--r-- module example.org/m\n", "sub": "dr-xr-xr-x", "sub/a.go": "-r--r--r-- package sub\n"}
		if diff := cmp.Diff(want, *seen); diff != "" {
			t.Errorf("input (-want +got):\n%s", diff)
		}
	}
	if n := len(w.asked); n != 2 { // the job's own module is the other
		t.Errorf("asked %d times", n)
	}
}

// TestGoModuleThatIsNone sends what has, or nearly has, the hash of the module.
func TestGoModuleThatIsNone(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"other content":      func(dir string) error { return os.WriteFile(filepath.Join(dir, "go.mod"), nil, 0o644) },
		"a file more":        func(dir string) error { return os.WriteFile(filepath.Join(dir, "x"), nil, 0o644) },
		"an empty directory": func(dir string) error { return os.Mkdir(filepath.Join(dir, "x"), 0o755) },
		"a program":          func(dir string) error { return os.Chmod(filepath.Join(dir, "go.mod"), 0o755) },
		"a link to a file of the host with the right content": func(dir string) error {
			at := filepath.Join(dir, "go.mod")
			return errors.Join(os.Rename(at, dir+".mod"), os.Symlink(dir+".mod", at))
		},
		"a file instead": func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o644)) },
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := inputWorld(t)
			archive, ref := goModule(t, change)
			w.blobs[ref.Digest] = archive
			err := w.seeInput(ref)
			if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodeDigest || w.started() != 0 {
				t.Errorf("got %v, %d started", err, w.started())
			}
		})
	}
	t.Run("another version's", func(t *testing.T) {
		w, _ := inputWorld(t)
		archive, ref := goModule(t, func(string) error { return nil })
		w.blobs[ref.Digest] = archive
		ref.Version = "v1.2.4"
		if r, ok := errors.AsType[*Refusal](w.seeInput(ref)); !ok || r.Code != CodeDigest {
			t.Errorf("got %v", r)
		}
	})
}

// layerOf packs a layer.
func layerOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.PAXRecords["content"]
		h.PAXRecords, h.Size = nil, int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, content string, mode int64) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, PAXRecords: map[string]string{"content": content}}
}

// image puts an image of two layers into an index, and all of it where the client finds it.
func (w *world) image(diffIDs []digest.SHA256, layers ...[]byte) manifest.Ref {
	put := func(b []byte) digest.SHA256 {
		w.blobs[digest.Of(b)] = b
		return digest.Of(b)
	}
	list, ids := "", ""
	for i, l := range layers {
		list += fmt.Sprintf(`,{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, put(l), len(l))
		id := digest.Of(l)
		if diffIDs != nil {
			id = diffIDs[i]
		}
		ids += fmt.Sprintf(`,%q`, id)
	}
	config := fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%s]}}`, runtime.GOARCH, ids[1:])
	image := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[%s]}`,
		put(config), len(config), list[1:])
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}]}`,
		put(image), len(image), runtime.GOARCH)
	return manifest.Ref{Scheme: manifest.RefOCI, Location: "example.org/x", Digest: put(index)}
}

func TestImageInput(t *testing.T) {
	w, seen := inputWorld(t)
	base := layerOf(t, file("etc/conf", "one", 0o644), file("gone", "x", 0o644), file("bin/tool", "#!", 0o4755), tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/etc/conf"})
	top := layerOf(t, file("etc/conf", "two", 0o600), file(".wh.gone", "", 0o644))
	ref := w.image(nil, base, top)
	for range 2 {
		if err := w.seeInput(ref); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{
			".": "dr-xr-xr-x", "etc": "dr-xr-xr-x", "etc/conf": "-r--r--r-- two", "bin": "dr-xr-xr-x", "bin/tool": "-r-xr-xr-x #!", "link": "-> /etc/conf",
		}
		if diff := cmp.Diff(want, *seen); diff != "" {
			t.Errorf("input (-want +got):\n%s", diff)
		}
	}
	if n := len(w.asked); n != 6 { // the job's module, index, manifest, configuration, two layers
		t.Errorf("asked for %d things", n)
	}
	// It is the tree that a build would get.
	dir := t.TempDir()
	u, err := unpack.New(dir, unpack.RootFS, unpack.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, l := range [][]byte{base, top} {
		if err := u.Layer(t.Context(), bytes.NewReader(l), unpack.None, nil); err != nil {
			t.Fatal(err)
		}
	}
	want, _, err := nar.Hash(t.Context(), dir, nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(w.server.cache.dir, imageDir, "*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %q, %v", kept, err)
	}
	if got, _, err := nar.Hash(t.Context(), kept[0], nar.Options{}); err != nil || got != want {
		t.Errorf("the tree is %s, a build's is %s, %v", got, want, err)
	}
}

func TestImageInputThatIsNone(t *testing.T) {
	good := layerOf(t, file("a", "x", 0o644))
	tests := []struct {
		name  string
		image func(w *world) manifest.Ref
		code  Code
	}{
		{"a layer with another uncompressed digest", func(w *world) manifest.Ref { return w.image([]digest.SHA256{digest.Of(nil)}, good) }, CodeDigest},
		{"a layer that is no archive", func(w *world) manifest.Ref {
			return w.image(nil, []byte("no archive at all, but long enough to be looked at"))
		}, CodeContent},
		{"a layer that leaves the tree", func(w *world) manifest.Ref { return w.image(nil, layerOf(t, file("../a", "x", 0o644))) }, CodeContent},
		{"a manifest that is none", func(w *world) manifest.Ref {
			b := []byte("{}")
			w.blobs[digest.Of(b)] = b
			return manifest.Ref{Scheme: manifest.RefOCI, Location: "example.org/x", Digest: digest.Of(b)}
		}, CodeContent},
		{"a layer that the client does not have", func(w *world) manifest.Ref {
			ref := w.image(nil, good)
			delete(w.blobs, digest.Of(good))
			return ref
		}, CodeContent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w, _ := inputWorld(t)
			err := w.seeInput(test.image(w))
			if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != test.code || w.started() != 0 {
				t.Errorf("got %v, %d started", err, w.started())
			}
		})
	}
}

// TestClosureSent runs a program of a store path that this host does not have: it is sent, held to its pin, and mounted at its own name.
func TestClosureSent(t *testing.T) {
	const path = "/nix/store/00000000000000000000000000000000-program"
	data, sum := tree(t, map[string]string{"bin/program": "text"})
	var seen map[string]string
	w := newWorld(t, func(_ context.Context, spec runner.Spec) (runner.Result, error) {
		for _, m := range spec.Mounts {
			if m.Target == path {
				var err error
				if seen, err = listing(m.Source); err != nil {
					return runner.Result{}, err
				}
			}
		}
		return runner.Result{Reason: runner.ReasonExit}, nil
	})
	p := newPolicy()
	p.Spec.Runtimes = append(p.Spec.Runtimes, manifest.RuntimeNix)
	w.write("policy.json", sign(t, p, "carol"))
	j := newJob()
	j.Spec.Runtime, j.Spec.Module = manifest.RuntimeNix, "/bin/program"
	j.Spec.Image = manifest.Ref{Scheme: manifest.RefStore, Location: path, Digest: sum}
	j.Spec.Determinism = manifest.Determinism{Clock: manifest.ClockReal, Randomness: manifest.RandomReal}
	envelope := sign(t, j, "alice", "bob")
	w.refused(envelope, CodeContent) // nobody has it
	w.blobs[sum] = append(bytes.Clone(data[:len(data)-8]), "deceived"...)
	w.refused(envelope, CodeContent)
	w.blobs[sum] = data
	if _, err := w.run(envelope); err != nil {
		t.Fatal(err)
	}
	if seen["bin/program"] == "" {
		t.Errorf("the job has %v", seen)
	}
}
