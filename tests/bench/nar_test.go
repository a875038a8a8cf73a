package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"arch.network/attest/digest/nar"

	gonix "github.com/nix-community/go-nix/pkg/nar"
)

// narRounds is how often each contender runs in one iteration, in turn; the fastest run of each counts.
const narRounds = 4

// narBytes is the size of the trees: 256 MiB, or ARCH_BENCH_MIB. The targets are stated for 1024.
func narBytes(b *testing.B) int {
	text := os.Getenv("ARCH_BENCH_MIB")
	if text == "" {
		return 256 << 20
	}
	mib, err := strconv.Atoi(text)
	if err != nil || mib < 1 {
		b.Fatalf("ARCH_BENCH_MIB=%q is no number of MiB", text)
	}
	return mib << 20
}

// largeFiles makes a tree of 8 files.
func largeFiles(b *testing.B, path string, size int) {
	narTree(b, path, 1, 8, size)
}

// smallFiles makes a tree of 500 directories with 100 files each.
func smallFiles(b *testing.B, path string, size int) {
	narTree(b, path, 500, 100, size)
}

// narTree makes a tree of dirs directories with files files each, size bytes in all.
func narTree(b *testing.B, path string, dirs, files, size int) {
	b.Helper()
	noise := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	each := size / (dirs * files)
	for d := range dirs {
		dir := filepath.Join(path, fmt.Sprintf("d%03d", d))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		for f := range files {
			if err := narFile(filepath.Join(dir, fmt.Sprintf("f%03d", f)), noise[f*64:], each); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func narFile(path string, noise []byte, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for size > 0 && err == nil {
		var n int
		n, err = f.Write(noise[:min(size, len(noise))])
		size -= n
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// cost is what one run took.
type cost struct{ cpu, wall time.Duration }

// best returns the smaller of each.
func (c cost) best(other cost) cost {
	if c == (cost{}) {
		return other
	}
	return cost{min(c.cpu, other.cpu), min(c.wall, other.wall)}
}

// minus takes away what starting a process costs.
func (c cost) minus(start cost) cost { return cost{c.cpu - start.cpu, c.wall - start.wall} }

// inProcess measures f: user and system time of this process.
func inProcess(b *testing.B, f func() error) cost {
	b.Helper()
	before, start := selfCPU(b), time.Now()
	if err := f(); err != nil {
		b.Fatal(err)
	}
	wall := time.Since(start)
	return cost{selfCPU(b) - before, wall}
}

func selfCPU(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// command measures a command; zero if it is not installed.
func command(b *testing.B, input io.Reader, name string, args ...string) cost {
	b.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		return cost{}
	}
	cmd := exec.CommandContext(b.Context(), path, args...)
	cmd.Stdin = input
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s: %v\n%s", name, err, stderr.Bytes())
	}
	return cost{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(start)}
}

// BenchmarkNARHash compares the NAR hash of a tree with nix-hash and go-nix, in CPU time (user and system) and in time
// on the clock. Targets at 1 GiB: cpu/nix-hash at most 1.05 for large files and 1.10 for small ones, wall/nix-hash
// at most 0.95 while a second core is idle.
func BenchmarkNARHash(b *testing.B) {
	b.Run("8-large-files", func(b *testing.B) { benchmarkNARHash(b, largeFiles) })
	b.Run("50000-small-files", func(b *testing.B) { benchmarkNARHash(b, smallFiles) })
}

func benchmarkNARHash(b *testing.B, fill func(*testing.B, string, int)) {
	size := narBytes(b)
	tree, empty := filepath.Join(b.TempDir(), "tree"), b.TempDir()
	fill(b, tree, size)
	var ours, listed, digested, theirs, start, goNix cost
	for b.Loop() {
		for range narRounds {
			theirs = theirs.best(command(b, nil, "nix-hash", "--type", "sha256", tree))
			start = start.best(command(b, nil, "nix-hash", "--type", "sha256", empty))
			ours = ours.best(inProcess(b, func() error {
				_, _, err := nar.Hash(b.Context(), tree, nar.Options{})
				return err
			}))
			listed = listed.best(inProcess(b, func() error { return narListing(b.Context(), tree, nar.Options{}) }))
			digested = digested.best(inProcess(b, func() error {
				return narListing(b.Context(), tree, nar.Options{FileDigests: true})
			}))
			goNix = goNix.best(inProcess(b, func() error { return gonix.DumpPath(sha256.New(), tree) }))
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(size)/ours.wall.Seconds()/1e6, "MB/s")
	b.ReportMetric(ours.cpu.Seconds(), "cpu-s")
	reportNAR(b, "cpu/go-nix", ours.cpu, goNix.cpu)
	reportNAR(b, "listing-cpu/hash", listed.cpu, ours.cpu)
	reportNAR(b, "digests-wall/hash", digested.wall, ours.wall)
	if theirs == (cost{}) {
		b.Log("nix-hash is not installed: no ratio to it")
		return
	}
	theirs = theirs.minus(start)
	reportNAR(b, "cpu/nix-hash", ours.cpu, theirs.cpu)
	reportNAR(b, "wall/nix-hash", ours.wall, theirs.wall)
	reportNAR(b, "go-nix-cpu/nix-hash", goNix.cpu, theirs.cpu)
}

func narListing(ctx context.Context, tree string, opts nar.Options) error {
	_, _, err := nar.HashListing(ctx, tree, opts)
	return err
}

func reportNAR(b *testing.B, name string, part, whole time.Duration) {
	b.ReportMetric(float64(part)/float64(whole), name)
}

// BenchmarkNARRestore compares making a tree from its NAR with nix-store --restore. Restored trees are kept to the end:
// ext4 is slow to create files for some seconds after many were deleted, which would say nothing of either.
func BenchmarkNARRestore(b *testing.B) {
	b.Run("8-large-files", func(b *testing.B) { benchmarkNARRestore(b, largeFiles) })
	b.Run("10000-small-files", func(b *testing.B) {
		benchmarkNARRestore(b, func(b *testing.B, path string, size int) { narTree(b, path, 100, 100, size/5) })
	})
}

func benchmarkNARRestore(b *testing.B, fill func(*testing.B, string, int)) {
	base := b.TempDir()
	archive, tree := filepath.Join(base, "nar"), filepath.Join(base, "tree")
	fill(b, tree, narBytes(b))
	if err := narDump(b.Context(), tree, archive); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := nar.RemoveAll(filepath.Join(base, "restored")); err != nil {
			b.Error(err)
		}
	})
	if err := os.Mkdir(filepath.Join(base, "restored"), 0o755); err != nil {
		b.Fatal(err)
	}
	var ours, theirs cost
	for n := 0; b.Loop(); n++ {
		for round := range 2 {
			dst := filepath.Join(base, "restored", fmt.Sprintf("%d-%d-", n, round))
			theirs = theirs.best(withNAR(b, archive, func(f *os.File) cost {
				return command(b, f, "nix-store", "--restore", dst+"nix")
			}))
			ours = ours.best(withNAR(b, archive, func(f *os.File) cost {
				return inProcess(b, func() error { return nar.Restore(b.Context(), f, dst+"arch", nar.RestoreOptions{}) })
			}))
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.wall.Seconds(), "s")
	if theirs == (cost{}) {
		b.Log("nix-store is not installed: no ratio to it")
		return
	}
	reportNAR(b, "cpu/nix-store", ours.cpu, theirs.cpu)
	reportNAR(b, "wall/nix-store", ours.wall, theirs.wall)
}

func narDump(ctx context.Context, tree, archive string) error {
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	if err := nar.Dump(ctx, w, tree, nar.Options{}); err != nil {
		return err
	}
	return w.Flush()
}

func withNAR(b *testing.B, archive string, f func(*os.File) cost) cost {
	b.Helper()
	in, err := os.Open(archive)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	return f(in)
}
