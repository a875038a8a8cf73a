package wasm

import (
	"io"
	"sync/atomic"
	"testing"
)

// The rehearsal is a run: it gets to its end.
func TestRehearsalModule(t *testing.T) {
	for _, interpret := range []bool{false, true} {
		e, err := newEngine(t.Context(), task{Interpret: interpret}, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		compiled, err := e.compile(t.Context(), []byte(rehearsalModule))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.instantiate(t.Context(), compiled); err != nil {
			t.Fatal(err)
		}
		r, err := newRun(e, task{}, nil, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if rep := r.execute(t.Context(), nil, nil, io.Discard, new(atomic.Bool)); rep.End != endExit || rep.Exit != 0 || rep.Memory != 65536 {
			t.Errorf("got %+v", rep)
		}
	}
}
