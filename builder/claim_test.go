package builder_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"arch.network/attest/manifest"
)

func setUmask(mask int) { syscall.Umask(mask) }

// runs is the number of builds that two builders in different surroundings make; batch is how many one process makes.
const (
	runs  = 50
	batch = 10
)

// Two builders that have nothing in common but the manifests and the pinned content make claims of the same bytes: they
// differ in user, umask, environment, directories, store, file times, modes and order, process, clock and key.
func TestClaimsAreEqual(t *testing.T) {
	t.Parallel()
	mine, base := newWorld(t), workbench(t)
	for start := 0; start < runs; start += batch {
		var docs []*manifest.Build
		for i := start; i < start+batch; i++ {
			docs = append(docs, varied(i))
		}
		theirs := claimsElsewhere(t, docs, start)
		for i, doc := range docs {
			r := mine.attest(t, mine.mustBuild(t, doc, base))
			if got := claimBytes(t, r); got != theirs[i] {
				t.Errorf("run %d: claims differ:\n%s\n%s", start+i, got, theirs[i])
			}
		}
	}
}

// varied is one of many small builds: with all types of outputs, and inputs of both kinds.
func varied(i int) *manifest.Build {
	doc := demo(
		step("cat", "/build/src", out),
		step("print", "/build/tree/number", fmt.Sprint(i)),
		step("mess", "/build/tree/mess", []string{"up", "down"}[i%2]),
		step("image", "/build/image"),
	)
	doc.Spec.Inputs[1].Writable = i%3 == 0
	doc.Spec.Outputs = append(doc.Spec.Outputs,
		manifest.BuildOutput{Name: "tree", Path: "/build/tree", Type: manifest.OutputTree},
		manifest.BuildOutput{Name: "tree.tar", Path: "/build/tree", Type: manifest.OutputTar},
		manifest.BuildOutput{Name: "image", Path: "/build/image", Type: manifest.OutputOCI, Image: &manifest.BuildImage{Cmd: []string{"/bin/app"}}},
	)
	return doc
}

// claimsElsewhere has another process, as another user if this one is root, build docs in a world of its own.
func claimsElsewhere(t *testing.T, docs []*manifest.Build, seed int) []string {
	t.Helper()
	dir := foreignPlace(t, seed)
	order := otherOrder{Dir: filepath.Join(dir, "world"), Base: filepath.Join(dir, "bench"), Umask: 0o27}
	for _, doc := range docs {
		form, err := manifest.Canonical(doc)
		if err != nil {
			t.Fatal(err)
		}
		order.Docs = append(order.Docs, form)
	}
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(shared, "test"))
	cmd.Dir, cmd.Stderr = order.Base, os.Stderr
	cmd.Env = []string{otherVariable + "=" + string(text), "TZ=Asia/Kathmandu", "LC_ALL=C.UTF-8", "HOME=/nonexistent"}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	data, err := cmd.Output()
	if err != nil {
		t.Fatalf("build elsewhere: %v", err)
	}
	var claims []string
	if err := json.Unmarshal(data, &claims); err != nil || len(claims) != len(docs) {
		t.Fatalf("build elsewhere: %d claims of %d, %v", len(claims), len(docs), err)
	}
	return claims
}

// nobody is the usual id of the user without rights.
const nobody = 65534

// foreignPlace makes an empty world and a workbench for the other user, whose files have odd times, modes and order.
func foreignPlace(t *testing.T, seed int) string {
	t.Helper()
	dir, err := os.MkdirTemp(shared, "other-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("chmod", "-R", "u+w", dir).Run()
		os.RemoveAll(dir)
	})
	for _, sub := range []string{"world", "bench/src"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	names := []string{"a", "b", "c"}
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		path := filepath.Join(dir, "bench/src", name)
		if err := os.WriteFile(path, []byte("source "+name+"\n"), 0o664); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(random.Int64N(2e9), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyFile(filepath.Join(dir, "bench/tool"), filepath.Join(shared, "tool")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "bench/tool"), 0o711|0o044); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := giveAway(dir); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// giveAway makes nobody the owner of everything below dir.
func giveAway(dir string) error {
	return filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, nobody, nobody)
	})
}
