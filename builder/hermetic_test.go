package builder_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/manifest"
	"arch.network/builder"
)

// Every input that a build needs is in its list: without any one of them it fails, or is another build. Nothing else is
// needed, since nothing else is there.
func TestEveryInputCounts(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	full := demo(step("cat", "/build/src", "/data/notes", "/build/copy", out))
	full.Spec.Inputs = append(full.Spec.Inputs,
		manifest.BuildInput{Name: "notes", Path: "notes", Mount: "/data/notes"},
		manifest.BuildInput{Name: "copy", Path: "src", Mount: "/build/copy", Writable: true},
		manifest.BuildInput{Name: "unused", Path: "notes", Mount: "/unused"},
	)
	whole := claimBytes(t, w.attest(t, w.mustBuild(t, full, base)))
	for i, in := range full.Spec.Inputs {
		t.Run("without "+in.Name, func(t *testing.T) {
			less := *full
			less.Spec.Inputs = slices.Delete(slices.Clone(full.Spec.Inputs), i, i+1)
			made, err := w.build(t, &less, base)
			if in.Name != "unused" {
				if _, ok := asBuildError(err); !ok {
					t.Fatalf("got %v, want a BuildError", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if claimBytes(t, w.attest(t, made)) == whole {
				t.Error("the claim is the same without an input")
			}
		})
	}
}

// A change of any one byte of any input gives another claim.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := demo(step("cat", "/build/src", out))
	first := w.mustBuild(t, doc, base)
	if err := os.WriteFile(filepath.Join(base, "src", "b"), []byte("Source b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	second := w.mustBuild(t, doc, base)
	if second.Cached || first.ID == second.ID {
		t.Errorf("a changed source is the same build %s (cached: %t)", second.ID, second.Cached)
	}
	if got, want := output(t, second, "out"), "source a\nSource b\nsource c\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnlistedDoesNotExist(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := demo(
		step("absent", "/etc/passwd", "/etc", "/usr", "/root", "/home", "/bin", "/lib", "/lib64", "/sys", "/run", "/var", "/nix",
			w.dir, w.store.Dir(), base, shared),
		step("print", out, "done"),
	)
	w.mustBuild(t, doc, base)
}

// The file system of a build holds the listed inputs, its two private file systems, and what the runner makes: nothing else.
func TestMountedIsListed(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := demo(step("world", out))
	doc.Spec.Inputs = append(doc.Spec.Inputs,
		manifest.BuildInput{Name: "notes", Path: "notes", Mount: "/data/deep/notes"},
		manifest.BuildInput{Name: "copy", Path: "src", Mount: "/build/copy", Writable: true},
	)
	made := w.mustBuild(t, doc, base)
	var mounts, paths []string
	for line := range strings.Lines(output(t, made, "out")) {
		kind, path, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch {
		case kind == "path":
			paths = append(paths, path)
		case path != "/dev" && !strings.HasPrefix(path, "/dev/") && path != "/proc" && !strings.HasPrefix(path, "/proc/"):
			mounts = append(mounts, path)
		}
	}
	wantMounts := []string{"/", "/build", "/build/src", "/data/deep/notes", "/tmp", "/tool"}
	if diff := cmp.Diff(wantMounts, mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(listedPaths(t, made), paths); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

// listedPaths derives from the manifest and the inputs alone what exists.
func listedPaths(t *testing.T, made *builder.Made) []string {
	t.Helper()
	exists := map[string]bool{"/": true}
	add := func(path string) {
		for ; path != "/"; path = filepath.Dir(path) {
			exists[path] = true
		}
	}
	add("/build")
	add("/tmp")
	for _, in := range made.Manifest.Spec.Inputs {
		root := made.Inputs[in.Name].Path
		err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
			add(in.Mount + strings.TrimPrefix(p, root))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var list []string
	for path := range exists {
		list = append(list, path)
	}
	slices.Sort(list)
	return list
}

func TestNoNetworkAndFixedEnvironment(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	for _, c := range []struct{ property, want string }{
		{"path", "/build"},
		{"uid", "1000"},
		{"hostname", "localhost"},
		{"locale", "C"},
		{"tz", "UTC"},
		{"umask", "0022"},
		{"order", "c b a"}, // a tmpfs lists what was made last first: created in name order
	} {
		t.Run(c.property, func(t *testing.T) {
			doc := demo(step("leak", c.property, out))
			doc.Spec.Inputs[1].Writable = true
			if got := output(t, w.mustBuild(t, doc, base), "out"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestWritableInputIsACopy(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := demo(step("print", "/build/src/a", "changed"), step("cat", "/build/src", out))
	if _, err := w.build(t, doc, base); err == nil {
		t.Error("a read-only input was written")
	}
	doc.Spec.Inputs[1].Writable = true
	for i := range 2 {
		doc.Metadata.Name = fmt.Sprintf("demo%d", i)
		if got, want := output(t, w.mustBuild(t, doc, base), "out"), "changedsource b\nsource c\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
