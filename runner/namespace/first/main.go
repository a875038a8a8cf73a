// Command first is the smallest program that can be the first process of a confinement: name it in namespace.Options.Executable.
// It is what every binary that calls namespace.Main can do, without the rest, and so starts faster: a large one
// spends 3 ms of each start on what its other packages prepare.
//
// It must be built from the same source as its caller: the two talk in a format that is nobody else's.
package main

import (
	"fmt"
	"os"

	"arch.network/runner/namespace"
)

func main() {
	handled, code := namespace.Main(os.Args)
	if !handled {
		fmt.Fprintln(os.Stderr, "arch: error: this program is started by others, not by hand")
		code = 2
	}
	os.Exit(code)
}
