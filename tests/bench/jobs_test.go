package bench

import (
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/wasm"
)

// BenchmarkJobs runs many small jobs, two at a time: a C module of some 40 KB counts the words of a file, which is named by its digest,
// and writes the result to a file that is collected and named by its digest. It compares workers that are kept for their owner ("reused")
// with those that run one job each ("fresh", with what starting them costs), by jobs a second and CPU time a job: of this process, which
// stands for the node, and of the workers, as their control groups count it.
func BenchmarkJobs(b *testing.B) {
	worker := buildProgram(b, "../../runner/wasm/testdata/worker", "worker")
	driver, err := namespace.New(namespace.Options{})
	if err != nil {
		b.Fatal(err)
	}
	pool, err := driver.NewPool(namespace.PoolOptions{Size: 2, Class: runner.Spec{
		Commands: []runner.Command{wasm.PoolCommand("/worker")},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: worker, Target: "/worker"}, {Kind: runner.Tmpfs, Target: "/tmp", Size: 256 << 20},
		},
		Limits: runner.Limits{Memory: 512 << 20},
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	r, err := wasm.New(wasm.Options{Driver: driver, Pool: pool, Worker: worker, Cache: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	fresh := countWords(b)
	reused := fresh
	kept := *fresh.Module
	kept.Reuse = "somebody"
	reused.Module = &kept
	b.Run("reused", func(b *testing.B) { runJobs(b, r, reused) })
	b.Run("fresh", func(b *testing.B) { runJobs(b, r, fresh) })
}

// clients is how many jobs run at a time.
const clients = 2

func runJobs(b *testing.B, r *wasm.Runner, spec runner.Spec) {
	for range clients { // what is kept is made, and the code cached
		runJob(b, r, spec)
	}
	var mu sync.Mutex
	var cpu time.Duration
	jobs := make(chan struct{})
	var done sync.WaitGroup
	before, began := selfCPU(b), time.Now()
	for range clients {
		done.Go(func() {
			var own time.Duration
			for range jobs {
				own += runJob(b, r, spec).CPU
			}
			mu.Lock()
			cpu += own
			mu.Unlock()
		})
	}
	for b.Loop() {
		jobs <- struct{}{}
	}
	close(jobs)
	done.Wait()
	n := float64(b.N)
	b.ReportMetric(n/time.Since(began).Seconds(), "jobs/s")
	b.ReportMetric((selfCPU(b)-before).Seconds()*1e6/n, "node-µs/job")
	b.ReportMetric(cpu.Seconds()*1e6/n, "worker-µs/job")
	b.ReportMetric(0, "ns/op")
}

func runJob(b *testing.B, r *wasm.Runner, spec runner.Spec) runner.Result {
	result, err := r.Run(b.Context(), spec)
	if err != nil || !result.OK() || len(result.Outputs) != 1 || result.Outputs[0].NAR.IsZero() {
		b.Errorf("run: %+v, %v", result, err)
	}
	return result
}

// countWords is a job as a node derives it: everything it gets is named by its digest.
func countWords(b *testing.B) runner.Spec {
	b.Helper()
	module := filepath.Join(absolute(b, "../../runner/wasm/testdata"), "tool.wasm")
	code, err := os.ReadFile(module)
	if err != nil {
		b.Fatal(err)
	}
	text := []byte("one two  three\nfour\n")
	input := filepath.Join(b.TempDir(), digest.Of(text).Hex())
	if err := os.WriteFile(input, text, 0o444); err != nil {
		b.Fatal(err)
	}
	clock, seed := time.Unix(1_700_000_000, 0), [32]byte{}
	return runner.Spec{
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: module, Target: "/module.wasm"},
			{Kind: runner.Bind, Source: input, Target: "/inputs/text"},
			{Kind: runner.Tmpfs, Target: "/outputs", Size: 1 << 20},
		},
		Module: &runner.Module{
			Path: "/module.wasm", Digest: digest.Of(code), Args: []string{"tool", "words", "/inputs/text", "/outputs/count"},
			Clock: &clock, Seed: &seed, Gas: 1 << 30, Memory: 64 << 20,
			Dirs: []runner.Dir{{Path: "/inputs", As: "/inputs"}, {Path: "/outputs", As: "/outputs", Writable: true}},
		},
		Outputs: []runner.Output{{Name: "count", Path: "/outputs/count"}},
		Collect: func(_ runner.Output, archive io.Reader) error {
			_, err := io.Copy(io.Discard, archive)
			return err
		},
		Limits: runner.Limits{Wall: time.Minute, Memory: 512 << 20},
	}
}
