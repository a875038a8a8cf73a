package guix_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest"
	"arch.network/tests/debroot"
)

// TestBuild has `arch build` let Guix build, without a network, and compares with what Guix's own commands say.
func TestBuild(t *testing.T) {
	data, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	tool := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(scratch, "arch"), "../../cmd/arch")
	tool.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := tool.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	start := func() *shop {
		m := debroot.Start(t, debroot.Options{Read: []string{data}, Write: []string{scratch}})
		m.StartGuix(t)
		return &shop{m: m, scratch: scratch, data: data}
	}
	s := start()
	s.home = "author"
	receipt := testAttested(t, s)
	t.Run("by another builder", func(t *testing.T) {
		other := *s
		other.home = "other"
		testSameClaim(t, &other, receipt)
	})
	t.Run("rebuilt", func(t *testing.T) {
		third := start()
		third.home = "third"
		third.want(t, 0, "rebuild", "--offline", "--keep", "kept", "author/graph.receipt.jsonl").has(t, `^graph: reproduced`)
		key, _, _ := strings.Cut(s.want(t, 0, "key", "show").stdout, "\n")
		third.want(t, 0, "trust", "add", "--name", "author", "--role", "builder", key)
		third.want(t, 0, "verify", "-k", "2", "--operators", "2", "kept/graph-lib", "--receipts", "author").has(t, `built by  author, operator author`)
	})
	t.Run("packages", func(t *testing.T) { testPackages(t, s) })
	t.Run("challenged", func(t *testing.T) { testChallenged(t, s, receipt) })
	t.Run("noisy", func(t *testing.T) { testNoisy(t, s) })
	t.Run("mistakes", func(t *testing.T) { testMistakes(t, s) })
}

// shop runs arch in a Debian system.
type shop struct {
	m                   *debroot.Machine
	scratch, data, home string
	env                 []string
}

// said is what a command printed.
type said struct{ stdout, stderr string }

func (s said) has(t *testing.T, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(s.stdout + s.stderr) {
			t.Errorf("no %q in\n%s%s", p, s.stdout, s.stderr)
		}
	}
}

