package wasmopt

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestPath makes the same with and without its memory, and something else of something else.
func TestPath(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	program := Path(t)
	dir := t.TempDir()
	in := filepath.Join(dir, "in.wasm")
	run := func(program string, module string, options ...string) []byte {
		t.Helper()
		if err := os.WriteFile(in, []byte(module), 0o600); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "out.wasm")
		cmd := exec.CommandContext(t.Context(), program, append(options, in, "-o", out)...)
		cmd.Env = []string{"LC_ALL=C"}
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	const empty = "\x00asm\x01\x00\x00\x00"
	const memory = empty + "\x05\x03\x01\x00\x01\x07\x05\x01\x01m\x02\x00" // exports a memory
	for range 2 {
		for _, module := range []string{empty, memory} {
			for _, options := range [][]string{{"-O1", "--asyncify"}, {"-O1"}} {
				want, got := run("wasm-opt", module, options...), run(program, module, options...)
				if !bytes.Equal(want, got) {
					t.Errorf("%q of %q: %q, want %q", options, module, got, want)
				}
			}
		}
	}
	if out, err := exec.CommandContext(t.Context(), program, "--version").Output(); err != nil || !bytes.HasPrefix(out, []byte("wasm-opt version")) {
		t.Errorf("%q, %v", out, err)
	}
}
