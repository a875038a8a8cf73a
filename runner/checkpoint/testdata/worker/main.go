// Command worker is a worker that can stop and resume modules.
package main

import (
	"os"

	"arch.network/runner/checkpoint"
	"arch.network/runner/namespace"
	"arch.network/runner/wasm"
)

func main() {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := wasm.Main(os.Args, checkpoint.Extension()); handled {
		os.Exit(code)
	}
	os.Exit(2)
}
