package bench

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/ledger/journal"
)

const (
	floorJobs      = 512
	floorGroup     = 8       // jobs that share a wait for the disk
	floorStatement = 2 << 10 // bytes, of a statement or an entry of the ledger
	floorRecord    = 6 << 10 // bytes, of what a step writes into the state
)

// floor is the CPU time, of this process alone, of what no node can leave out for a job of BenchmarkNode: its signature verified, the two entries of the
// ledger and the two statements hashed and signed, each step written to the two journals with those of others and synced, and an instance of the
// module, compiled before, made and run.
func (w *nodeWorld) floor(b *testing.B) time.Duration {
	b.Helper()
	statement, record := make([]byte, floorStatement), make([]byte, floorRecord)
	key := w.keys["node"]
	sig, err := key.Sign(b.Context(), statement)
	if err != nil {
		b.Fatal(err)
	}
	var journals [2]*journal.Journal
	for i := range journals {
		if journals[i], err = journal.Open(b.TempDir(), journal.Options{MaxEntry: floorRecord}); err != nil {
			b.Fatal(err)
		}
		defer journals[i].Close()
	}
	echo := w.echo(b)
	began := selfCPU(b)
	for done := 0; done < floorJobs; done += floorGroup {
		for range floorGroup {
			w.floorSigns(b, key, statement, sig)
			echo()
		}
		for step := range 2 { // its start, and its end
			next := int64(2*done + step*floorGroup)
			for i, entry := range [][]byte{statement, record} {
				var group [][]byte
				for range floorGroup {
					group = append(group, entry)
				}
				if err := journals[i].Write(next, group); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	return (selfCPU(b) - began) / floorJobs
}

// floorSigns verifies once, and hashes and signs four times.
func (w *nodeWorld) floorSigns(b *testing.B, key *identity.Key, statement, sig []byte) {
	b.Helper()
	if err := key.Public().Verify(statement, sig); err != nil {
		b.Fatal(err)
	}
	for range 4 {
		digest.Of(statement)
		if _, err := key.Sign(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
}

// echo returns what runs the module of BenchmarkNode once, in this process and in an instance of its own.
func (w *nodeWorld) echo(b *testing.B) func() {
	b.Helper()
	code, err := os.ReadFile(filepath.Join(w.content, "tool.wasm"))
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	runtime := wazero.NewRuntime(ctx)
	b.Cleanup(func() { runtime.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, runtime)
	compiled, err := runtime.CompileModule(ctx, code)
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		m, err := runtime.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithArgs("tool", "echo", "hello"))
		if m != nil {
			err = m.Close(ctx)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
