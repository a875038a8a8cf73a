package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the release that this source tree becomes. It is in the source, not given to the linker, so that the same
// source gives the same binary.
const version = "0.1.0"

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show which arch this is",
		Example: "  arch version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
				Module   string `json:"module"`
			}{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Module = info.Main.Path
			}
			return a.print(v, func(w *screen) {
				fmt.Fprintf(w, "arch %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			})
		},
	}
}
