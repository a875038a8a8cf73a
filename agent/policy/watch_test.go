package policy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
}

// run runs a keeper until the test ends.
func run(t *testing.T, k *Keeper) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
}

// await waits until a version is in force, or refused.
func (w *world) await(version int64, rule Rule) {
	w.t.Helper()
	for {
		select {
		case e := <-w.events:
			if e.InForce != nil && rule == "" && e.InForce.Policy().Spec.Version == version {
				return
			}
			if e.Refused != nil && e.Refused.Rule == rule && rule != "" {
				return
			}
		case <-time.After(30 * time.Second):
			w.t.Fatalf("version %d, rule %q was never reported", version, rule)
		}
	}
}

// TestWatchRename swaps the file as an editor or arch policy activate does.
func TestWatchRename(t *testing.T) {
	w := newWorld(t)
	run(t, w.open())
	w.await(1, "")
	w.put("policy.json", good(t, newPolicy(2)))
	w.await(2, "")
	w.put("policy.json", good(t, newPolicy(1)))
	w.await(0, RuleRollback)
	if err := os.WriteFile(w.path("policy.json"), good(t, newPolicy(3)), 0o644); err != nil { // in place
		t.Fatal(err)
	}
	w.await(3, "")
	os.Remove(w.path("policy.json"))
	w.await(0, RuleFile)
	w.put("policy.json", good(t, newPolicy(4)))
	w.await(4, "")
}

// TestWatchLinks swaps a whole configuration by a symbolic link, as NixOS does: /etc/arch/policy.json leads to
// /etc/static/arch/policy.json, and static to a generation.
func TestWatchLinks(t *testing.T) {
	w := newWorld(t)
	generation := func(name string, version int64) string {
		dir := w.path(name)
		if err := os.MkdirAll(filepath.Join(dir, "arch"), 0o755); err != nil {
			t.Fatal(err)
		}
		w.put(name+"/arch/policy.json", good(t, newPolicy(version)))
		return dir
	}
	link := func(target, name string) {
		temp := w.path(name + ".tmp")
		if err := errors.Join(os.Symlink(target, temp), os.Rename(temp, w.path(name))); err != nil {
			t.Fatal(err)
		}
	}
	link(generation("gen-1", 1), "static")
	if err := os.Mkdir(w.path("etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	link("../static/arch/policy.json", "etc/policy.json")
	o := w.options()
	o.Policy = w.path("etc/policy.json")
	k, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	run(t, k)
	w.await(1, "")
	link(generation("gen-2", 2), "static")
	w.await(2, "")
	link(generation("gen-3", 3), "static")
	w.await(3, "")
	link(w.path("gen-1"), "static")
	w.await(0, RuleRollback)
}
