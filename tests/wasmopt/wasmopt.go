// Package wasmopt gives tests binaryen's wasm-opt, which takes 40 s for a Go program, with a memory: what it has made once of a module is kept
// in the user's cache directory, by the program, its arguments and the module. Packages whose tests prepare the same module prepare it once.
package wasmopt

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// script is wasm-opt for command lines of the form "OPTIONS... IN -o OUT".
const script = `#!/bin/sh
set -eu
real=%s cache=%s
case $* in *" -o "*) ;; *) exec "$real" "$@" ;; esac
for out; do :; done
options=${*%%%% /*}
in=${*#"$options "}
in=${in%%%% -o *}
key=$({ echo "$options"; cat "$real" "$in"; } | sha256sum | cut -c -64)
exec 9>"$cache/$key.lock"
flock 9
if ! [ -e "$cache/$key" ]; then
	"$real" "$@"
	cp "$out" "$cache/$key.new"
	mv "$cache/$key.new" "$cache/$key"
fi
cp "$cache/$key" "$out"
`

// Path returns the path of such a program, which is there for the test. Without wasm-opt the test is skipped.
func Path(t testing.TB) string {
	t.Helper()
	real, err := exec.LookPath("wasm-opt")
	if err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "arch-wasm-opt")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "wasm-opt")
	if err := os.WriteFile(path, fmt.Appendf(nil, script, quote(real), quote(cache)), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// quote makes one word of the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
