package artifact_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/artifact"
)

var update = flag.Bool("update", false, "write testdata/golden.json anew; then NormalizerVersion must count up, too")

const epoch = 1767225600

// fixedTree makes a tree that never changes: with every type of entry, and names and sizes at the limits of the formats.
func fixedTree(t testing.TB, reverse bool) string {
	t.Helper()
	dir := t.TempDir()
	files := []struct {
		name, content string
		mode          os.FileMode
	}{
		{"empty", "", 0o600},
		{"run", "#!/bin/sh\n", 0o755},
		{"block", strings.Repeat("b", 512), 0o640},
		{"over", strings.Repeat("o", 513), 0o604},
		{strings.Repeat("n", 99), "99", 0o644},
		{strings.Repeat("m", 100), "100", 0o644},
		{strings.Repeat("l", 255), "255: too long for USTAR", 0o644},
		{strings.Repeat("d", 155) + "/" + strings.Repeat("f", 100), "the longest that USTAR can split", 0o644},
		{strings.Repeat("e", 156) + "/" + strings.Repeat("f", 100), "one more", 0o644},
		{"a/b/c/deep", "deep", 0o644},
		{"a.b", "sorts before a/", 0o644},
		{"a b", "space", 0o644},
		{"é", "NFC", 0o644},
		{"e\u0301", "NFD", 0o644},
		{"bad \xff\xfe", "no UTF-8", 0o644},
		{"line\nbreak", "control", 0o644},
	}
	if reverse {
		slices.Reverse(files)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(f.content), f.mode), os.Chmod(path, f.mode)); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link": "run", "long link": strings.Repeat("t/", 200), "up": "../../etc/passwd"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "nothing/in here"), 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

var image = artifact.Image{
	Platform: "linux/amd64", Epoch: epoch,
	Config: manifest.BuildImage{
		Entrypoint: []string{"/run", "<&>\u2028"}, Cmd: []string{"arg"}, Env: map[string]string{"PATH": "/", "A": "é"}, User: "1:2", WorkingDir: "/a",
	},
}

// identities are the digests that a tree is known by.
type identities struct {
	NAR   digest.SHA256 `json:"nar"`
	Tar   digest.SHA256 `json:"tar"`
	Image digest.SHA256 `json:"image"`
	Empty digest.SHA256 `json:"emptyTar"`
}

func identify(t testing.TB, dir string) identities {
	t.Helper()
	var id identities
	var err error
	if id.NAR, _, err = nar.Hash(t.Context(), dir, nar.Options{}); err != nil {
		t.Fatal(err)
	}
	var sum, empty digest.Writer
	if err := artifact.WriteTar(t.Context(), &sum, dir, epoch); err != nil {
		t.Fatal(err)
	}
	if err := artifact.WriteTar(t.Context(), &empty, t.TempDir(), epoch); err != nil {
		t.Fatal(err)
	}
	id.Tar, id.Empty = sum.Sum(), empty.Sum()
	if id.Image, err = image.WriteLayout(t.Context(), filepath.Join(t.TempDir(), "image"), dir); err != nil {
		t.Fatal(err)
	}
	return id
}

const golden = "testdata/golden.json"

// The digests of a fixed tree are what they were when this version of the normaliser was made. If this fails after a
// change of Go or of a library, that change would give every artifact in the world another name.
func TestGoldenDigests(t *testing.T) {
	got := identify(t, fixedTree(t, false))
	if *update {
		data, err := json.MarshalIndent(got, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var want identities
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("under %s (-want +got):\n%s", runtime.Version(), diff)
	}
	if diff := cmp.Diff(got, identify(t, fixedTree(t, true))); diff != "" {
		t.Errorf("the order in which the tree was made shows (-up +down):\n%s", diff)
	}
}

// otherGo is a later toolchain whose compress/gzip gives other bytes than ours; nothing of it may show.
const otherGo = "go1.27.4"

func TestGoldenDigestsUnderAnotherGo(t *testing.T) {
	if strings.HasPrefix(runtime.Version(), otherGo) {
		t.Log("this is the other Go")
		return
	}
	env := append(os.Environ(), "GOTOOLCHAIN="+otherGo)
	version := exec.CommandContext(t.Context(), "go", "version")
	version.Env = env
	if out, err := version.CombinedOutput(); err != nil || !bytes.Contains(out, []byte(otherGo)) {
		t.Skipf("cannot run here: %s cannot be had: %v: %s", otherGo, err, bytes.TrimSpace(out))
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-run=^TestGoldenDigests", ".")
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("this is the other Go")) {
		t.Errorf("under %s: %v\n%s", otherGo, err, out)
	}
}

// What the standard library reads back is the tree, in its normal form.
func TestTarReadBack(t *testing.T) {
	var buf bytes.Buffer
	if err := artifact.WriteTar(t.Context(), &buf, fixedTree(t, false), epoch); err != nil {
		t.Fatal(err)
	}
	var names []string
	formats := map[tar.Format]int{}
	for r := tar.NewReader(&buf); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != epoch || h.Uid|h.Gid != 0 || h.Uname+h.Gname != "" {
			t.Errorf("%q is not normal: %+v", h.Name, h)
		}
		names = append(names, h.Name)
		formats[h.Format]++
	}
	if formats[tar.FormatPAX] < 3 || formats[tar.FormatUSTAR] < 10 || len(formats) != 2 {
		t.Errorf("formats: %v", formats)
	}
	for i, name := range names {
		dir, _, nested := strings.Cut(strings.TrimSuffix(name, "/"), "/")
		if nested && !slices.Contains(names[:i], dir+"/") {
			t.Errorf("%q comes before its directory", name)
		}
	}
	if i, j := slices.Index(names, "a b"), slices.Index(names, "a.b"); i > j || slices.Index(names, "a/") > i {
		t.Errorf("order: %q", names)
	}
}

func TestTarRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(filepath.Join(dir, "sub/fifo")); err != nil {
		t.Fatal(err)
	}
	err := artifact.WriteTar(t.Context(), io.Discard, dir, epoch)
	if err == nil || !strings.Contains(err.Error(), "sub/fifo is neither a file, a directory nor a symbolic link") {
		t.Errorf("a fifo: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := artifact.WriteTar(ctx, io.Discard, fixedTree(t, false), epoch); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := artifact.WriteTar(t.Context(), full{}, fixedTree(t, false), epoch); !errors.Is(err, errFull) {
		t.Errorf("full: %v", err)
	}
}

var errFull = errors.New("disk full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestLayoutDigestRefuses(t *testing.T) {
	tree := fixedTree(t, false)
	for _, c := range []struct {
		name string
		harm func(dir string) error
		err  string
	}{
		{"nothing", func(string) error { return nil }, ""},
		{"no index", func(dir string) error { return os.Remove(dir + "/index.json") }, "index.json"},
		{"a changed layer", func(dir string) error { return changeBlob(dir, 4096, 'x') }, "has the digest"},
		{"a longer layer", func(dir string) error { return changeBlob(dir, -1, 'x') }, "does not have the"},
		{"no blobs", func(dir string) error { return os.RemoveAll(dir + "/blobs") }, "no such file"},
		{"two images", func(dir string) error {
			return rewrite(dir+"/index.json", `"manifests":[`, `"manifests":[{"mediaType":"x","size":1,"digest":"sha256:00"},`)
		}, "exactly one image"},
		{"a huge index", func(dir string) error {
			return os.WriteFile(dir+"/index.json", bytes.Repeat([]byte(" "), 5<<20), 0o644)
		}, "over the limit of 4194304 bytes"},
		{"a link out of it", func(dir string) error {
			return errors.Join(os.Remove(dir+"/index.json"), os.Symlink("/etc/passwd", dir+"/index.json"))
		}, "index.json"},
		{"a named pipe as index", func(dir string) error {
			return errors.Join(os.Remove(dir+"/index.json"), mkfifo(dir+"/index.json"))
		}, "index.json is no regular file"},
		{"a named pipe as blob", func(dir string) error {
			blobs, err := filepath.Glob(dir + "/blobs/sha256/*")
			for _, b := range blobs {
				err = errors.Join(err, os.Remove(b), mkfifo(b))
			}
			return err
		}, "is no regular file"},
		{"a digest without its algorithm", func(dir string) error {
			return rewrite(dir+"/index.json", `"digest":"sha256:`, `"digest":"`)
		}, "descriptor: digest"},
		{"a digest in another spelling", func(dir string) error {
			return os.WriteFile(dir+"/index.json", fmt.Appendf(nil, `{"manifests":[{"mediaType":%q,"digest":%q}]}`,
				v1.MediaTypeImageManifest, digest.Of(nil).SRI()), 0o644)
		}, "is not written as sha256:e3b0c442"},
		{"a digest that leads out", func(dir string) error {
			return rewrite(dir+"/index.json", `"digest":"sha256:`, `"digest":"sha256:../../`)
		}, "descriptor"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "image")
			want, err := image.WriteLayout(t.Context(), dir, tree)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.harm(dir); err != nil {
				t.Fatal(err)
			}
			got, err := artifact.LayoutDigest(dir)
			if c.err == "" && (err != nil || got != want) {
				t.Errorf("got %s, %v; want %s", got, err, want)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got %v, want %q", err, c.err)
			}
		})
	}
}

func rewrite(path, from, to string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, bytes.Replace(data, []byte(from), []byte(to), 1), 0o644)
}

// changeBlob changes the byte at offset of the largest blob, or appends one.
func changeBlob(dir string, offset int64, b byte) error {
	entries, err := os.ReadDir(dir + "/blobs/sha256")
	if err != nil {
		return err
	}
	largest, size := "", int64(0)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Size() > size {
			largest, size = e.Name(), info.Size()
		}
	}
	if offset < 0 {
		offset = size
	}
	f, err := os.OpenFile(filepath.Join(dir, "blobs/sha256", largest), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{b}, offset)
	return errors.Join(err, f.Close())
}
