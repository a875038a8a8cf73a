package node_test

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"arch.network/agent/node"
	"arch.network/attest/digest"
	"arch.network/builder/store"
)

// TestUpload keeps what is handed over from garbage collection, for an hour or until the next start.
func TestUpload(t *testing.T) {
	w := newWorld(t)
	start := time.Now()
	var later atomic.Int64 // seconds
	w.now = func() time.Time { return start.Add(time.Duration(later.Load()) * time.Second) }
	n := w.start(t)
	one, two := []byte("what a job pins"), []byte("what another job pins")
	put := func(n *node.Node, data []byte) {
		t.Helper()
		if err := n.PutContent(t.Context(), store.Blob, digest.Of(data), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	has := func(n *node.Node, data []byte, want bool) {
		t.Helper()
		if _, err := n.Store.GC(t.Context(), store.GCOptions{Age: -1}); err != nil {
			t.Fatal(err)
		}
		if have, err := n.HasContent(store.Blob, digest.Of(data)); err != nil || have != want {
			t.Errorf("%q: %v, %v", data, have, err)
		}
	}
	put(n, one)
	put(n, one) // again is harmless
	has(n, one, true)
	err := n.PutContent(t.Context(), store.Blob, digest.Of(two), strings.NewReader("something else"))
	if _, ok := errors.AsType[*store.MismatchError](err); !ok {
		t.Errorf("got %v", err)
	}
	if err := n.PutContent(t.Context(), store.Tree, digest.Of(two), bytes.NewReader(two)); err == nil {
		t.Error("what is no archive became a tree")
	}
	has(n, two, false)
	later.Store(2 * 60 * 60)
	put(n, two)
	has(n, one, false)
	has(n, two, true)
	w.stop()
	n = w.start(t)
	has(n, two, false)
}
