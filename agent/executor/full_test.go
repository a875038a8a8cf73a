package executor_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"arch.network/agent"
	"arch.network/agent/executor"
	"arch.network/runner"
)

// small mounts a file system without much room at a directory, until the test ends.
func small(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("arch-test", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size="+size+",mode=700"); err != nil {
		t.Skipf("cannot run here: mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

// TestFullLog runs out of space where logs lie: what cannot be kept of what a job printed fails the job, however well it ended, and the
// next ones run when there is room.
func TestFullLog(t *testing.T) {
	dir := tempDir(t)
	logs := filepath.Join(dir, "state", "logs")
	small(t, logs, "64k")
	prints := func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		for range 8 {
			_, _ = io.WriteString(spec.Stderr, strings.Repeat("0123456789abcde\n", 1<<10)) // a runner goes on when nobody listens
		}
		return exits(ctx, spec)
	}
	n := newNode(t, setup{dir: dir, driver: direct(prints), change: func(o *executor.Options) { o.Slots = 1 }})
	t.Cleanup(n.stop) // before the file system goes
	full := n.await(n.submit(n.example("c-hello-wasm", nonce(1))).ID)
	if full.State != agent.Failed || len(full.Reasons) != 1 || !strings.Contains(full.Reasons[0].Msg, "no space left on device") || !strings.Contains(full.Reasons[0].Cure, "make room") {
		t.Fatalf("it is %s: %+v", full.State, full.Reasons)
	}
	if _, err := n.Bundle(t.Context(), full.ID); err == nil {
		t.Error("there is an archive entry")
	}
	kept := n.log(full.ID, agent.LogQuery{Stream: "stderr"})
	if whole := strings.Repeat("0123456789abcde\n", 8<<10); !strings.HasPrefix(whole, kept) || kept == "" {
		t.Errorf("its log has %d bytes, which are not what it printed first", len(kept))
	}
	if err := unix.Mount("arch-test", logs, "tmpfs", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=700"); err != nil {
		t.Fatal(err)
	}
	j := n.await(n.submit(n.example("c-hello-wasm", nonce(2))).ID)
	if j.State != agent.Archived || len(n.log(j.ID, agent.LogQuery{Stream: "stderr"})) != 8<<14 {
		t.Errorf("with room it is %s: %+v", j.State, j.Reasons)
	}
}
