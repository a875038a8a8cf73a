package builder_test

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/artifact"
)

// messy is a build of one odd tree, made in the given order, in every form.
func messy(order string) *manifest.Build {
	doc := demo(step("mess", "/build/tree", order))
	doc.Spec.Outputs = []manifest.BuildOutput{
		{Name: "tree", Path: "/build/tree", Type: manifest.OutputTree},
		{Name: "tree.tar", Path: "/build/tree", Type: manifest.OutputTar},
		{Name: "image", Path: "/build/tree", Type: manifest.OutputOCI, Image: &manifest.BuildImage{
			Entrypoint: []string{"/tool"}, Env: map[string]string{"B": "2", "A": "1"}, User: "65532:65532", WorkingDir: "/sub",
		}},
	}
	return doc
}

// messEntries is what is left of the odd tree in its normal form.
var messEntries = []string{
	"-rw-r--r-- hard", "-rw-r--r-- plain", "-rw-r--r-- sub/a name with spaces and \xff", "-rw-r--r-- sub/deep/file",
	"-rwxr-xr-x setuid", "-rwxr-xr-x tool", "Lrwxrwxrwx dangling -> /nowhere/at all", "Lrwxrwxrwx link -> plain",
	"drwxr-xr-x empty", "drwxr-xr-x sub", "drwxr-xr-x sub/deep",
}

