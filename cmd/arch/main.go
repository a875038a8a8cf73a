// Command arch proves where bytes come from: it builds artifacts bit for bit from pinned inputs, signs receipts for
// them, rebuilds from receipts, and verifies all of it offline.
//
// Results go to stdout, everything else to stderr. An error is two lines, what is wrong and the way out, and has an exit
// status that exitStatuses documents. Text that comes from elsewhere is escaped before a terminal sees it.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"arch.network/attest/ledger/hammer"
	"arch.network/runner/checkpoint"
	"arch.network/runner/egress"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

func main() {
	if handled, code := otherMain(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(mainStatus())
}

// otherMain is the program in its other lives: as the first process of a confinement or unit, as the gateway of a job's
// network, as the worker that runs a module, or as a writer that hammer kills.
func otherMain(args []string) (handled bool, code int) {
	if handled, code = namespace.Main(args); handled {
		return handled, code
	}
	if handled, code = probeMain(args); handled {
		return handled, code
	}
	if handled, code = egress.Main(args); handled {
		return handled, code
	}
	if handled, code = hammer.Main(args); handled {
		return handled, code
	}
	if handled, code = wasm.Main(args, checkpoint.Extension()); handled {
		return handled, code
	}
	return systemd.Main(args, unitInner)
}

// mainStatus runs the program with the process's own streams.
func mainStatus() int {
	return mainWith(os.Stdout, os.Stderr)
}

// mainWith runs the program with the process's own arguments and input. The first interrupt ends what is going on in order; a second
// one ends the process where it stands.
func mainWith(out, errout io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdin, out, errout)
}

// run is the whole program: it executes one command line and returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errout io.Writer) int {
	a := newApp(in, out, errout)
	root := newRootCommand(a, args...)
	a.json = asksForJSON(args) // so that what is wrong with the other flags is told in JSON, too
	root.SetArgs(args)
	return a.exit(ctx, root.ExecuteContext(ctx))
}

// asksForJSON reports whether --json, or --output with a form for programs, is among the flags.
func asksForJSON(args []string) bool {
	for i, arg := range args {
		form, ok := strings.CutPrefix(arg, "--output=")
		if arg == "--output" && i+1 < len(args) {
			form, ok = args[i+1], true
		}
		switch {
		case arg == "--json", ok && form != formatText && slices.Contains(formats(), form):
			return true
		case arg == "--":
			return false
		}
	}
	return false
}
