package tests

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"arch.network/attest"
)

// world is who takes part in the tests of the examples: the compiled program, and people who run it, each with a
// configuration, keys and a store of their own. All of it lies in one temporary directory.
type world struct {
	dir       string
	arch      string  // the program
	builder   *person // whose store is shared by all tests, so that the toolchain is taken in once
	rebuilder *person // another operator, whose store is empty at first
	verifier  *person // trusts the other two
}

// person is someone who runs arch.
type person struct {
	arch string
	home string
	env  []string
	cred *syscall.Credential // nil: who runs the test
}

// newWorld compiles the program and lets everybody make a key.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	t.Cleanup(func() { makeWritable(w.dir) }) // trees in a store are not
	openUp(t, w.dir)
	w.arch = filepath.Join(w.dir, "arch")
	command(t, "..", append(os.Environ(), "CGO_ENABLED=0"), "go", "build", "-trimpath", "-o", w.arch, "./cmd/arch")
	w.builder, w.rebuilder, w.verifier = w.person(t, "builder"), w.person(t, "rebuilder"), w.person(t, "verifier")
	w.verifier.trust(t, w.builder, "builder", "a.example")
	w.verifier.trust(t, w.rebuilder, "rebuilder", "b.example")
	w.probe(t)
	return w
}

// openUp lets other users pass through dir, as far as we made the way to it.
func openUp(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func makeWritable(dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o755)
		}
		return nil
	})
}

// person lets someone new take part.
func (w *world) person(t *testing.T, name string) *person {
	t.Helper()
	p := &person{arch: w.arch, home: filepath.Join(w.dir, name)}
	if err := os.Mkdir(p.home, 0o755); err != nil {
		t.Fatal(err)
	}
	p.env = append(settings(t, "GOPROXY", "GOSUMDB", "GOMODCACHE"), "HOME="+p.home)
	p.run(t, "key", "new")
	return p
}

// settings are what a person takes over from the host: how the network is reached, and what Go knows already.
func settings(t *testing.T, fromGo ...string) []string {
	t.Helper()
	var env []string
	for _, name := range []string{"PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	for _, name := range fromGo {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(out)))
	}
	return env
}

