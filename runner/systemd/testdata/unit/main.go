// Command unit is the program of the units that the tests of package systemd start, where the test binary itself cannot be.
package main

import (
	"fmt"
	"os"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/systemd/testdata/peer"
	"arch.network/runner/wasm"
)

func main() {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := systemd.Main(os.Args, inner); handled {
		os.Exit(code)
	}
	if handled, code := wasm.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := peer.Main(os.Args); handled {
		os.Exit(code)
	}
	fmt.Fprintln(os.Stderr, "unit: only systemd starts this")
	os.Exit(64)
}

func inner() (runner.Runner, error) { return namespace.New(namespace.Options{NoCgroups: true, CountRefused: true}) }
