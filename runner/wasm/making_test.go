package wasm

import (
	"context"
	"runtime"
	"testing"

	"arch.network/runner"
)

// TestMaking lets no more workers be made for one kind of job at a time than there are processors, however many runs wait and have lost
// their patience, and forgets nobody who was cancelled.
func TestMaking(t *testing.T) {
	r, err := New(Options{Driver: struct{ runner.Runner }{}})
	if err != nil {
		t.Fatal(err)
	}
	key := keptKey{owner: "a"}
	for range runtime.NumCPU() {
		if w, wait := r.takeIdle(key); w != nil || wait != nil {
			t.Fatal("it waits, although too few are being made")
		}
	}
	if _, wait := r.takeIdle(key); wait == nil {
		t.Error("one more is made than there are processors")
	}
	if r.mayMake(t.Context(), key) {
		t.Error("who has lost its patience makes another one, while others are being made")
	}
	if _, wait := r.takeIdle(keptKey{owner: "b"}); wait != nil {
		t.Error("another owner waits for them")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if !r.mayMake(cancelled, key) {
		t.Error("who was cancelled waits")
	}
	r.made(key)
	r.made(key)
	if !r.mayMake(t.Context(), key) {
		t.Error("none is made, although one fewer is being made")
	}
}