// probe builds something that takes no time and no network, and skips the test where the host refuses confinement.
func (w *world) probe(t *testing.T) {
	t.Helper()
	const doc = `apiVersion: arch.network/v1
kind: Build
metadata: {name: probe}
spec:
  platform: linux/amd64
  sourceDateEpoch: 0
  inputs: [{name: arch, path: arch, mount: /arch}]
  steps: [{argv: [/arch, key, new, /build/key]}]
  outputs: [{name: key, path: /build/key, type: file}]
`
	file := filepath.Join(w.dir, "probe.yaml")
	if err := os.WriteFile(file, []byte(doc), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := w.builder.try(t, "build", "--out", filepath.Join(w.dir, "probe"), file); got.status == 1 {
		t.Skip("cannot run here: the host refuses the confinement of builds: " + got.message(t))
	} else if got.status != 0 {
		t.Fatalf("the simplest build there is ended with %d: %s", got.status, got.stderr)
	}
}

// outcome is what a run of the program left.
type outcome struct {
	stdout, stderr string
	status         int
}

// message returns the error that the program reported.
func (o outcome) message(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(o.stderr) {
		var report struct {
			Error struct{ Message, Hint string }
		}
		if json.Unmarshal([]byte(line), &report) == nil && report.Error.Message != "" {
			return report.Error.Message
		}
	}
	t.Fatalf("the program reported no error:\n%s", o.stderr)
	return ""
}

// try runs the program with --json.
func (p *person) try(t *testing.T, args ...string) outcome {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.arch, append([]string{"--json"}, args...)...)
	cmd.Dir, cmd.Env = p.home, p.env
	// If the test is ended by its time limit, the program is to end too, and to leave nothing behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred, Pdeathsig: syscall.SIGTERM}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// run is try that must succeed. It returns what was printed.
func (p *person) run(t *testing.T, args ...string) string {
	t.Helper()
	got := p.try(t, args...)
	if got.status != 0 {
		t.Fatalf("arch %s: exit status %d\n%s%s", strings.Join(args, " "), got.status, got.stdout, got.stderr)
	}
	return got.stdout
}

// key returns the did:key of p.
func (p *person) key(t *testing.T) string {
	t.Helper()
	var shown struct{ Key string }
	decode(t, p.run(t, "key", "show"), &shown)
	return shown.Key
}

// trust has p trust another one's key.
func (p *person) trust(t *testing.T, other *person, name, operator string) {
	t.Helper()
	p.run(t, "trust", "add", other.key(t), "--name", name, "--operator", operator)
}

// built is what arch build prints.
type built struct {
	Name    string
	Cached  bool
	Receipt string
	Claim   string
	Outputs []struct {
		Name, Path, SHA256, OCI string
	}
	Varied, Unvaried, Degraded []string
}

// build builds a manifest into a new directory.
func (p *person) build(t *testing.T, manifest string, flags ...string) built {
	t.Helper()
	var b built
	decode(t, p.run(t, append([]string{"build", "--attest", "--out", t.TempDir(), manifest}, flags...)...), &b)
	if b.Cached || len(b.Degraded) > 0 {
		t.Errorf("%s: cached %v, not enforced %q; want a fresh build in full confinement", b.Name, b.Cached, b.Degraded)
	}
	return b
}

// path returns where an output was delivered.
func (b built) path(t *testing.T, name string) string {
	t.Helper()
	for _, out := range b.Outputs {
		if out.Name == name {
			return out.Path
		}
	}
	t.Fatalf("%s has no output %q", b.Name, name)
	return ""
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// agree has the verifier demand that two operators made an artifact, and returns the levels that the summary claims.
func (w *world) agree(t *testing.T, artifact string, receipts ...string) []string {
	t.Helper()
	var flags []string
	for _, r := range receipts {
		flags = append(flags, "--receipts", r)
	}
	return w.agreeing(t, 2, artifact, flags...)
}

// agreeing is agree for a number of operators, with flags of the verification.
func (w *world) agreeing(t *testing.T, operators int, artifact string, flags ...string) []string {
	t.Helper()
	summary, k := filepath.Join(t.TempDir(), "summary.vsa.intoto.jsonl"), strconv.Itoa(operators)
	args := append([]string{"verify", artifact, "-k", k, "--operators", k, "--vsa", summary}, flags...)
	w.verifier.run(t, args...)
	file, err := os.Open(summary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	receipt, err := attest.ReadReceipt(file)
	if err != nil || len(receipt.Summaries) != 1 {
		t.Fatalf("read summary: %v, %d summaries", err, len(receipt.Summaries))
	}
	stmt, err := attest.ParseStatement(receipt.Summaries[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	vsa, err := stmt.VSA()
	if err != nil {
		t.Fatal(err)
	}
	return vsa.VerifiedLevels
}

// reproduce gives p nothing but a receipt, and returns what p signed.
func (p *person) reproduce(t *testing.T, receipt string, flags ...string) string {
	t.Helper()
	data, err := os.ReadFile(receipt)
	if err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(p.home, filepath.Base(receipt))
	if err := os.WriteFile(alone, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if p.cred != nil {
		if err := os.Chown(alone, int(p.cred.Uid), int(p.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	var got struct{ State, Receipt string }
	decode(t, p.run(t, append([]string{"rebuild", alone}, flags...)...), &got)
	if got.State != "reproduced" {
		t.Errorf("rebuild of %s: %q, want reproduced", filepath.Base(receipt), got.State)
	}
	return got.Receipt
}

// command runs another program than arch and returns what it printed.
func command(t *testing.T, dir string, env []string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.String())
	}
	return string(out)
}

// needServer skips the test where a server cannot be reached.
func needServer(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Skip("cannot run here: no network: " + err.Error())
	}
	resp.Body.Close()
	if resp.StatusCode >= 500 {
		t.Skipf("cannot run here: %s: %s", url, resp.Status)
	}
}

// needModules skips the test where no module proxy can be reached.
func needModules(t *testing.T) {
	t.Helper()
	out, err := exec.Command("go", "env", "GOPROXY").Output()
	if err != nil {
		t.Fatal(err)
	}
	proxy, _, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(string(out)), "|", ","), ",")
	if proxy = cmp.Or(proxy, "https://proxy.golang.org"); strings.HasPrefix(proxy, "http") {
		needServer(t, proxy+"/golang.org/x/mod/@v/v0.42.0.info")
	}
}
