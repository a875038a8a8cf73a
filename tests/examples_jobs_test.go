package tests

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestExampleJobs runs every example job as its first comment says, once the builds that it names are made.
func TestExampleJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("cannot run here: the examples take minutes, and -short was given")
	}
	w := newWorld(t)
	p := w.builder
	t.Run("wordcount", func(t *testing.T) { testWordcount(t, w) })
	t.Run("c-hello-wasm", func(t *testing.T) {
		got := p.job(t, "c-hello-wasm")
		want := []string{"hello, world\n", "HOME is not set\n", "it is 1767225600\n", "random 731743d0cc913fb5\n"}
		if diff := cmp.Diff(want, got.printed); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	t.Run("modules", func(t *testing.T) { testModules(t, p) })
	t.Run("go-wasm", func(t *testing.T) { testGoWasm(t, p) })
	t.Run("busybox", func(t *testing.T) { testBusybox(t, p) })
}

// TestExampleJobsListed wants each job in the README of the examples, with a comment that begins with what it shows and
// holds the command that runs it.
func TestExampleJobsListed(t *testing.T) {
	readme, err := os.ReadFile("examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := filepath.Glob("examples/jobs/*.yaml")
	if err != nil || len(jobs) < 5 {
		t.Fatalf("%d jobs: %v", len(jobs), err)
	}
	for _, path := range jobs {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		if !bytes.Contains(readme, []byte("| `"+name+"` |")) {
			t.Errorf("job %s is not in the README of the examples", name)
		}
		text, err := os.ReadFile(path)
		if err != nil || !bytes.HasPrefix(text, []byte("# ")) || !bytes.Contains(text, []byte("#   arch run tests/"+path+"\n")) {
			t.Errorf("%s does not begin with a comment that says how it is run: %v", path, err)
		}
	}
}

// jobRun is what arch run tells.
type jobRun struct {
	Reason, Engine, Result, Receipt string
	Exit                            int
	Reproducible                    bool
	Outputs                         []struct{ Name, Path, SHA256 string }
	Usage                           struct{ Gas uint64 }
	Confinement                     struct{ Missing []string }

	printed []string // what the job wrote to stdout, by lines
}

// job runs an example and wants it to succeed in full confinement.
func (p *person) job(t *testing.T, name string, flags ...string) jobRun {
	t.Helper()
	args := append([]string{"run", "--attest", "--out", filepath.Join(p.home, "outputs", name)}, flags...)
	got := p.try(t, append(args, example(t, "jobs/"+name+".yaml"))...)
	if got.status != 0 {
		t.Fatalf("job %s: exit status %d\n%s%s", name, got.status, got.stdout, got.stderr)
	}
	var run jobRun
	decode(t, got.stdout, &run)
	for line := range strings.Lines(got.stderr) {
		var said struct{ Stdout string }
		if json.Unmarshal([]byte(line), &said) == nil && said.Stdout != "" {
			run.printed = append(run.printed, said.Stdout)
		}
	}
	run.Confinement.Missing = slices.DeleteFunc(run.Confinement.Missing, func(m string) bool {
		return strings.HasPrefix(m, "cpu:") || strings.HasPrefix(m, "refused-syscalls:") // an ordinary user has no controller
	})
	if run.Reason != "exit" || run.Exit != 0 || len(run.Confinement.Missing) > 0 {
		t.Errorf("job %s: %s %d, not enforced: %q", name, run.Reason, run.Exit, run.Confinement.Missing)
	}
	if _, err := os.Stat(filepath.Join(p.home, run.Receipt)); err != nil {
		if _, err := os.Stat(run.Receipt); err != nil {
			t.Errorf("job %s left no receipt: %v", name, err)
		}
	}
	return run
}

// output returns the text of an output.
func (r jobRun) output(t *testing.T, name string) string {
	t.Helper()
	for _, o := range r.Outputs {
		if o.Name == name {
			data, err := os.ReadFile(o.Path)
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
	}
	t.Fatalf("there is no output %q", name)
	return ""
}

// testWordcount has two people run the same document: they get the same statement, gas included.
func testWordcount(t *testing.T, w *world) {
	one, two := w.builder.job(t, "wordcount"), w.rebuilder.job(t, "wordcount", "--interpret")
	if one.Result == "" || one.Result != two.Result || one.Usage.Gas != two.Usage.Gas || one.Usage.Gas == 0 {
		t.Errorf("two results: %s with %d gas by %s, %s with %d gas by %s", one.Result, one.Usage.Gas, one.Engine, two.Result, two.Usage.Gas, two.Engine)
	}
	if !one.Reproducible {
		t.Error("a module with nothing real is not called reproducible")
	}
	if got := one.output(t, "counts"); !strings.HasPrefix(got, "4 and\n2 are\n2 in\n") {
		t.Errorf("counts: %q", got)
	}
	if diff := cmp.Diff([]string{"30 words, 25 different\n"}, one.printed); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// testModules makes the modules that lie beside the documents.
func testModules(t *testing.T, p *person) {
	needServer(t, "https://deb.debian.org/debian/")
	made := p.build(t, example(t, "jobs/modules"))
	for _, name := range []string{"wordcount.wasm", "c-hello.wasm"} {
		if want, got := sum(t, example(t, "jobs/"+name)), sum(t, made.path(t, name)); want != got {
			t.Errorf("%s: built %s, but %s lies beside the document", name, got, want)
		}
	}
}

func testGoWasm(t *testing.T, p *person) {
	needModules(t)
	p.build(t, example(t, "jobs/go-wasm"), "--once")
	got := p.job(t, "go-wasm").output(t, "summary.json")
	const want = `{"lines":2,"bytes":171,"sha256":"95b7af97d4eca78cf41422a4366078d5ba4f981d24357e039f7d56bf9cb3c1c1","at":"2026-01-01"}` + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// testBusybox runs one program as a container image and as a store path.
func testBusybox(t *testing.T, p *person) {
	needServer(t, "https://deb.debian.org/debian/")
	p.run(t, "build", example(t, "jobs/busybox")) // into ./result, where run looks
	sorted := p.job(t, "oci-sort").output(t, "sorted")
	if !strings.HasPrefix(sorted, "They are endowed") || strings.Count(sorted, "\n") != 2 {
		t.Errorf("sorted: %q", sorted)
	}
	closure := p.job(t, "nix-closure")
	if len(closure.printed) != 2 || closure.printed[0] != ".sthgir dna ytingid ni lauqe dna eerf nrob era sgnieb namuh llA\n" {
		t.Errorf("reversed: %q", closure.printed)
	}
	if closure.Reproducible || closure.Engine != "native" {
		t.Errorf("a native program: reproducible %v, engine %q", closure.Reproducible, closure.Engine)
	}
}
