package nix

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/tests/guest"
)

// programs are what the package holds.
var programs = []string{"arch", "arch-node-agent", "arch-runnerd"}

// TestFlake checks, builds and runs the flake, and compares what it makes with what Go makes alone.
func TestFlake(t *testing.T) {
	if guest.Inside() != "" {
		insideNode(t)
		return
	}
	m := newMachine(t)
	manifest := archItself(t)
	trees := fetch(t, manifest)
	pins := testPins(t, manifest, trees)
	m.seed(t, "go-"+pins.Toolchain.Version, trees["go"].Path)
	m.seed(t, "arch-modules", trees["modules"].Path)

	t.Run("check", func(t *testing.T) { m.run(t, m.nix("flake", "check", "--no-build")...) })
	t.Run("outputs", func(t *testing.T) { testOutputs(t, m) })
	t.Run("source", func(t *testing.T) { testSource(t, m, trees["src"].NAR) })

	plain := plainBuild(t, manifest, m.flake)
	m.lendCache(t)
	out := m.build(t)
	for _, name := range programs {
		want, got := sum(t, filepath.Join(plain, name)), sum(t, filepath.Join(m.store(), out, "bin", name))
		if want != got {
			t.Errorf("%s: nix build made %s, go build %s", name, got, want)
		}
		t.Logf("%s %s", name, got)
	}
	share := filepath.Join(m.store(), out, "share")
	for name, args := range map[string][]string{
		"man/man1/arch.1": {"arch", "man"}, "man/man1/arch-ledger-prove.1": {"arch", "man", "ledger", "prove"},
		"man/man8/arch-node-agent.8": {"arch-node-agent", "--man"}, "man/man8/arch-runnerd.8": {"arch-runnerd", "--man"},
		"bash-completion/completions/arch": {"arch", "completion", "bash"}, "zsh/site-functions/_arch": {"arch", "completion", "zsh"},
		"fish/vendor_completions.d/arch.fish": {"arch", "completion", "fish"},
	} {
		want, err := exec.CommandContext(t.Context(), filepath.Join(plain, args[0]), args[1:]...).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(share, name)); err != nil || string(got) != string(want) {
			t.Errorf("share/%s is not what %v prints: %v", name, args, err)
		}
	}
	if t.Failed() {
		return
	}
	t.Run("node", func(t *testing.T) { testNode(t, m, filepath.Join(m.store(), out, "bin")) })
	t.Run("run", func(t *testing.T) { testRun(t, m, sum(t, filepath.Join(plain, "arch"))) })
	t.Run("rebuild", func(t *testing.T) {
		m.becomeOrdinary(t)
		m.run(t, m.nix("build", "--no-link", "--rebuild", ".#agent")...)
		testRun(t, m, sum(t, filepath.Join(plain, "arch")))
	})
}

// TestFlakeNewer has a newer Nix check the flake and evaluate it. TestExamples/arch-itself in package tests has it build the package.
func TestFlakeNewer(t *testing.T) {
	m := newerMachine(t)
	t.Run("check", func(t *testing.T) { m.run(t, m.nix("flake", "check", "--no-build")...) })
	t.Run("outputs", func(t *testing.T) { testOutputs(t, m) })
	t.Run("package", func(t *testing.T) {
		here := newMachine(t)
		older, newer := here.run(t, here.nix("eval", "--raw", ".#arch.drvPath")...), m.run(t, m.nix("eval", "--raw", ".#arch.drvPath")...)
		if older != newer {
			t.Errorf("the package is %s here, and %s by the newer Nix", older, newer)
		}
	})
}

// pins is nix/pins.json.
type pins struct {
	Toolchain struct {
		Version string            `json:"version"`
		Hashes  map[string]string `json:"hashes"` // of the GOROOT, by GOOS-GOARCH
	} `json:"toolchain"`
	Modules string `json:"modules"` // of the module cache
}

// archItself is the example that builds this repository.
func archItself(t *testing.T) *manifest.Build {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "tests/examples/arch-itself/build.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := manifest.ReadYAML(data)
	if err != nil {
		t.Fatal(err)
	}
	return doc.(*manifest.Build)
}

// fetch gets the inputs of a build as `arch build` does.
func fetch(t *testing.T, b *manifest.Build) map[string]source.Tree {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { makeWritable(dir) })
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f := &source.Fetcher{Store: s, GoModCache: goEnv(t, "GOMODCACHE"), GoProxy: goEnv(t, "GOPROXY"), Toolchains: []string{goEnv(t, "GOROOT")}}
	trees, err := f.FetchAll(t.Context(), b.Spec.Inputs, filepath.Join(root, "tests/examples/arch-itself"))
	if err != nil {
		t.Fatal(err)
	}
	return trees
}

