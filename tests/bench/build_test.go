package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// workshop is a compiled arch with a store, a key and a result directory of its own.
type workshop struct {
	dir  string
	arch string
}

func newWorkshop(b *testing.B) *workshop {
	b.Helper()
	dir := b.TempDir()
	b.Cleanup(func() { nar.RemoveAll(filepath.Join(dir, "store")) }) // its directories are read-only
	w := &workshop{dir, filepath.Join(dir, "arch")}
	w.compile(b, w.arch, "arch.network/cmd/arch")
	return w
}

func (w *workshop) compile(b *testing.B, out, pkg string) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", cmd, err, text)
	}
}

// run runs arch as a process of its own and returns how long that took.
func (w *workshop) run(b *testing.B, args ...string) time.Duration {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), w.arch, append([]string{"--quiet", "--store", filepath.Join(w.dir, "store")}, args...)...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "ARCH_CONFIG="+filepath.Join(w.dir, "config"), "ARCH_STATE="+filepath.Join(w.dir, "state"))
	start := time.Now()
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	return time.Since(start)
}

// times collects durations by name, and reports their medians in milliseconds.
type times map[string][]time.Duration

func (t times) add(name string, d time.Duration) { t[name] = append(t[name], d) }

func (t times) median(name string) float64 {
	list := slices.Sorted(slices.Values(t[name]))
	return list[len(list)/2].Seconds() * 1000
}

func (t times) report(b *testing.B) {
	b.Helper()
	for name := range t {
		b.ReportMetric(t.median(name), "p50-ms/"+name)
	}
	b.ReportMetric(0, "ns/op") // says nothing: an iteration does all of the above
}

const hello = "../examples/hello"

// hellosEnv is the environment of hello's build.yaml, with places outside of the sandbox.
func hellosEnv(scratch string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + scratch, "TMPDIR=" + scratch, "LC_ALL=C", "LANG=C", "TZ=UTC",
		"CGO_ENABLED=0", "GOAMD64=v1", "GOCACHE=" + scratch + "/gocache", "GOENV=off", "GOFLAGS=-trimpath -buildvcs=false",
		"GOPROXY=off", "GOSUMDB=off", "GOTELEMETRY=off", "GOTOOLCHAIN=local", "SOURCE_DATE_EPOCH=1767225600",
	}
}

// BenchmarkHermeticBuild builds hello with arch, whole process, and with go build alone, in turn: the same environment,
// an empty build cache, in memory, both times.
func BenchmarkHermeticBuild(b *testing.B) {
	w := newWorkshop(b)
	manifest, err := filepath.Abs(hello)
	if err != nil {
		b.Fatal(err)
	}
	w.run(b, "build", manifest) // the toolchain comes into the store
	t := times{}
	for b.Loop() {
		t.add("hermetic", w.run(b, "build", "--force", manifest))
		t.add("go-build", plainBuild(b, w, manifest))
	}
	t.report(b)
	b.ReportMetric(t.median("hermetic")/t.median("go-build"), "hermetic/go-build")
	b.ReportMetric(t.median("hermetic")-t.median("go-build"), "overhead-ms")
}

func plainBuild(b *testing.B, w *workshop, manifest string) time.Duration {
	b.Helper()
	memory := "/dev/shm"
	if info, err := os.Stat(memory); err != nil || !info.IsDir() {
		memory = w.dir
	}
	scratch, err := os.MkdirTemp(memory, "bench-go-build-*")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(scratch)
	if err := os.CopyFS(scratch+"/src", os.DirFS(filepath.Join(manifest, "src"))); err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), "go", "build", "-o", scratch+"/out/hello", ".")
	cmd.Dir, cmd.Env = scratch+"/src", hellosEnv(scratch)
	start := time.Now()
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	return time.Since(start)
}

// BenchmarkUnchangedBuild asks again for what the store has: whole process, with and without a receipt. The floor is
// what the same program takes to print its version.
func BenchmarkUnchangedBuild(b *testing.B) {
	w := newWorkshop(b)
	manifest, err := filepath.Abs(hello)
	if err != nil {
		b.Fatal(err)
	}
	w.run(b, "build", "--attest", "--once", manifest)
	t := times{}
	for b.Loop() {
		t.add("plain", w.run(b, "build", manifest))
		t.add("attested", w.run(b, "build", "--attest", "--once", manifest))
		t.add("floor", w.run(b, "version"))
	}
	t.report(b)
}

const zerosYAML = `apiVersion: arch.network/v1
kind: Build
metadata: {name: zeros}
spec:
  platform: linux/amd64
  sourceDateEpoch: 1767225600
  inputs:
    - {name: tool, path: tool, mount: /tool}
  steps:
    - argv: [/tool, big, /build/out, "%d"]
  outputs:
    - {name: zeros, path: /build/out, type: file}
`

// BenchmarkVerifyProcess verifies an artifact against its receipt: whole process, for a small one and one of 100 MB, whose
// SHA-256 in this process is beside it.
func BenchmarkVerifyProcess(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"small", 1000}, {"100MB", 100_000_000}} {
		b.Run(size.name, func(b *testing.B) {
			w := newWorkshop(b)
			w.compile(b, filepath.Join(w.dir, "tool"), "../../builder/testdata/tool")
			yaml := filepath.Join(w.dir, "build.yaml")
			if err := os.WriteFile(yaml, fmt.Appendf(nil, zerosYAML, size.bytes), 0o644); err != nil {
				b.Fatal(err)
			}
			w.run(b, "build", "--attest", "--once", yaml)
			w.uncarry(b)
			t := times{}
			for b.Loop() {
				t.add("verify", w.run(b, "verify", "result/zeros", "--receipts", "bare/"))
				t.add("verify-carrying-2MB", w.run(b, "verify", "result/zeros", "--receipts", "result/"))
				t.add("floor", w.run(b, "version"))
				t.add("sha256", hashTime(b, filepath.Join(w.dir, "result/zeros")))
			}
			t.report(b)
		})
	}
}

// uncarry writes the receipt once more, to bare/, without the sources that it carries.
func (w *workshop) uncarry(b *testing.B) {
	b.Helper()
	const name = "zeros.receipt.jsonl"
	f, err := os.Open(filepath.Join(w.dir, "result", name))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	r, err := attest.ReadReceipt(f)
	if err != nil {
		b.Fatal(err)
	}
	r.Sources = nil
	var buf bytes.Buffer
	if _, err := r.WriteTo(&buf); err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(w.dir, "bare"), 0o755), os.WriteFile(filepath.Join(w.dir, "bare", name), buf.Bytes(), 0o644)); err != nil {
		b.Fatal(err)
	}
}

func hashTime(b *testing.B, path string) time.Duration {
	b.Helper()
	start := time.Now()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, _, err := digest.OfReader(f); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}
