package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"arch.network/attest/digest"
	"arch.network/cmd/release"
)

const version = release.Version

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show which arch this is",
		Example: "  arch version --json",
		Args:    cobra.NoArgs,
		Long: `Version shows which arch this is. Nothing that a program says of itself proves from what source it was built; its hash does, with a receipt that
names it: arch verify FILE --receipts DIR.`,
		RunE: func(*cobra.Command, []string) error {
			v := versionResult{Version: release.Version, Commit: release.Commit(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Module, v.Sum = info.Main.Path, info.Main.Sum
			}
			var err error
			if v.Program, err = hashProgram(); err != nil {
				return err
			}
			return a.print(v, func(w *screen) {
				fmt.Fprintf(w, "arch %s (%s, %s)\n", v.Version, v.Go, v.Platform)
				if v.Commit != "" {
					fmt.Fprintf(w, "  commit   %s\n", v.Commit)
				}
				if v.Sum != "" {
					fmt.Fprintf(w, "  source   %s %s\n", v.Module, v.Sum)
				}
				fmt.Fprintf(w, "  program  %s\n", v.Program)
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
	// Sum is the hash of the module (go.sum's h1) that the go command built it from; unknown if it was built in a directory.
	Sum     string        `json:"sum,omitempty"`
	Program digest.SHA256 `json:"program"` // of the running program's file, the subject of receipts
}

// hashProgram returns the SHA-256 of the file that this process runs.
func hashProgram() (digest.SHA256, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("hash program: %w", err)
	}
	defer f.Close()
	var sum digest.Writer
	if _, err := io.Copy(&sum, f); err != nil {
		return digest.SHA256{}, fmt.Errorf("hash program: %w", err)
	}
	return sum.Sum(), nil
}

func (versionResult) kind() string { return "Version" }
