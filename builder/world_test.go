package builder_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner/namespace"
)

// shared is a directory that every user can read: with the tool, and with this test's binary.
var shared string

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if order := os.Getenv(otherVariable); order != "" {
		os.Exit(other(order))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := makeShared()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared = dir
	return m.Run()
}

// makeShared compiles the tool, once.
func makeShared() (string, error) {
	dir, err := os.MkdirTemp("", "builder-test-*")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	compile := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "tool"), "./testdata/tool")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile tool: %v\n%s", err, out)
	}
	return dir, copyFile(filepath.Join(dir, "test"), "/proc/self/exe")
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// world is one builder's machine.
type world struct {
	dir     string
	store   *store.Store
	fetch   *source.Fetcher
	builder *builder.Builder
}

func openWorld(dir string) (*world, error) {
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		return nil, err
	}
	run, err := namespace.New(namespace.Options{})
	if err != nil {
		return nil, err
	}
	fetch := &source.Fetcher{Store: s, Offline: true}
	return &world{
		dir: dir, store: s, fetch: fetch,
		builder: &builder.Builder{Store: s, Fetch: fetch, Runner: run, Logs: filepath.Join(dir, "logs"), Now: time.Now},
	}, nil
}

// newWorld is a world with an empty store. At the end of the test it must hold nothing unfinished and nothing damaged.
func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	w, err := openWorld(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.check(t)
		w.store.Close()
		nar.RemoveAll(filepath.Join(dir, "store")) // its directories are read-only
	})
	return w
}

// check fails the test if anything is left that should not be.
func (w *world) check(t testing.TB) {
	t.Helper()
	report, err := w.store.Verify(context.Background(), store.VerifyOptions{})
	if err != nil || !report.OK() {
		t.Errorf("verify store: %+v, %v", report, err)
	}
	for _, pattern := range []string{"logs/.*", "store/tmp/*/*", "result/.arch*"} {
		if left, _ := filepath.Glob(filepath.Join(w.dir, pattern)); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

// workbench makes a directory with the tool and the source tree src, and returns it: what manifests are relative to.
func workbench(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := fillWorkbench(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func fillWorkbench(dir string) error {
	if err := copyFile(filepath.Join(dir, "tool"), filepath.Join(shared, "tool")); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "src"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(dir, "src", name), []byte("source "+name+"\n"), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "notes"), []byte("notes\n"), 0o644)
}

const out = "/build/out"

// demo is a build of the output "out" from the tool and src.
func demo(steps ...[]string) *manifest.Build {
	doc := &manifest.Build{
		APIVersion: manifest.APIVersion, Kind: "Build", Metadata: manifest.Metadata{Name: "demo"},
		Spec: manifest.BuildSpec{
			Platform: runtime.GOOS + "/" + runtime.GOARCH, SourceDateEpoch: 1767225600,
			Inputs: []manifest.BuildInput{
				{Name: "tool", Path: "tool", Mount: "/tool"},
				{Name: "src", Path: "src", Mount: "/build/src"},
			},
			Outputs: []manifest.BuildOutput{{Name: "out", Path: out, Type: manifest.OutputFile}},
			Limits:  manifest.BuildLimits{TimeSeconds: 60},
		},
	}
	for _, s := range steps {
		doc.Spec.Steps = append(doc.Spec.Steps, manifest.BuildStep{Argv: append([]string{"/tool"}, s...)})
	}
	return doc
}

func step(args ...string) []string { return args }

// build builds doc once.
func (w *world) build(t testing.TB, doc *manifest.Build, base string, factors ...builder.Factor) (*builder.Made, error) {
	t.Helper()
	if err := doc.Validate(); err != nil {
		t.Fatal(err)
	}
	return w.builder.Build(t.Context(), builder.Request{Manifest: doc, Base: base, Vary: factors})
}

func (w *world) mustBuild(t testing.TB, doc *manifest.Build, base string, factors ...builder.Factor) *builder.Made {
	t.Helper()
	made, err := w.build(t, doc, base, factors...)
	if failed, ok := errors.AsType[*builder.BuildError](err); ok {
		t.Fatalf("%v\n%s", err, failed.Tail)
	}
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// output returns the content of an output that is a file.
func output(t testing.TB, made *builder.Made, name string) string {
	t.Helper()
	for _, o := range made.Record.Outputs {
		if o.Name == name {
			data, err := os.ReadFile(o.Path)
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
	}
	t.Fatalf("there is no output %s", name)
	return ""
}

var testVersion = builder.Version{Name: "arch", Number: "test"}

func newSigner(t testing.TB) identity.Signer {
	t.Helper()
	key, err := identity.Generate(identity.Ed25519, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (w *world) attest(t testing.TB, made *builder.Made) *attest.Receipt {
	t.Helper()
	r, err := w.builder.Attest(t.Context(), made, newSigner(t), testVersion)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// claimBytes returns the payload of the only claim of a receipt.
func claimBytes(t testing.TB, r *attest.Receipt) string {
	t.Helper()
	if len(r.Claims) != 1 {
		t.Fatalf("the receipt has %d claims", len(r.Claims))
	}
	return string(r.Claims[0].Payload)
}

// otherVariable holds what the test binary is to do as another builder: an otherOrder.
const otherVariable = "ARCH_BUILDER_TEST_OTHER"

// otherOrder asks for builds in a process of its own: as another user, with another umask and environment.
type otherOrder struct {
	Dir   string // of its world, which exists
	Base  string
	Umask int
	Docs  []json.RawMessage // manifests
}

// other makes the builds and writes their claims to stdout, as a JSON list.
func other(text string) int {
	claims, err := otherClaims(text)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(claims)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func otherClaims(text string) (claims []string, err error) {
	var order otherOrder
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&order); err != nil {
		return nil, err
	}
	setUmask(order.Umask)
	w, err := openWorld(order.Dir)
	if err != nil {
		return nil, err
	}
	defer w.store.Close()
	w.builder.Now = func() time.Time { return time.Now().Add(1000 * time.Hour) }
	key, err := identity.Generate(identity.Ed25519, rand.Reader)
	if err != nil {
		return nil, err
	}
	for _, form := range order.Docs {
		doc, err := manifest.ReadJSON(form)
		if err != nil {
			return nil, err
		}
		made, err := w.builder.Build(context.Background(), builder.Request{Manifest: doc.(*manifest.Build), Base: order.Base})
		if err != nil {
			return nil, err
		}
		r, err := w.builder.Attest(context.Background(), made, key, testVersion)
		if err != nil {
			return nil, err
		}
		claims = append(claims, string(r.Claims[0].Payload))
	}
	return claims, nil
}

// provenance returns the only provenance of a receipt.
func provenance(t testing.TB, r *attest.Receipt) *attest.Provenance {
	t.Helper()
	if len(r.Provenances) != 1 {
		t.Fatalf("the receipt has %d provenances", len(r.Provenances))
	}
	stmt, err := attest.ParseStatement(r.Provenances[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	p, err := stmt.Provenance()
	if err != nil {
		t.Fatal(err)
	}
	return p
}
