// Command worker is the smallest program that can be a worker of package wasm: tests use it in place of arch.
package main

import (
	"os"

	"arch.network/runner/wasm"
)

func main() {
	handled, code := wasm.Main(os.Args)
	if !handled {
		code = 2
	}
	os.Exit(code)
}
