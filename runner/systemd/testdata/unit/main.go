// Command unit is the first process of the units that the tests of package systemd start.
package main

import (
	"fmt"
	"os"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
)

func main() {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := systemd.Main(os.Args, inner); handled {
		os.Exit(code)
	}
	fmt.Fprintln(os.Stderr, "unit: only systemd starts this")
	os.Exit(64)
}

func inner() (runner.Runner, error) { return namespace.New(namespace.Options{NoCgroups: true}) }
