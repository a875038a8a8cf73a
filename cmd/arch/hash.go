package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/builder/artifact"
)

func newHashCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "hash PATH...",
		Short: "Print every digest a file or tree is named by",
		Long: `Hash prints the digests by which pins name PATH: sha256 and CID of a file's bytes, NAR hash of a file or tree in the
spellings of Nix (SRI and base 32), the normalised tar of a tree, and the image digest of an OCI layout.`,
		Example: "  arch hash result/hello\n  arch hash --json ./src",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			for _, path := range args {
				res, err := a.hashPath(c.Context(), path)
				if err != nil {
					return err
				}
				if err := a.print(res, res.text); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

type hashResult struct {
	Path     string `json:"path"`
	SHA256   string `json:"sha256,omitempty"` // of a file's bytes
	SRI      string `json:"sri,omitempty"`
	CID      string `json:"cid,omitempty"`
	NAR      string `json:"nar"` // SRI
	NARNix32 string `json:"narNix32"`
	NARSize  int64  `json:"narSize"`
	Tar      string `json:"tar,omitempty"` // normalised, with the epoch 0
	OCI      string `json:"oci,omitempty"` // image digest of an OCI layout
}

func (hashResult) kind() string { return "Digests" }

func (a *app) hashPath(ctx context.Context, path string) (hashResult, error) {
	info, err := os.Lstat(path) // a symbolic link has a NAR hash of its own
	if err != nil {
		return hashResult{}, err
	}
	res := hashResult{Path: path}
	sum, size, err := nar.Hash(ctx, path, nar.Options{})
	if err != nil {
		return hashResult{}, err
	}
	res.NAR, res.NARNix32, res.NARSize = sum.SRI(), sum.Nix32(), size
	if info.Mode().IsRegular() {
		sum, err := hashFile(path)
		if err != nil {
			return hashResult{}, err
		}
		res.SHA256, res.SRI, res.CID = sum.String(), sum.SRI(), sum.CID()
		return res, nil
	}
	if !info.IsDir() {
		return res, nil
	}
	var tar digest.Writer
	if err := artifact.WriteTar(ctx, &tar, path, 0); err != nil {
		return hashResult{}, err
	}
	res.Tar = tar.Sum().String()
	switch image, err := layoutDigest(path); {
	case err == nil:
		res.OCI = image.String()
	case !errors.Is(err, attest.ErrNoForm): // most trees are no image
		a.note("%s is no sound OCI layout: %v", path, err)
	}
	return res, nil
}

func (res hashResult) text(w *screen) {
	fmt.Fprintf(w, "%s\n", res.Path)
	for _, line := range []struct{ name, value string }{
		{"sha256", res.SHA256},
		{"sri", res.SRI},
		{"cid", res.CID},
		{"nar", res.NAR},
		{"nar (nix32)", res.NARNix32},
		{"tar", res.Tar},
		{"oci", res.OCI},
	} {
		if line.value != "" {
			fmt.Fprintf(w, "  %-12s %s\n", line.name, line.value)
		}
	}
	fmt.Fprintf(w, "  %-12s %d bytes\n", "nar size", res.NARSize)
}
