package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/ledger/sequencer"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/tlog"
)

// benchLog opens a new log.
func benchLog(b *testing.B) *sequencer.Log {
	b.Helper()
	keys, err := notekey.Generate("bench.invalid/ledger", bytes.NewReader(make([]byte, 64)))
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	l, err := sequencer.Open(b.Context(), sequencer.Options{Dir: filepath.Join(dir, "log"), Signed: filepath.Join(dir, "signed"), Keys: keys})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close(context.Background()) })
	return l
}

// grouped appends n entries with as many on the way as there is room for.
func grouped(b *testing.B, l *sequencer.Log, n int) {
	b.Helper()
	futures := make(chan sequencer.Future, 4096)
	go func() {
		defer close(futures)
		entry := make([]byte, 600)
		for i := range n {
			copy(entry, fmt.Sprintf("%020d", i))
			f, err := l.Add(context.Background(), slices.Clone(entry))
			if err != nil {
				b.Error(err)
				return
			}
			futures <- f
		}
	}()
	for f := range futures {
		if _, err := f.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// perCore runs one thing again and again, and reports how often a second of CPU time is enough for it.
func perCore(b *testing.B, what string, run func(i int) error) {
	b.Helper()
	start := cpuTime(b)
	i := 0
	for ; b.Loop(); i++ {
		if err := run(i); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(i)/(cpuTime(b)-start).Seconds(), what+"/cpu-s")
}

// BenchmarkLedgerAppend makes entries of 600 bytes durable: one at a time, and many together.
func BenchmarkLedgerAppend(b *testing.B) {
	b.Run("single", func(b *testing.B) {
		l := benchLog(b)
		var took []time.Duration
		for i := 0; b.Loop(); i++ {
			start := time.Now()
			if _, err := l.Append(b.Context(), fmt.Appendf(make([]byte, 580), "%020d", i)); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	})
	for _, group := range []int{1, 256} { // the same, to a file with nothing but a sync
		b.Run(fmt.Sprintf("fsync-per-%d", group), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "entries"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			entries := make([]byte, 600*group)
			for b.Loop() {
				if _, err := f.Write(entries); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*group)/b.Elapsed().Seconds(), "entries/s")
		})
	}
	b.Run("grouped", func(b *testing.B) {
		l := benchLog(b)
		b.ResetTimer()
		cpu := cpuTime(b)
		grouped(b, l, b.N)
		b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
}

// BenchmarkLedgerRecord signs, chains and records decisions, with 1,024 writers at once.
func BenchmarkLedgerRecord(b *testing.B) {
	l := benchLog(b)
	key, err := identity.Generate(identity.Ed25519, bytes.NewReader(make([]byte, 32)))
	if err != nil {
		b.Fatal(err)
	}
	r, err := sequencer.NewRecorder(b.Context(), l, sequencer.RecorderOptions{Signer: key})
	if err != nil {
		b.Fatal(err)
	}
	job := attest.Document("job", digest.Of([]byte("job")))
	b.SetParallelism(512)
	b.ResetTimer()
	cpu := cpuTime(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.Record(context.Background(), attest.Decision{Kind: "admission", Verdict: "accepted", Summary: "The job was accepted."}, job); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkLedgerProof builds and verifies proofs of entries of a log of 100,000, on one core, beside tessera's client and merkle's verifier.
func BenchmarkLedgerProof(b *testing.B) {
	const size = 100_000
	l := benchLog(b)
	grouped(b, l, size)
	if _, err := l.Proof(b.Context(), size-1); err != nil {
		b.Fatal(err)
	}
	signed, prover, err := l.Prover(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	at := func(i int) int64 { return int64(i) * 7919 % size }
	b.Run("build/arch", func(b *testing.B) {
		for i := range int64(size) { // the tiles are in the cache
			if i%256 == 0 {
				if _, err := prover.Inclusion(b.Context(), i); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportAllocs()
		perCore(b, "proofs", func(i int) error { _, err := prover.Inclusion(b.Context(), at(i)); return err })
	})
	fetch := client.FileFetcher{Root: string(l.Dir())}
	pb, err := client.NewProofBuilder(b.Context(), uint64(signed.Size), fetch.ReadTile)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("build/tessera", func(b *testing.B) {
		b.ReportAllocs()
		perCore(b, "proofs", func(i int) error { _, err := pb.InclusionProof(b.Context(), uint64(at(i))); return err })
	})
	entry, err := ledger.ReadEntry(b.Context(), l.Dir(), 4711, signed.Size)
	if err != nil {
		b.Fatal(err)
	}
	hashes, err := prover.Inclusion(b.Context(), 4711)
	if err != nil {
		b.Fatal(err)
	}
	leaf := tlog.RecordHash(entry)
	b.Run("verify/arch", func(b *testing.B) {
		perCore(b, "proofs", func(int) error { return signed.Includes(4711, hashes, entry) })
	})
	b.Run("verify/path", func(b *testing.B) { // without hashing the entry, as merkle's
		perCore(b, "proofs", func(int) error { return tlog.CheckRecord(hashes, signed.Size, signed.Root, 4711, leaf) })
	})
	var theirs [][]byte
	for _, h := range hashes {
		theirs = append(theirs, bytes.Clone(h[:]))
	}
	b.Run("verify/merkle", func(b *testing.B) {
		perCore(b, "proofs", func(int) error {
			return proof.VerifyInclusion(rfc6962.DefaultHasher, 4711, uint64(signed.Size), leaf[:], theirs, signed.Root[:])
		})
	})
}
