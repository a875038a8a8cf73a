package sequencer_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"
	"arch.network/attest/ledger/sequencer"
)

// What is appended can be proved at once, to whoever has the log's keys.
func TestAppend(t *testing.T) {
	opts := options(t, t.TempDir())
	l := open(t, opts)
	var wait sync.WaitGroup
	var mu sync.Mutex
	indexes := map[int64]string{}
	for i := range 300 {
		wait.Go(func() {
			entry := fmt.Sprintf("entry %d", i)
			index, err := l.Append(t.Context(), []byte(entry))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			indexes[index] = entry
		})
	}
	wait.Wait()
	if len(indexes) != 300 {
		t.Fatalf("300 entries have %d indexes", len(indexes))
	}
	policy, err := ledger.ParsePolicy(opts.Keys.LogPolicy())
	if err != nil {
		t.Fatal(err)
	}
	for index, entry := range indexes {
		p, err := l.Proof(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Verify(policy, []byte(entry)); err != nil {
			t.Error(err)
		}
		if _, err := p.Verify(policy, []byte("another")); err == nil {
			t.Error("another entry was proved")
		}
	}
	for _, index := range []int64{-1, 300} {
		if _, err := l.Proof(t.Context(), index); err == nil {
			t.Errorf("entry %d was proved", index)
		}
	}
	for _, entry := range [][]byte{nil, make([]byte, ledger.MaxEntry+1)} {
		if _, err := l.Append(t.Context(), entry); err == nil {
			t.Errorf("an entry of %d bytes was appended", len(entry))
		}
	}
	closeLog(t, l)
	if _, err := l.Append(t.Context(), []byte("late")); err == nil {
		t.Error("an entry was appended to a closed log")
	}
}

func TestOpenRefuses(t *testing.T) {
	opts := options(t, t.TempDir())
	for _, tt := range []struct {
		name   string
		change func(*sequencer.Options)
		want   string
	}{
		{"no directory", func(o *sequencer.Options) { o.Dir = "" }, "needs a directory"},
		{"no keys", func(o *sequencer.Options) { o.Keys = nil }, "needs keys"},
		{"a record in the log", func(o *sequencer.Options) { o.Signed = filepath.Join(o.Dir, "signed") }, "own directory"},
		{"too often", func(o *sequencer.Options) { o.CheckpointInterval = 1 }, "under the minimum"},
		{"negative", func(o *sequencer.Options) { o.Batch = -1 }, "not negative"},
	} {
		o := opts
		tt.change(&o)
		if _, err := sequencer.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	open(t, opts)
	if _, err := sequencer.Open(t.Context(), opts); !errors.As(err, new(*durable.InUseError)) {
		t.Errorf("a log that is open was opened again: %v", err)
	}
	copied := opts
	copied.Dir += "2" // another log with the same record
	if _, err := sequencer.Open(t.Context(), copied); !errors.As(err, new(*durable.InUseError)) {
		t.Errorf("a second log was opened with the record of the first: %v", err)
	}
}

// fill appends n entries to a log and closes it.
func fill(t testing.TB, opts sequencer.Options, name string, n int) {
	t.Helper()
	l := open(t, opts)
	for i := range n {
		if _, err := l.Append(t.Context(), fmt.Append(nil, name, i)); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, l)
}

func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// A log that is not what was signed last is not opened, and so nothing is signed that contradicts it.
func TestRestoredLog(t *testing.T) {
	dir := t.TempDir()
	opts := options(t, dir)
	fill(t, opts, "a", 5)
	old, fork := filepath.Join(dir, "old"), filepath.Join(dir, "fork")
	copyTree(t, opts.Dir, old)
	fill(t, opts, "b", 5)

	// A fork: the old copy goes on with another record.
	copyTree(t, old, fork)
	forked := options(t, filepath.Join(dir, "elsewhere"))
	forked.Dir, forked.Adopt = fork, true
	fill(t, forked, "c", 7)

	keep := filepath.Join(dir, "keep")
	copyTree(t, opts.Dir, keep)
	record, err := os.ReadFile(opts.Signed)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T)
		want   string
	}{
		{"an old copy", func(t *testing.T) { copyTree(t, old, opts.Dir) }, "restored from an old copy"},
		{"a fork of more entries", func(t *testing.T) { copyTree(t, fork, opts.Dir) }, "rewritten or forked"},
		{"nothing", func(t *testing.T) { os.RemoveAll(opts.Dir) }, "restored from an old copy"},
		{"an old tree under a new checkpoint", func(t *testing.T) {
			copyTree(t, old, opts.Dir)
			copyFile(t, filepath.Join(keep, "checkpoint"), filepath.Join(opts.Dir, "checkpoint"))
		}, "restored from an old copy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.change(t)
			_, err := sequencer.Open(t.Context(), opts)
			restored, ok := errors.AsType[*sequencer.RestoredError](err)
			if !ok || !strings.Contains(err.Error(), tt.want) || restored.Hint() == "" {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if now, err := os.ReadFile(opts.Signed); err != nil || !bytes.Equal(now, record) {
				t.Errorf("the record changed: %v", err)
			}
		})
	}
	copyTree(t, keep, opts.Dir) // the newest copy is fine
	fill(t, opts, "d", 1)

	if err := os.Remove(opts.Signed); err != nil {
		t.Fatal(err)
	}
	if _, err := sequencer.Open(t.Context(), opts); !errors.As(err, new(*sequencer.NoRecordError)) {
		t.Errorf("a log without a record was opened: %v", err)
	}
	opts.Adopt = true
	fill(t, opts, "e", 1)
	if err := os.WriteFile(filepath.Join(opts.Dir, "checkpoint"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := sequencer.Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "checkpoint") {
		t.Errorf("a damaged checkpoint: %v", err)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A running log whose files are put back to an old copy signs nothing more, and says so.
func TestRestoredWhileOpen(t *testing.T) {
	dir := t.TempDir()
	opts := options(t, dir)
	fill(t, opts, "a", 5)
	old := filepath.Join(dir, "old")
	copyTree(t, opts.Dir, old)
	fill(t, opts, "b", 5)
	l := open(t, opts)
	state, err := os.ReadFile(filepath.Join(old, ".state", "treeState"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(opts.Dir, ".state", "treeState"), state, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := l.Recover(t.Context()); !errors.As(err, new(*sequencer.RestoredError)) {
		t.Errorf("recovered from an old copy: %v", err)
	}
	if _, err := l.Append(t.Context(), []byte("c")); err != nil {
		t.Fatal(err)
	}
	signed, err := l.Checkpoint(t.Context())
	if err != nil || signed.Size != 10 {
		t.Errorf("the checkpoint is %v, %v", signed, err)
	}
}

func TestRecorder(t *testing.T) {
	opts := options(t, t.TempDir())
	l := open(t, opts)
	r := recorder(t, l)
	first, err := r.Record(t.Context(), attest.Decision{Kind: "node", Verdict: "started", Summary: "The node has started."}, attest.Document("node", digest.Of([]byte("x"))))
	if err != nil || first.Sequence != 1 || first.Index != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	var items []sequencer.Item
	for i := range 50 {
		d, subject := decision(i)
		items = append(items, sequencer.Item{Decision: d, Subjects: []attest.ResourceDescriptor{subject}})
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			list, err := r.RecordAll(t.Context(), items)
			if err != nil || len(list) != len(items) {
				t.Errorf("%d, %v", len(list), err)
			}
		})
	}
	wait.Wait()
	if _, err := r.Record(t.Context(), attest.Decision{Kind: "guess"}); err == nil {
		t.Error("a decision of no kind was recorded")
	}
	closeLog(t, l)

	l = open(t, opts)
	r = recorder(t, l)
	d, subject := decision(1)
	e, err := r.Record(t.Context(), d, subject)
	if err != nil || e.Sequence != 402 || e.Index != 401 {
		t.Fatalf("%+v, %v", e, err)
	}
	checkChain(t, l, 402)
	p, err := r.Proof(t.Context(), e.Index)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := ledger.ReadEntry(t.Context(), l.Dir(), e.Index, 402)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verify(l.Policy(), entry); err != nil {
		t.Error(err)
	}
}

// checkChain reads the whole log, in which n decisions must be.
func checkChain(t testing.TB, l *sequencer.Log, n int64) {
	t.Helper()
	tree, err := l.Tree()
	if err != nil {
		t.Fatal(err)
	}
	var c attest.Chain
	for i := range tree.Size {
		entry, err := ledger.ReadEntry(t.Context(), l.Dir(), i, tree.Size)
		if err != nil {
			t.Fatal(err)
		}
		record, err := attest.ReadRecord(entry, nodeKey(t, 1).Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Add(record); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, err := c.End(); err != nil || got != n {
		t.Errorf("%d decisions, want %d: %v", got, n, err)
	}
}

// A log whose storage rests after each entry goes on as any other.
func TestRest(t *testing.T) {
	opts := options(t, t.TempDir())
	opts.RestAfter = time.Millisecond
	l := open(t, opts)
	r := recorder(t, l)
	for i := range 10 {
		d, subject := decision(i)
		e, err := r.Record(t.Context(), d, subject)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 { // until a checkpoint covers it, it does not rest
			if _, err := r.Proof(t.Context(), e.Index); err != nil {
				t.Fatal(err)
			}
		}
	}
	checkChain(t, l, 10)
	closeLog(t, l)
	if report := check(t, opts, true); !report.OK() || report.Signed.Size != 10 {
		t.Errorf("%+v", report)
	}
}

// A log that does not end with the node's own chain is not gone on with.
func TestRecorderRefuses(t *testing.T) {
	opts := options(t, t.TempDir())
	l := open(t, opts)
	r := recorder(t, l)
	d, subject := decision(1)
	if _, err := r.Record(t.Context(), d, subject); err != nil {
		t.Fatal(err)
	}
	other := sequencer.RecorderOptions{Signer: nodeKey(t, 2)}
	if _, err := sequencer.NewRecorder(t.Context(), l, other); err == nil {
		t.Error("another node goes on with the chain")
	}
	other.Former = append(other.Former, nodeKey(t, 1).Public())
	if r, err := sequencer.NewRecorder(t.Context(), l, other); err != nil || r.Next() != 2 {
		t.Errorf("the node's new key does not go on: %v", err)
	}
	entry, err := ledger.ReadEntry(t.Context(), l.Dir(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	if _, err := sequencer.NewRecorder(t.Context(), l, sequencer.RecorderOptions{Signer: nodeKey(t, 1)}); !errors.As(err, new(*attest.ChainError)) {
		t.Errorf("a chain with one decision twice is gone on with: %v", err)
	}
	if _, err := l.Checkpoint(t.Context()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
