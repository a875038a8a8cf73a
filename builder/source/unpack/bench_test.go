package unpack

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkTar compares unpacking 5,000 files of 4 KiB with writing them without any care.
func BenchmarkTar(b *testing.B) {
	var entries []e
	body := strings.Repeat("0123456789abcdef", 256)
	for i := range 5000 {
		entries = append(entries, e{name: fmt.Sprintf("usr/share/d%02d/e%d/f%04d", i/100, i/50%2, i), body: body})
	}
	packed := tarOf(b, append([]e{{name: "lib", typ: tar.TypeSymlink, link: "usr/share"}}, entries...)...)
	b.Run("unpack", func(b *testing.B) {
		defer reportCPU(b)()
		for b.Loop() {
			dir := b.TempDir()
			tree := newTree(b, dir, RootFS, Limits{})
			if err := tree.Tar(b.Context(), bytes.NewReader(packed), 0); err != nil {
				b.Fatal(err)
			}
			tree.Close()
		}
	})
	b.Run("plain", func(b *testing.B) {
		defer reportCPU(b)()
		for b.Loop() {
			dir := b.TempDir()
			for _, e := range entries {
				name := filepath.Join(dir, e.name)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					b.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(e.body), 0o644); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// reportCPU reports the CPU time of the process, which a busy machine disturbs less than the wall clock.
func reportCPU(b *testing.B) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64((used()-before).Milliseconds())/float64(b.N), "cpu-ms/op") }
}
