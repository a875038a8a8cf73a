package oci_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/builder/source/imagespec"
	"arch.network/runner/oci"
)

// crashCache and crashBlobs tell the test binary to be the process that is killed.
const crashCache, crashBlobs = "ARCH_TEST_CRASH_CACHE", "ARCH_TEST_CRASH_BLOBS"

// crash makes the root of an image again and again, until it is killed.
func crash() {
	d, err := digest.ParseHex(os.Getenv("ARCH_TEST_CRASH_IMAGE"))
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	for n := 0; ; n++ {
		c, err := oci.Open(ctx, oci.Options{Dir: os.Getenv(crashCache)})
		if err != nil {
			panic(err)
		}
		root, err := c.Root(ctx, oci.Image{Digest: d, Platform: platform, Blobs: oci.Layout(os.Getenv(crashBlobs))})
		if err != nil {
			panic(err)
		}
		fmt.Println(n)
		c.Release(root)
		if _, err := c.Clean(ctx, oci.CleanOptions{}); err != nil {
			panic(err)
		}
		c.Close()
	}
}

// A process that is killed at any instant leaves a cache that works, and nothing that stays.
func TestKill(t *testing.T) {
	w := newWorld(t)
	var entries []e
	for n := range 200 {
		entries = append(entries, e{name: fmt.Sprintf("d%d/f%d", n%7, n), body: fmt.Sprint(n)})
	}
	img := w.put(w.image(map[string]any{}, layer{tarOf(t, entries...), "gzip"}, layer{tarOf(t, e{name: "d0/.wh.f0"}, e{name: "x", body: "x"}), ""}))
	want, err := openCache(t, oci.Options{}).Root(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	tree := list(t, want.Dir)
	dir := filepath.Join(t.TempDir(), "cache")
	r := rand.New(rand.NewPCG(1, 1))
	for range 12 {
		killAfter(t, dir, w.dir, img.Digest, 1+r.IntN(4))
		c := openCache(t, oci.Options{Dir: dir})
		root, err := c.Root(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tree, list(t, root.Dir)); diff != "" {
			t.Fatalf("tree (-want +got):\n%s", diff)
		}
		nothingLeft(t, dir)
		c.Close()
	}
}

// killAfter starts a process that fills the cache and cleans it, and kills it when it has filled it some times: it is busy then, with
// whatever it came to.
func killAfter(t *testing.T, cache, blobs string, image digest.SHA256, times int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), crashCache+"="+cache, crashBlobs+"="+blobs, "ARCH_TEST_CRASH_IMAGE="+image.Hex())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for n := range times {
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintln(n) {
			t.Errorf("the process says %q, %v", line, err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Errorf("%v: %s", err, stderr.String())
	}
}

// No space is an error that says so, and leaves nothing.
func TestNoSpace(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("arch-test", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=256k,mode=755"); err != nil {
		t.Skipf("cannot run here: mount a small file system: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	w := newWorld(t)
	small := w.put(w.image(map[string]any{}, layer{tarOf(t, e{name: "a", body: "a"}), ""}))
	large := w.put(w.image(map[string]any{}, layer{tarOf(t, e{name: "a", body: strings.Repeat("x", 1<<20)}), "gzip"}))
	c, err := oci.Open(t.Context(), oci.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Root(t.Context(), large); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error is %v", err)
	}
	nothingLeft(t, dir)
	if _, err := c.Root(t.Context(), small); err != nil {
		t.Error(err)
	}
}

// A cancelled context ends the work, and leaves nothing.
func TestCancel(t *testing.T) {
	w := newWorld(t)
	img := w.put(threeLayers(t, w))
	for n := range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		dir := filepath.Join(t.TempDir(), "cache")
		c := openCache(t, oci.Options{Dir: dir})
		count := 0
		late := img
		late.Blobs = func(d digest.SHA256) (*os.File, error) {
			if count++; count == n+1 {
				cancel()
			}
			return img.Blobs(d)
		}
		if _, err := c.Root(ctx, late); !errors.Is(err, context.Canceled) {
			t.Errorf("blob %d: error is %v", n, err)
		}
		cancel()
		nothingLeft(t, dir)
	}
}

// An index names images for several platforms; only the one asked for is taken.
func TestIndex(t *testing.T) {
	w := newWorld(t)
	here := w.put(w.image(map[string]any{}, layer{tarOf(t, e{name: "here"}), ""}))
	otherImage := w.image(map[string]any{}, layer{tarOf(t, e{name: "there"}), ""})
	otherImage.Config["architecture"] = "arm64"
	other := w.put(otherImage)
	entry := func(img oci.Image, arch string) any {
		return map[string]any{"mediaType": imagespec.MediaTypeManifest, "digest": img.Digest, "size": 1, "platform": map[string]any{"os": "linux", "architecture": arch}}
	}
	index := func(list ...any) oci.Image {
		d, _ := w.json(map[string]any{"schemaVersion": 2, "mediaType": imagespec.MediaTypeIndex, "manifests": list})
		return oci.Image{Digest: d, Platform: platform, Blobs: oci.Layout(w.dir)}
	}
	for name, tt := range map[string]struct {
		img oci.Image
		err string
	}{
		"two platforms": {index(entry(other, "arm64"), entry(here, "amd64")), ""},
		"not ours":      {index(entry(other, "arm64")), `the index has no image for linux/amd64, only for ["linux/arm64"]`},
		"two of ours":   {index(entry(here, "amd64"), entry(other, "amd64")), "the index has 2 images for linux/amd64"},
		"one that lies": {index(entry(other, "amd64")), `it is for "linux/arm64", not for linux/amd64`},
	} {
		root, err := openCache(t, oci.Options{}).Root(t.Context(), tt.img)
		if tt.err == "" && err != nil || !strings.HasSuffix(errText(err), tt.err) {
			t.Errorf("%s: error is %v", name, err)
		}
		if err == nil && (root.Manifest != here.Digest || !cmp.Equal(list(t, root.Dir), []string{`here ""`})) {
			t.Errorf("%s: %+v", name, root)
		}
		if bad, ok := errors.AsType[*oci.ImageError](err); tt.err != "" && (!ok || bad.Hint() == "") {
			t.Errorf("%s: no hint", name)
		}
	}
}