func TestOutputsAreNormal(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	up, down := w.mustBuild(t, messy("up"), base), w.mustBuild(t, messy("down"), base)
	if up.ID == down.ID {
		t.Fatal("both builds are the same")
	}
	ignorePath := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Path" }, cmp.Ignore())
	if diff := cmp.Diff(up.Record.Outputs, down.Record.Outputs, ignorePath); diff != "" {
		t.Errorf("the order in which a tree was made shows (-up +down):\n%s", diff)
	}
	outs := up.Record.Outputs
	if outs[0].NAR != outs[1].NAR || outs[0].Tar != outs[2].Tar {
		t.Errorf("the same tree has other digests in another form: %+v", outs)
	}
	result := filepath.Join(w.dir, "result")
	if _, err := w.builder.Deliver(t.Context(), up, result); err != nil {
		t.Fatal(err)
	}
	epoch := time.Unix(up.Manifest.Spec.SourceDateEpoch, 0)
	t.Run("tree", func(t *testing.T) {
		if diff := cmp.Diff(messEntries, treeEntries(t, filepath.Join(result, "tree"), epoch), sorted); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("tar", func(t *testing.T) {
		if diff := cmp.Diff(messEntries, tarEntries(t, filepath.Join(result, "tree.tar"), epoch), sorted); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("gnu tar", func(t *testing.T) { checkGNUTar(t, filepath.Join(result, "tree.tar"), epoch) })
	t.Run("image", func(t *testing.T) { checkImage(t, filepath.Join(result, "image"), outs[2]) })
}

var sorted = cmp.Transformer("sort", func(in []string) map[string]int {
	set := map[string]int{}
	for _, s := range in {
		set[s]++
	}
	return set
})

func treeEntries(t *testing.T, dir string, epoch time.Time) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line := info.Mode().String() + " " + rel
		if d.Type() == fs.ModeSymlink {
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		if !info.ModTime().Equal(epoch) {
			t.Errorf("%s has the time %s, not %s", rel, info.ModTime(), epoch)
		}
		list = append(list, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func tarEntries(t *testing.T, path string, epoch time.Time) (list []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		line := h.FileInfo().Mode().String() + " " + strings.TrimSuffix(h.Name, "/")
		if h.Typeflag == tar.TypeSymlink {
			line += " -> " + h.Linkname
		}
		if !h.ModTime.Equal(epoch) || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s: time %s, owner %d:%d %q:%q", h.Name, h.ModTime, h.Uid, h.Gid, h.Uname, h.Gname)
		}
		list = append(list, line)
	}
}

// checkGNUTar unpacks with another program and compares.
func checkGNUTar(t *testing.T, path string, epoch time.Time) {
	program, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("cannot run here: there is no tar program")
	}
	dir := t.TempDir()
	if out, err := exec.Command(program, "-x", "-p", "-f", path, "-C", dir).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	if diff := cmp.Diff(messEntries, treeEntries(t, dir, epoch), sorted); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// checkImage reads the layout with another library.
func checkImage(t *testing.T, dir string, out builder.Output) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Fast, since without it the library takes every layer for gzip, whatever its media type says; its content is
	// compared below.
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Error(err)
	}
	list, err := index.IndexManifest()
	if err != nil || len(list.Manifests) != 1 || list.Manifests[0].Digest.String() != out.OCI.String() {
		t.Fatalf("the layout names %+v, not %s alone (%v)", list.Manifests, out.OCI, err)
	}
	image, err := index.Image(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(image, validate.Fast); err != nil {
		t.Error(err)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	if d, err := layers[0].DiffID(); err != nil || d.String() != out.Tar.String() {
		t.Errorf("the layer is %s (%v), not the tar %s", d, err, out.Tar)
	}
	if content, err := layers[0].Uncompressed(); err != nil {
		t.Error(err)
	} else if d, size, err := digest.OfReader(content); err != nil || d != out.Tar {
		t.Errorf("the layer's %d bytes have the digest %s (%v), not %s", size, d, err, out.Tar)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	got := []any{config.Config.Entrypoint, config.Config.Env, config.Config.User, config.Config.WorkingDir, config.Created.Unix()}
	want := []any{[]string{"/tool"}, []string{"A=1", "B=2"}, "65532:65532", "/sub", int64(1767225600)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	if d, err := artifact.LayoutDigest(dir); err != nil || d != out.OCI {
		t.Errorf("LayoutDigest: %s, %v; want %s", d, err, out.OCI)
	}
}

func TestWrongOutputs(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	for _, c := range []struct {
		name  string
		typ   manifest.OutputType
		steps [][]string
		err   string
		hint  string
	}{
		{"missing", manifest.OutputFile, [][]string{step("print", "/build/elsewhere", "x")}, "/build/out: no such file", "only listed inputs exist"},
		{"a directory for a file", manifest.OutputFile, [][]string{step("mkdir", out)}, `/build/out is a directory, but its type is "file"`, `"tree", "tar" or "oci"`},
		{"a file for a tree", manifest.OutputTree, [][]string{step("print", out, "x")}, `/build/out is a regular file, but its type is "tree"`, `"file"`},
		{"a file for a tar", manifest.OutputTar, [][]string{step("print", out, "x")}, `its type is "tar"`, `"file"`},
		{"a file for an image", manifest.OutputOCI, [][]string{step("print", out, "x")}, `its type is "oci"`, `"file"`},
		{"no module", manifest.OutputWasm, [][]string{step("print", out, "x")}, "no WebAssembly module: it starts with 78, not 0061736d01000000", "arch log"},
		{"a socket", manifest.OutputTree, [][]string{step("socket", out)}, "output out: ", "arch log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			doc := demo(c.steps...)
			doc.Spec.Outputs[0].Type = c.typ
			_, err := w.build(t, doc, base)
			e, ok := asBuildError(err)
			if !ok {
				t.Fatalf("got %v (%T), want a BuildError", err, err)
			}
			if !strings.Contains(e.Error(), c.err) || !strings.HasPrefix(e.Error(), "build demo: ") {
				t.Errorf("error %q does not tell of %q", e, c.err)
			}
			if !strings.Contains(e.Hint(), c.hint) {
				t.Errorf("hint %q does not tell of %q", e.Hint(), c.hint)
			}
			t.Log(e)
		})
	}
}

func TestWasmOutput(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	if err := os.WriteFile(filepath.Join(base, "notes"), []byte("\x00asm\x01\x00\x00\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	doc := demo(step("cat", "/notes", out))
	doc.Spec.Inputs = append(doc.Spec.Inputs, manifest.BuildInput{Name: "notes", Path: "notes", Mount: "/notes"})
	doc.Spec.Outputs[0].Type = manifest.OutputWasm
	w.mustBuild(t, doc, base)
}

func TestDeliverReplaces(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	file := demo(step("print", out, "a file"))
	tree := demo(step("print", out+"/inner", "a tree"))
	tree.Spec.Outputs[0].Type = manifest.OutputTree
	result := filepath.Join(w.dir, "result")
	path := filepath.Join(result, "out")
	inner := filepath.Join(path, "inner")
	for i, c := range []struct {
		doc  *manifest.Build
		file string
		want string
	}{{file, path, "a file"}, {file, path, "a file"}, {tree, inner, "a tree"}, {tree, inner, "a tree"}, {file, path, "a file"}} {
		if _, err := w.builder.Deliver(t.Context(), w.mustBuild(t, c.doc, base), result); err != nil {
			t.Fatalf("delivery %d: %v", i, err)
		}
		if data, err := os.ReadFile(c.file); err != nil || string(data) != c.want {
			t.Errorf("delivery %d: got %q, %v", i, data, err)
		}
		w.check(t)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", path); err != nil { // what a link leads to is not touched
		t.Fatal(err)
	}
	if _, err := w.builder.Deliver(t.Context(), w.mustBuild(t, file, base), result); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		t.Errorf("got %v, %v", info, err)
	}
}

// A store whose tree was changed delivers nothing.
func TestDeliverFromDamagedStore(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := messy("up")
	made := w.mustBuild(t, doc, base)
	file := filepath.Join(made.Record.Outputs[0].Path, "plain")
	damage := func(text string) {
		if err := errors.Join(os.Chmod(file, 0o644), os.WriteFile(file, []byte(text), 0o644), os.Chmod(file, 0o444)); err != nil {
			t.Fatal(err)
		}
	}
	damage("other content")
	defer damage("content of plain")
	for i, form := range []string{"NAR", "tar", "image"} {
		one := *made
		manifestOf := *made.Manifest
		one.Manifest = &manifestOf
		one.Record.Outputs = made.Record.Outputs[i : i+1]
		one.Manifest.Spec.Outputs = made.Manifest.Spec.Outputs[i : i+1]
		_, err := w.builder.Deliver(t.Context(), &one, filepath.Join(w.dir, "result"))
		damaged, ok := errors.AsType[*builder.DamagedError](err)
		if !ok || damaged.Form != form {
			t.Errorf("%s: got %v", form, err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(w.dir, "result")); len(left) > 0 {
		t.Errorf("delivered: %v", left)
	}
}
