package node_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"arch.network/agent"
	"arch.network/attest/digest"
	"arch.network/attest/ledger"
	"arch.network/builder/store"
	"arch.network/runner"
)

// runnerFunc is a runner.
type runnerFunc func(ctx context.Context, spec runner.Spec) (runner.Result, error)

// Run implements runner.Runner.
func (f runnerFunc) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	return f(ctx, spec)
}

// TestFullDisk fills the disk under a node while a job runs: the node lives and says what is wrong, takes nothing that it cannot keep, and goes
// on when there is room, with nothing lost and nothing half written.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	state := filepath.Join(w.dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("arch-test", state, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=32m,mode=700"); err != nil {
		t.Skipf("cannot run here: mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		w.stop()
		if err := unix.Unmount(state, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	ballast := filepath.Join(state, "ballast")
	// fill takes all room, also what the journals have ahead of them, which is zeros.
	fill := func() error {
		f, err := os.OpenFile(ballast, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		for _, dir := range []string{"executor", "ledger/.state"} {
			for _, name := range []string{"journal.0", "journal.1"} {
				path := filepath.Join(state, dir, name)
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				if err := os.Truncate(path, int64(len(bytes.TrimRight(data, "\x00")))); err != nil {
					return err
				}
			}
		}
		for chunk := make([]byte, 4096); err == nil; {
			_, err = f.Write(chunk)
		}
		if errors.Is(err, syscall.ENOSPC) {
			err = nil
		}
		return err
	}
	var full atomic.Bool // the next run fills the disk when it has ended
	w.driver = func(t *testing.T, cache string) (runner.Runner, error) {
		inner, err := alone(t, cache)
		return runnerFunc(func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
			r, err := inner.Run(ctx, spec)
			if full.Load() {
				err = errors.Join(err, fill())
			}
			return r, err
		}), err
	}
	stuck := make(chan struct{})
	once := sync.OnceFunc(func() { close(stuck) })
	w.logged = func(line string) {
		if strings.Contains(line, `msg="not written"`) {
			once()
		}
	}
	n := w.start(t)
	submit := func(nonce string) (agent.Job, error) {
		return n.Submit(t.Context(), w.wordcount(t, nonce, "alice", "bob"), "uid:1000")
	}
	before, err := submit("nonce-0000000000000001")
	if err != nil {
		t.Fatal(err)
	}
	if j := await(t, n, before); j.State != agent.Archived {
		t.Fatalf("it is %s: %+v", j.State, j.Reasons)
	}
	full.Store(true)
	during, err := submit("nonce-0000000000000002")
	if err != nil {
		t.Fatal(err)
	}
	<-stuck
	full.Store(false)

	status, err := n.Status(t.Context())
	if err != nil || len(status.Problems) != 1 || !strings.Contains(status.Problems[0].Text, "no space left on device") || !strings.Contains(status.Problems[0].Cure, "room on the disk") {
		t.Errorf("status %+v, %v", status.Problems, err)
	}
	if j, err := n.Job(t.Context(), during.ID.String()); err != nil || j.State != agent.Running {
		t.Errorf("the job is %s, %v; want running: its end is not on disk", j.State, err)
	}
	if _, err := submit("nonce-0000000000000003"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a job that cannot be kept: %v", err)
	}
	files := list(t, filepath.Join(state, "store"))
	large := bytes.Repeat([]byte("large"), 1<<20)
	for kind, sum := range map[store.Kind]digest.SHA256{store.Blob: digest.Of(large), store.Tree: digest.Of([]byte("nobody gets that far"))} {
		if err := n.PutContent(t.Context(), kind, sum, bytes.NewReader(large)); err == nil || kind == store.Blob && !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a %s that cannot be kept: %v", kind, err)
		}
		if here, err := n.HasContent(kind, sum); err != nil || here {
			t.Errorf("it has it: %v, %v", here, err)
		}
	}
	if diff := cmp.Diff(files, list(t, filepath.Join(state, "store"))); diff != "" {
		t.Errorf("something half-written is in the store (-before +after):\n%s", diff)
	}
	if jobs, err := n.Jobs(t.Context(), agent.Query{}); err != nil || len(jobs) != 2 {
		t.Errorf("it tells of %d jobs, %v", len(jobs), err)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if j := await(t, n, during); j.State != agent.Archived || len(j.Attempts) != 1 {
		t.Errorf("with room it is %s after %d runs: %+v", j.State, len(j.Attempts), j.Reasons)
	}
	if err := n.PutContent(t.Context(), store.Blob, digest.Of(large), bytes.NewReader(large)); err != nil {
		t.Errorf("with room: %v", err)
	}
	after, err := submit("nonce-0000000000000003")
	if err != nil {
		t.Fatal(err)
	}
	if j := await(t, n, after); j.State != agent.Archived {
		t.Errorf("it is %s: %+v", j.State, j.Reasons)
	}
	for { // the state file is tried again after a moment
		status, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(status.Problems) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.stop()
	dir := ledger.Dir(filepath.Join(state, "ledger"))
	policy, err := dir.ReadPolicy()
	if err != nil {
		t.Fatal(err)
	}
	if report, err := ledger.Check(context.Background(), policy, dir, nil); err != nil || !report.OK() {
		t.Errorf("the ledger: %+v, %v", report, err)
	}
}

// list lists the files below a directory.
func list(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		out = append(out, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
