package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"arch.network/attest/digest/nar"
	"arch.network/builder/diff"
)

// BenchmarkDiffTrees compares two trees of 50,000 files of which one byte of one file differs, beside diff -rq of diffutils, and with the listings that a
// store has. The trees have 256 MiB each, or ARCH_BENCH_MIB. The target, at 1024 MiB with a warm cache and two cores, is 1.5 s.
func BenchmarkDiffTrees(b *testing.B) {
	dir := b.TempDir()
	left, right := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	size := diffMiB(b) << 20
	diffTree(b, left, size, false)
	diffTree(b, right, size, true)
	listing := func(path string) nar.Listing {
		_, l, err := nar.HashListing(b.Context(), path, nar.Options{FileDigests: true})
		if err != nil {
			b.Fatal(err)
		}
		return l
	}
	listings := diff.Options{ListingA: listing(left), ListingB: listing(right)}

	var ours, listed, theirs time.Duration
	for b.Loop() {
		ours += diffRun(b, left, right, diff.Options{})
		listed += diffRun(b, left, right, listings)
		theirs += diffUtils(b, left, right)
	}
	perRun := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
	b.ReportMetric(perRun(ours), "ms/arch-diff")
	b.ReportMetric(perRun(listed), "ms/arch-diff-listed")
	if theirs > 0 {
		b.ReportMetric(perRun(theirs), "ms/diff-rq")
		b.ReportMetric(ours.Seconds()/theirs.Seconds(), "x-of-diff-rq")
	}
}

func diffMiB(b *testing.B) int {
	text := os.Getenv("ARCH_BENCH_MIB")
	if text == "" {
		return 256
	}
	mib, err := strconv.Atoi(text)
	if err != nil || mib < 1 {
		b.Fatalf("ARCH_BENCH_MIB=%q is no number of MiB", text)
	}
	return mib
}

// diffTree makes 50,000 files in 200 directories. If changed, one byte of one of them is another.
func diffTree(b *testing.B, root string, size int, changed bool) {
	b.Helper()
	const dirs, files = 200, 250
	random := rand.NewChaCha8([32]byte{2})
	content := make([]byte, size/(dirs*files))
	for i := range dirs * files {
		if _, err := random.Read(content); err != nil {
			b.Fatal(err)
		}
		if changed && i == dirs*files*2/3 {
			content[len(content)/2] ^= 1
		}
		dir := filepath.Join(root, fmt.Sprintf("d%03d", i/files))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

func diffRun(b *testing.B, left, right string, opts diff.Options) time.Duration {
	b.Helper()
	start := time.Now()
	report, err := diff.Compare(b.Context(), left, right, opts)
	if err != nil {
		b.Fatal(err)
	}
	if report.Total != 1 || report.Differences[0].Count != 1 {
		b.Fatalf("found %d differences, want the one byte", report.Total)
	}
	return time.Since(start)
}

// diffUtils returns 0 where there is no diff program.
func diffUtils(b *testing.B, left, right string) time.Duration {
	b.Helper()
	program, err := exec.LookPath("diff")
	if err != nil {
		return 0
	}
	start := time.Now()
	out, err := exec.CommandContext(b.Context(), program, "-rq", left, right).Output()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 {
		b.Fatalf("diff -rq: %v: %s", err, out)
	}
	return time.Since(start)
}
