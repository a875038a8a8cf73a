package nix

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/derivation"
	"arch.network/builder/source"
	"arch.network/builder/store"

	"github.com/google/go-cmp/cmp"
)

// needNix skips where the real Nix cannot build from the static programs of Debian.
func needNix(t *testing.T) {
	t.Helper()
	for _, program := range []string{"nix", "nix-store", "/bin/busybox", "/bin/bash-static"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("cannot run here: %s is not installed (packages nix-bin, busybox-static, bash-static)", program)
		}
	}
}

// world is a builder with stores of its own.
type world struct {
	t     *testing.T
	dir   string
	build *derivation.Builder
	back  Backend
	judge *builder.Builder
	key   *identity.Key
}

func newWorld(t *testing.T) *world {
	t.Helper()
	needNix(t)
	w := &world{t: t, dir: t.TempDir()}
	t.Setenv("HOME", w.dir)
	t.Setenv("XDG_CACHE_HOME", w.dir+"/cache")
	s, err := store.Open(w.dir + "/store")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); nar.RemoveAll(w.dir) })
	if w.key, err = identity.Generate(identity.Ed25519, rand.Reader); err != nil {
		t.Fatal(err)
	}
	fetch := &source.Fetcher{Store: s, Offline: true}
	w.judge = &builder.Builder{Store: s, Now: time.Now}
	w.back = Backend{Nix: Nix{Offline: true}, At: Store{Dir: w.dir + "/nix"}}
	w.build = &derivation.Builder{At: w.back, Store: s, Fetch: fetch, Now: time.Now, Temp: w.dir}
	return w
}

// target is an attribute of testdata/graph.nix.
func target(t *testing.T, attribute string) Target {
	t.Helper()
	file, err := filepath.Abs("testdata/graph.nix")
	if err != nil {
		t.Fatal(err)
	}
	return Target{Text: attribute, File: file, Attribute: attribute}
}

// make builds a target.
func (w *world) make(ctx context.Context, to Target, req derivation.Request) (*builder.Made, error) {
	w.t.Helper()
	var err error
	if req.Of, err = w.back.Evaluate(ctx, to); err != nil {
		w.t.Fatal(err)
	}
	return w.build.Build(ctx, req)
}

// attest builds once and signs.
func (w *world) attest(to Target) *attest.Receipt {
	w.t.Helper()
	made, err := w.make(w.t.Context(), to, derivation.Request{Attest: true})
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := w.judge.Attest(w.t.Context(), made, w.key, builder.Version{Name: "test", Number: "1"})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// rebuild rebuilds a receipt here.
func (w *world) rebuild(receipt *attest.Receipt) (*builder.Rebuild, error) {
	w.t.Helper()
	r, err := builder.OpenClaim(receipt)
	if err != nil {
		return nil, err
	}
	carried, err := receipt.Carried()
	if err != nil {
		return nil, err
	}
	w.build.Fetch.(*source.Fetcher).Carried = carried
	return r, w.build.Rebuild(w.t.Context(), w.judge, r, receipt, nil)
}

// TestFetched attests what needs a file that Nix itself fetches over the network.
func TestFetched(t *testing.T) {
	w := newWorld(t)
	asked := 0
	var mu sync.Mutex // guards asked
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		asked++
		mu.Unlock()
		fmt.Fprintln(rw, "from afar")
	}))
	defer server.Close()
	file := filepath.Join(w.dir, "fetched.nix")
	expression := fmt.Sprintf("(import %s { url = %q; })", target(t, "").File, server.URL+"/file")
	if err := os.WriteFile(file, []byte(expression), 0o644); err != nil {
		t.Fatal(err)
	}
	receipt := w.attest(Target{Text: "uses", File: file, Attribute: "uses"})
	claim := claimOf(t, receipt)
	found := map[string]string{}
	for _, d := range claim.ResolvedDependencies {
		if d.MediaType == attest.MediaFile {
			at := strings.TrimPrefix(d.URI, server.URL)
			if p, err := storepath.Parse(d.URI); err == nil {
				at = p.Name
			}
			found[at] = d.Digest["sha256"]
		}
	}
	want := digest.Of([]byte("from afar\n")).Hex()
	if diff := cmp.Diff(map[string]string{"/file": want, "fetched": want}, found); diff != "" {
		t.Errorf("what was fetched (-want +got):\n%s", diff)
	}
	mu.Lock()
	defer mu.Unlock()
	if asked == 0 {
		t.Error("nobody asked for the file")
	}
}

