package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"arch.network/cmd/release"
)

const version = release.Version

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show which arch this is",
		Example: "  arch version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versionResult{Version: release.Version, Commit: release.Commit(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Module = info.Main.Path
			}
			return a.print(v, func(w *screen) {
				fmt.Fprintf(w, "arch %s (%s, %s)\n", v.Version, v.Go, v.Platform)
				if v.Commit != "" {
					fmt.Fprintf(w, "  commit  %s\n", v.Commit)
				}
			})
		},
	}
}

// versionResult is which arch this is.
type versionResult struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"` // unknown to packages, which are built from the source alone
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Module   string `json:"module"`
}

func (versionResult) kind() string { return "Version" }
