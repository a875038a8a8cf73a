package wasm_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"arch.network/runner"
	"arch.network/runner/wasm"
)

func TestExtension(t *testing.T) {
	for name, o := range map[string]wasm.Options{"compiled": {}, "cached": {Cache: t.TempDir()}} {
		r := newRunner(t, o)
		run := func(t *testing.T, send []byte, stop chan struct{}) (runner.Result, string) {
			var said strings.Builder
			spec := tool("echo", "x", "loop")
			result, err := r.RunExtra(t.Context(), spec, wasm.Extra{Name: "slices", Send: [][]byte{send}, Stop: stop, Receive: func(b []byte) error {
				if string(b) == "first " && stop != nil {
					close(stop)
				}
				said.Write(b)
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			return result, said.String()
		}
		t.Run(name+"/by itself", func(t *testing.T) {
			got, said := run(t, binary.LittleEndian.AppendUint64(nil, 5), nil)
			if got.Reason != runner.ReasonCancelled || said != "first 5 slices, 131072 bytes of memory, 5 descriptors, 2 bytes written" || got.Gas < 500_000 {
				t.Errorf("said %q, got %+v", said, got)
			}
		})
		t.Run(name+"/when asked", func(t *testing.T) {
			got, said := run(t, nil, make(chan struct{}))
			if got.Reason != runner.ReasonCancelled || !strings.HasPrefix(said, "first ") {
				t.Errorf("said %q, got %+v", said, got)
			}
		})
	}
	_, err := newRunner(t, wasm.Options{}).RunExtra(t.Context(), tool(), wasm.Extra{Name: "nothing"})
	if setup, ok := errors.AsType[*runner.SetupError](err); !ok || !strings.Contains(setup.Error(), `no extension "nothing"`) {
		t.Errorf("unknown extension: %v", err)
	}
}