// testPins wants the flake to pin what the example's receipt names.
func testPins(t *testing.T, b *manifest.Build, trees map[string]source.Tree) pins {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "nix/pins.json"))
	if err != nil {
		t.Fatal(err)
	}
	var p pins
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	p.Toolchain.Hashes["linux-amd64"] = trees["go"].NAR.SRI()
	p.Modules = trees["modules"].NAR.SRI()
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "nix/pins.json", append(text, '\n'))
	if want := "golang.org/toolchain@v0.0.1-go" + p.Toolchain.Version + ".linux-amd64#"; !strings.Contains(b.Spec.Inputs[0].Ref.String(), want) {
		t.Errorf("nix/pins.json has the toolchain %s, the example %s", p.Toolchain.Version, b.Spec.Inputs[0].Ref)
	}
	return p
}

// seed puts a tree into the store, as if it had been fetched.
func (m *machine) seed(t *testing.T, name, path string) {
	t.Helper()
	m.run(t, "nix", "store", "add-path", "--store", m.store(), "--name", name, path)
}

// testOutputs holds the flake to its outputs.
func testOutputs(t *testing.T, m *machine) {
	var got map[string]any
	if err := json.Unmarshal([]byte(m.run(t, m.nix("flake", "show", "--json")...)), &got); err != nil {
		t.Fatal(err)
	}
	for output, want := range map[string]string{
		"packages": "agent arch default runnerd", "apps": "agent arch default runnerd", "checks": "package vm", "devShells": "default",
	} {
		for _, system := range []string{"x86_64-linux", "aarch64-linux"} {
			names, _ := got[output].(map[string]any)[system].(map[string]any)
			for name := range strings.FieldsSeq(want) {
				if names[name] == nil {
					t.Errorf("the flake has no %s.%s.%s", output, system, name)
				}
			}
		}
	}
	for _, output := range []string{"formatter", "nixosConfigurations", "nixosModules", "overlays"} {
		if got[output] == nil {
			t.Errorf("the flake has no %s", output)
		}
	}
}

// testSource wants the package's source to be the tree that the receipt of the example names.
func testSource(t *testing.T, m *machine, want digest.SHA256) {
	path := m.run(t, m.nix("eval", "--raw", ".#arch.src")...)
	got, _, err := nar.Hash(t.Context(), filepath.Join(m.store(), path), nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("the source of the package is %s, that of the example %s", got.SRI(), want.SRI())
	}
}

// plainBuild compiles the repository with nothing but Go and the settings of the example, and returns the directory of the programs.
func plainBuild(t *testing.T, b *manifest.Build, repository string) string {
	t.Helper()
	out := t.TempDir()
	argv := append([]string{}, b.Spec.Steps[0].Argv...)
	for i := range argv {
		if argv[i] == "-o" {
			argv[i+1] = out + "/"
		}
	}
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	for name, value := range b.Spec.Env {
		if name != "GOMODCACHE" && name != "GOCACHE" { // directories of the example
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	return out
}

// lendCache lets builds read Go's cache of compiled packages, which is by content: compiling everything takes minutes. The plain build of
// before has filled it, and programs are linked in any case. That nothing at all is needed beside the inputs, the example shows.
func (m *machine) lendCache(t *testing.T) {
	t.Helper()
	m.sandbox = []string{"--option", "extra-sandbox-paths", "/build-cache/go-build=" + goEnv(t, "GOCACHE")}
}

// build builds the package and returns its path in the store.
func (m *machine) build(t *testing.T) string {
	t.Helper()
	var built []struct{ Outputs map[string]string }
	if err := json.Unmarshal([]byte(m.run(t, m.nix("build", "--no-link", "--json", ".#arch")...)), &built); err != nil {
		t.Fatal(err)
	}
	return built[0].Outputs["out"]
}

// testRun starts the agent with nothing configured, and stops it; and has arch, which has this sum, say what it is.
func testRun(t *testing.T, m *machine, arch digest.SHA256) {
	cmd := m.command(t, m.nix("run", ".#agent", "--", "--state", filepath.Join(m.dir, "node"), "--socket", filepath.Join(m.dir, "node/socket"))...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		log.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "to talk to this node") {
			cmd.Process.Signal(os.Interrupt)
		}
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(log.String(), "msg=stopping signal=interrupt") {
		t.Errorf("%v: %v\n%s", cmd, err, log.String())
	}
	if diff := cmp.Diff("arch 0.1.0 (go1.26.8, linux/amd64)\n  program  "+arch.String()+"\n", m.run(t, m.nix("run", ".", "--", "version")...)); diff != "" {
		t.Errorf("nix run . -- version (-want +got):\n%s", diff)
	}
}

// becomeOrdinary gives the machine to a user without any right, if root has it. Go's cache stays its owner's: the user may read it.
func (m *machine) becomeOrdinary(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	const nobody = 65534
	if err := os.Chmod(filepath.Dir(m.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lent := filepath.Join(m.dir, "cache")
	if err := os.Mkdir(lent, 0o755); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(m.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	m.prefix = []string{
		"unshare", "--mount", "sh", "-euc",
		`mount --bind "$0" "$1"; shift; exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"`, goEnv(t, "GOCACHE"), lent,
	}
	m.sandbox = []string{"--option", "extra-sandbox-paths", "/build-cache/go-build=" + lent}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func sum(t *testing.T, path string) digest.SHA256 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, _, err := digest.OfReader(f)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