// command runs a program in the scratch directory.
func (s *shop) command(t *testing.T, args ...string) (said, int) {
	t.Helper()
	home := filepath.Join(s.scratch, "home-"+s.home)
	line := append([]string{"env", "-C", s.scratch, "HOME=" + home, "XDG_DATA_HOME=" + home, "XDG_CONFIG_HOME=" + home, "XDG_CACHE_HOME=" + home, "ARCH_STORE=" + home + "/store"}, s.env...)
	c := s.m.Command(t.Context(), append(line, args...)...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	if c.ProcessState == nil {
		t.Fatal(err)
	}
	return said{stdout.String(), stderr.String()}, c.ProcessState.ExitCode()
}

// want runs arch, which must end with a status.
func (s *shop) want(t *testing.T, status int, args ...string) said {
	t.Helper()
	out, got := s.command(t, append([]string{"./arch"}, args...)...)
	if got != status {
		t.Fatalf("arch %v: exit status %d, want %d\n%s%s", args, got, status, out.stdout, out.stderr)
	}
	return out
}

// built is what arch build --json shows.
type built struct {
	Name, Derivation, Claim string
	Varied                  []string
	Outputs                 []struct{ Name, StorePath, NAR string }
}

func (s *shop) build(t *testing.T, args ...string) built {
	t.Helper()
	var b built
	out := s.want(t, 0, append([]string{"build", "--offline", "--attest", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out.stdout), &b); err != nil {
		t.Fatalf("%v: %s", err, out.stdout)
	}
	return b
}

// testAttested attests, and returns the claim's id.
func testAttested(t *testing.T, s *shop) built {
	b := s.build(t, "-o", "author", "--guix", s.data+"/graph.scm")
	if diff := cmp.Diff([]string{"cpus"}, b.Varied); diff != "" || b.Name != "graph" || len(b.Outputs) != 3 {
		t.Errorf("%+v (-want +got):\n%s", b, diff)
	}
	var paths []string
	for _, o := range b.Outputs {
		paths = append(paths, o.StorePath)
		out, status := s.command(t, "guix", "hash", "-S", "nar", "-f", "hex", o.StorePath)
		if want := "sha256:" + strings.TrimSpace(out.stdout); status != 0 || o.NAR != want {
			t.Errorf("%s has the hash %s; guix hash says %s%s", o.StorePath, o.NAR, out.stdout, out.stderr)
		}
	}
	if out, status := s.command(t, "guix", "build", "--check", "--no-grafts", b.Derivation); status != 0 {
		t.Errorf("guix build --check: %s", out.stderr)
	}
	out, _ := s.command(t, "guix", "build", "--no-grafts", b.Derivation)
	if diff := cmp.Diff(strings.Fields(out.stdout), paths, cmpSorted); diff != "" {
		t.Errorf("outputs (-guix +arch):\n%s", diff)
	}
	s.want(t, 0, "verify", "author/graph-doc", "--receipts", "author").has(t,
		`PASS.*built by https://arch.network/builders/guix/sandboxed/v1`, `PASS.*built from manifest sha256:.* \(graph\) with /gnu/store/.*-graph.drv`)
	testComplete(t, s, b)
	return b
}

var cmpSorted = cmp.Transformer("sorted", func(list []string) map[string]bool {
	set := map[string]bool{}
	for _, s := range list {
		set[s] = true
	}
	return set
})

// testComplete looks in the claim for everything that Guix says the derivation needs.
func testComplete(t *testing.T, s *shop, b built) {
	stmt, err := attest.ParseStatement(s.receipt(t, "author/graph.receipt.jsonl").Claims[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := stmt.Claim()
	if err != nil {
		t.Fatal(err)
	}
	listed, from := map[string]bool{}, []string{}
	for _, d := range claim.ResolvedDependencies {
		listed[d.Name] = true
		if strings.HasPrefix(d.URI, "https://") {
			from = append(from, d.URI)
		}
	}
	if diff := cmp.Diff([]string{"https://example.com/fixed", "https://example.org/fixed"}, from); diff != "" {
		t.Errorf("where the fixed output is fetched from (-want +got):\n%s", diff)
	}
	out, _ := s.command(t, "guix", "gc", "--requisites", b.Derivation)
	n := 0
	for path := range strings.FieldsSeq(out.stdout) {
		if n++; !listed[path] {
			t.Errorf("%s is not listed", path)
		}
	}
	if n < 6 {
		t.Errorf("Guix lists only %q", out)
	}
	for _, suffix := range []string{"-dep-doc", "-fixed"} { // outputs are no requisites
		found := false
		for path := range listed {
			found = found || strings.HasSuffix(path, suffix)
		}
		if !found {
			t.Errorf("no %s is listed", suffix)
		}
	}
}

// receipt reads a receipt in the scratch directory.
func (s *shop) receipt(t *testing.T, name string) *attest.Receipt {
	t.Helper()
	f, err := os.Open(filepath.Join(s.scratch, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	receipt, err := attest.ReadReceipt(f)
	if err != nil {
		t.Fatal(err)
	}
	return receipt
}

// testPackages builds packages by name and by manifest, with a Guix that is in a profile as a pulled one is, and so knows its channels.
func testPackages(t *testing.T, s *shop) {
	packages := *s
	packages.env = []string{"GUIX_PACKAGE_PATH=" + s.data + "/packages", "PATH=/tmp/profile/bin:/usr/bin:/bin"}
	if out, status := s.command(t, "sh", "-ec", "mkdir -p /tmp/profile/bin; cp "+s.data+"/profile.scm /tmp/profile/manifest; ln -s /usr/bin/guix /tmp/profile/bin/guix"); status != 0 {
		t.Fatal(out.stderr)
	}
	one := packages.build(t, "-o", "tiny", "--guix", "tiny")
	out, _ := packages.command(t, "guix", "build", "--derivations", "--no-grafts", "tiny@1.0")
	if want := strings.TrimSpace(out.stdout); one.Derivation != want {
		t.Errorf("tiny is %s; guix build says %q%s", one.Derivation, want, out.stderr)
	}
	commit := strings.Repeat("0123456789", 4)
	want := []attest.ResourceDescriptor{{
		Name: "guix", URI: "git+https://git.guix.gnu.org/guix.git@" + commit, Digest: map[string]string{"gitCommit": commit},
	}}
	if diff := cmp.Diff(want, s.builderDependencies(t, "tiny/"+one.Name+".receipt.jsonl")); diff != "" {
		t.Errorf("channels (-want +got):\n%s", diff)
	}
	timed := *s // with the machine's Guix, and another one for --channels
	timed.env = []string{"GUIX_PACKAGE_PATH=" + s.data + "/packages"}
	testChannels(t, &timed, one, want)
	packages.want(t, 0, "build", "--offline", "--attest", "--once", "-o", "both", "--guix", "-m", s.data+"/manifest.scm").has(t, `^tiny.*: built$`, `^small.*: built$`)
	packages.want(t, 0, "verify", "both/small-1.0", "--receipts", "both")
}

// builderDependencies are what a receipt says that the builder was made of.
func (s *shop) builderDependencies(t *testing.T, receipt string) []attest.ResourceDescriptor {
	t.Helper()
	stmt, err := attest.ParseStatement(s.receipt(t, receipt).Provenances[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	account, err := stmt.Provenance()
	if err != nil {
		t.Fatal(err)
	}
	return account.RunDetails.Builder.BuilderDependencies
}

// testChannels builds the package that was built with a Guix of those channels, now by `guix time-machine`, which finds that Guix in its cache: to make
// one needs the network.
func testChannels(t *testing.T, s *shop, first built, channels []attest.ResourceDescriptor) {
	commit := channels[0].Digest["gitCommit"]
	file := filepath.Join(s.scratch, "channels.scm")
	text := `(list (channel (name 'guix) (url "https://git.guix.gnu.org/guix.git") (branch "master") (commit "` + commit + `")))`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	const cached = `entry=$(guile --no-auto-compile -c '(use-modules (guix inferior) (guix base32) (gcrypt hash) (rnrs bytevectors))
(format #t "~a/~a" (%inferior-cache-directory) (bytevector->base32-string (sha256 (string->utf8 (cadr (command-line))))))' "$0")
mkdir -p "${entry%/*}"; ln -s /tmp/profile "$entry"`
	if out, status := s.command(t, "sh", "-ec", cached, commit); status != 0 {
		t.Fatal(out.stderr)
	}
	b := s.build(t, "-o", "timed", "--once", "--guix", "--channels", file, "tiny")
	if diff := cmp.Diff(channels, s.builderDependencies(t, "timed/"+b.Name+".receipt.jsonl")); diff != "" || b.Claim != first.Claim {
		t.Errorf("by --channels the claim is %s, not %s; channels (-want +got):\n%s", b.Claim, first.Claim, diff)
	}
	// Without them it is the machine's Guix, of which nothing is known.
	b = s.build(t, "-o", "untimed", "--once", "--guix", "tiny")
	if got := s.builderDependencies(t, "untimed/"+b.Name+".receipt.jsonl"); got != nil || b.Claim != first.Claim {
		t.Errorf("without --channels the claim is %s, not %s; channels %v", b.Claim, first.Claim, got)
	}
}

// testSameClaim builds with another key, and by other names of the same.
func testSameClaim(t *testing.T, s *shop, first built) {
	if b := s.build(t, "-o", "other", "--once", first.Derivation); b.Claim != first.Claim {
		t.Errorf("the claim is %s, not %s", b.Claim, first.Claim)
	}
	if b := s.build(t, "-o", "other", "--once", first.Outputs[0].StorePath); b.Claim != first.Claim {
		t.Errorf("by an output's path, the claim is %s, not %s", b.Claim, first.Claim)
	}
}

// testNoisy builds what differs at each build.
func testNoisy(t *testing.T, s *shop) {
	noisy := *s
	noisy.env = []string{"NOISY=doc"}
	noisy.want(t, 5, "build", "--offline", "--attest", "-o", "noisy", "--guix", s.data+"/graph.scm").has(t,
		`^graph-doc: built twice, with other bits$`, `Line 2 differs`, `error: derivation /gnu/store/.*-graph.drv is not reproducible: output graph-doc differs when built again by guix-daemon$`)
	if out, status := noisy.command(t, "sh", "-c", "guix build --no-grafts --check -f "+s.data+"/graph.scm"); status == 0 || !strings.Contains(out.stderr, "may not be deterministic") {
		t.Errorf("guix build --check: %d %s", status, out.stderr)
	}
	// Built once, the receipt says so; a third party finds out.
	noisy.want(t, 0, "build", "--offline", "--attest", "--once", "-o", "noisy", "--guix", s.data+"/graph.scm")
	noisy.want(t, 5, "rebuild", "--offline", "noisy/graph.receipt.jsonl").has(t, `^graph: differs$`, `^  graph-doc$`, `Line 2 differs`)
}

// testMistakes makes those of users.
func testMistakes(t *testing.T, s *shop) {
	s.want(t, 1, "build", "--guix", "no-such-package").has(t, `error: evaluate no-such-package: no-such-package: unknown package$`, "hint: `guix search WORD` finds packages")
	s.want(t, 2, "build", "--manifest", "x.scm", "y").has(t, `--guix is not given`)
	s.want(t, 2, "build", "--guix", "a package").has(t, `neither a package of Guix`)
	s.want(t, 1, "build", "--guix", "missing.scm").has(t, `error: evaluate missing.scm: .*no such file`)
	s.want(t, 2, "build", "--guix", "--vary", "time", "--attest", "hello").has(t, `--vary is for manifests`)
	s.want(t, 6, "build", "--guix", "hello").has(t, `error: build /gnu/store/.*-hello-.*.drv: build: the daemon says: `, `hint: Guix needs the network here`)
	off := *s
	off.env = []string{"GUIX_DAEMON_SOCKET=/nowhere"}
	off.want(t, 1, "build", "--guix", "hello").has(t, `error: guix-daemon at /nowhere: `, `hint: start the daemon \(systemctl start guix-daemon`)
	bare := *s
	bare.env = []string{"PATH=/nowhere"}
	bare.want(t, 1, "build", "--guix", "hello").has(t, `error: run guix: Guix is not installed, or not in PATH$`, `hint: install Guix \(on Debian: apt-get install guix\)`)
	open := *s
	open.env = []string{"GUIX_DAEMON_SOCKET=" + s.m.StartGuixAt(t, "/tmp/open", "--disable-chroot")}
	open.want(t, 1, "build", "--attest", "--offline", "--guix", s.data+"/graph.scm").has(t, `its sandbox is not in force: guix-sandbox: a builder sees what it does not depend on$`, `hint: start guix-daemon without --disable-chroot; or allow it with --degraded`)
	open.want(t, 0, "build", "--attest", "--once", "--degraded", "--offline", "-o", "open", "--guix", s.data+"/graph.scm").has(t, `not enforced: guix-sandbox`)
	open.want(t, 3, "verify", "open/graph", "--receipts", "open")
	open.want(t, 0, "verify", "--allow-degraded", "open/graph", "--receipts", "open").has(t, `builders/guix/degraded/v1`)
}