func claimOf(t *testing.T, r *attest.Receipt) *attest.Claim {
	t.Helper()
	stmt, err := attest.ParseStatement(r.Claims[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := stmt.Claim()
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

// TestClaimIsComplete looks for everything that two is made of, as Nix itself lists it.
func TestClaimIsComplete(t *testing.T) {
	w := newWorld(t)
	receipt := w.attest(target(t, "two"))
	top := claimOf(t, receipt)
	doc, err := top.Document()
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, d := range top.ResolvedDependencies {
		listed[d.Name] = true
	}
	text, err := w.back.Nix.run(t.Context(), w.back.At, call{
		act: "list", program: "nix-store", args: []string{"--query", "--requisites", "--include-outputs", doc.Spec.Derivation.Ref.Location},
	})
	if err != nil {
		t.Fatal(err)
	}
	outputs := map[string]bool{}
	stmt, err := attest.ParseStatement(receipt.Claims[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stmt.Subject {
		outputs[s.URI] = true
	}
	n := 0
	for path := range strings.FieldsSeq(string(text)) {
		if strings.HasSuffix(path, "-multi-doc") {
			continue // an output that nobody needs
		}
		if n++; !listed[path] && !outputs[path] {
			t.Errorf("%s is not listed", path)
		}
	}
	if n < 8 {
		t.Errorf("Nix lists only %d paths", n)
	}
}

// TestRebuildRefusesLies gives receipts whose claim was made by somebody dishonest.
func TestRebuildRefusesLies(t *testing.T) {
	honest := newWorld(t)
	made, err := honest.make(t.Context(), target(t, "multi"), derivation.Request{Attest: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(m *builder.Made)
		want string
	}{
		{"honest", func(*builder.Made) {}, ""},
		{"another name for what is built", func(m *builder.Made) {
			m.Manifest.Spec.Outputs[0].Name = "firefox"
			m.Record.Outputs[0].Name = "firefox"
		}, "its manifest is not the one that derivation"},
		{"a dependency left out", func(m *builder.Made) { m.Dependencies = without(m.Dependencies, "-fixed") }, `its derivation needs`},
		{"a source left out", func(m *builder.Made) { m.Dependencies = without(m.Dependencies, "-note") }, `it does not list the source`},
		{"a dependency too many", func(m *builder.Made) {
			m.Dependencies = append(m.Dependencies, attest.ResourceDescriptor{
				Name: "audited", URI: "https://example.org/audit", Digest: map[string]string{"sha256": digest.Of(nil).Hex()},
			})
		}, "its derivation does not need"},
		{"a flake that gives something else", func(m *builder.Made) {
			tree := honest.tree(map[string]string{"flake.nix": `{ outputs = _: { agent = derivation { name = "x"; system = "x86_64-linux"; builder = "/x"; }; }; }`})
			m.Manifest.Spec.Derivation.Flakes = []manifest.BuildFlake{{Ref: manifest.Ref{Scheme: manifest.RefTree, Location: "flake", Digest: tree.Digest}}}
			m.Manifest.Spec.Derivation.Attribute = "agent"
			m.Sources = append(m.Sources, tree)
			m.Dependencies = append(m.Dependencies, attest.ResourceDescriptor{
				Name: "flake", URI: m.Manifest.Spec.Derivation.Flakes[0].Ref.String(), MediaType: attest.MediaNAR,
				Digest: map[string]string{"sha256": tree.Digest.Hex()},
			})
		}, "its flake gives the derivation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mine := *made
			doc, derivation := *made.Manifest, *made.Manifest.Spec.Derivation
			doc.Spec.Derivation, doc.Spec.Outputs = &derivation, append([]manifest.BuildOutput(nil), doc.Spec.Outputs...)
			mine.Manifest, mine.Record.Outputs = &doc, append([]builder.Output(nil), made.Record.Outputs...)
			mine.Dependencies = append([]attest.ResourceDescriptor(nil), made.Dependencies...)
			mine.Sources = append([]attest.Source(nil), made.Sources...)
			tt.edit(&mine)
			receipt, err := honest.judge.Attest(t.Context(), &mine, honest.key, builder.Version{Name: "test", Number: "1"})
			if err != nil {
				t.Fatal(err)
			}
			r, err := honest.rebuild(receipt)
			lie, isLie := errors.AsType[*builder.ClaimError](err)
			switch {
			case tt.want == "" && (err != nil || !r.Reproduced()):
				t.Errorf("%v, %+v", err, r.Negative)
			case tt.want != "" && (!isLie || !strings.Contains(lie.Error(), tt.want)):
				t.Errorf("got %v, want a lie: %s", err, tt.want)
			}
		})
	}
}

// tree makes a carried source of files.
func (w *world) tree(files map[string]string) attest.Source {
	w.t.Helper()
	dir := w.t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	if err := nar.Dump(w.t.Context(), &buf, dir, nar.Options{}); err != nil {
		w.t.Fatal(err)
	}
	s, err := attest.NewSource(attest.MediaNARZstd, "flake", buf.Bytes())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// without leaves out the dependencies whose name ends so.
func without(list []attest.ResourceDescriptor, suffix string) []attest.ResourceDescriptor {
	var out []attest.ResourceDescriptor
	for _, d := range list {
		if !strings.HasSuffix(d.Name, suffix) {
			out = append(out, d)
		}
	}
	return out
}

// TestLyingBundle rebuilds from a receipt whose derivation was replaced by one that says it makes the same output.
func TestLyingBundle(t *testing.T) {
	w := newWorld(t)
	receipt := w.attest(target(t, "structured"))
	var carried []byte
	for _, source := range receipt.Sources {
		if source.Name == "derivations" {
			content, err := source.Open()
			if err != nil {
				t.Fatal(err)
			}
			carried = bytes.Replace(content, []byte("list"), []byte("mist"), 1)
		}
	}
	lying, err := attest.NewSource(attest.MediaNARZstd, "derivations", carried)
	if err != nil {
		t.Fatal(err)
	}
	receipt.Sources = []attest.Source{lying}
	_, err = newWorld(t).rebuild(receipt)
	if lie, ok := errors.AsType[*builder.ClaimError](err); !ok || !strings.Contains(lie.Error(), "is not what its path says") {
		t.Errorf("got %v", err)
	}
}

// TestAsOrdinaryUser builds without any right, as most people do.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("cannot run here: it is run by an ordinary user, who runs the other tests")
	}
	needNix(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "arch-nix-user-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nar.RemoveAll(dir) })
	const nobody = 65534
	copied := filepath.Join(dir, "test")
	data, err := os.ReadFile(exe)
	if err := errors.Join(err, os.WriteFile(copied, data, 0o755), os.Chmod(dir, 0o755), os.Mkdir(dir+"/w", 0o755), os.Chown(dir+"/w", nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	expression, err := os.ReadFile(target(t, "").File)
	if err := errors.Join(err, os.Mkdir(dir+"/w/testdata", 0o755), os.WriteFile(dir+"/w/testdata/graph.nix", expression, 0o644)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), copied, "-test.run=^TestOneBuild$", "-test.v")
	cmd.Dir = dir + "/w"
	cmd.Env = append(os.Environ(), "TMPDIR="+dir+"/w", "HOME="+dir+"/w")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestOneBuild")) {
		t.Errorf("%v: %s", err, out)
	}
}

// TestOneBuild builds twice and compares.
func TestOneBuild(t *testing.T) {
	w := newWorld(t)
	made, err := w.make(t.Context(), target(t, "multi"), derivation.Request{Attest: true, Again: true})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range made.Record.Outputs {
		names = append(names, o.Name)
	}
	if diff := cmp.Diff([]string{"multi-dev", "multi-doc", "multi"}, names); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
	entries, err := filepath.Glob(w.dir + "/arch-nix-*")
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestCancel interrupts Nix in the middle of a build.
func TestCancel(t *testing.T) {
	w := newWorld(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts by the kernel, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file := filepath.Join(w.dir, "hangs.nix")
	if err := os.WriteFile(file, fmt.Appendf(nil, "(import %s { url = \"http://%s/\"; })", target(t, "").File, listener.Addr()), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := listener.Accept(); err == nil { // now it is building
			cancel()
			conn.Close()
		}
	}()
	_, err = w.make(ctx, Target{Text: "uses", File: file, Attribute: "uses"}, derivation.Request{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFindTarget(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"flake/flake.nix", "both/flake.nix", "both/build.yaml", "native/build.yaml"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	const path = "/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-x.drv"
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		arg  string
		want Target
	}{
		{".#agent", Target{Flake: ".", Attribute: "agent"}},
		{"github:o/r", Target{Flake: "github:o/r"}},
		{"git+https://example.org/x?ref=y#a.b", Target{Flake: "git+https://example.org/x?ref=y", Attribute: "a.b"}},
		{"flake", Target{Flake: "flake"}},
		{"both", Target{}},
		{"both#", Target{Flake: "both"}},
		{"native", Target{}},
		{"build.yaml", Target{}},
		{"hello.nix", Target{File: filepath.Join(real, "hello.nix")}},
		{"hello.nix#a", Target{File: filepath.Join(real, "hello.nix"), Attribute: "a"}},
		{path, Target{Path: path}},
	} {
		if tt.want != (Target{}) {
			tt.want.Text = tt.arg
		}
		got, ok := FindTarget(tt.arg)
		if diff := cmp.Diff(tt.want, got); diff != "" || ok != (tt.want != Target{}) {
			t.Errorf("%s: %v (-want +got):\n%s", tt.arg, ok, diff)
		}
	}
}

// FuzzLock: whatever a lock file says, what is taken from it is pinned and may stand in a document.
func FuzzLock(f *testing.F) {
	f.Add([]byte(`{"nodes":{"dep":{"locked":{"lastModified":1,"narHash":"sha256-3IhSDQZFhsKsgC9oWtEiblX/Rjn0u+GGK+KwEX7c5zM=","owner":"NixOS","repo":"nixpkgs","rev":"34268251cf5547d39063f2c5ea9a196246f7f3a6","type":"github"}},"root":{"inputs":{"dep":"dep"}}},"root":"root","version":7}`))
	f.Add([]byte(`{"nodes":{"x":{}},"root":"root","version":7}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		flakes, err := parseLock(data)
		if err != nil {
			return
		}
		for _, fl := range flakes {
			if _, err := manifest.ParseRef(fl.Ref.String()); err != nil {
				t.Errorf("%q: %v", fl.Ref, err)
			}
		}
	})
}
