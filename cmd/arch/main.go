// Command arch proves where bytes come from: it builds artifacts bit for bit from pinned inputs, signs receipts for
// them, rebuilds from receipts, and verifies all of it offline.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"arch.network/runner/namespace"
)

func main() {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program: it executes one command line and returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errout io.Writer) int {
	a := newApp(in, out, errout)
	root := newRootCommand(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return a.exit(ctx, err)
}
