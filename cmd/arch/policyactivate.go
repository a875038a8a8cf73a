package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"arch.network/agent/policy"
	"arch.network/attest/digest"
	"arch.network/attest/docfile"
	"arch.network/attest/dsse"
)

const policyActivateHelp = `Activate puts a signed policy where a node looks for it: the envelope, in one step, so that the node sees the old one or the new one.
It refuses what the node would refuse: too few signatures of the policy role, a version that is not exactly the next one, one that has
expired or was written for another trust root.

EXIT STATUS: 0 it is there; 1 error, or it is no valid policy; 2 usage; 3 refused: what was there stays.`

func newPolicyActivateCommand(a *app) *cobra.Command {
	var to, trust string
	var dry bool
	c := &cobra.Command{
		Use:     "activate FILE",
		Short:   "Put a signed policy where a node looks for it",
		Long:    policyActivateHelp,
		Example: "  arch policy activate policy.yaml --to /etc/arch/policy.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if to == "" {
				return hinted(usage("--to is missing: where does the node look for its policy?"), "add --to PATH")
			}
			return runPolicyActivate(a, args[0], to, trust, dry)
		},
	}
	c.Flags().StringVar(&to, "to", "", "file that the node reads")
	c.Flags().StringVar(&trust, "trust", "", "trust root (default: trust.yaml in the configuration directory)")
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only check whether it would be put there")
	return c
}

func runPolicyActivate(a *app, path, to, trustPath string, dry bool) error {
	env, next, err := a.readPolicy(path)
	if err != nil {
		return err
	}
	_, trust, err := a.openTrust(trustPath)
	if err != nil {
		return err
	}
	current, err := currentPolicy(to)
	if err != nil {
		return err
	}
	active, err := policy.Next(trust, current, env, time.Now())
	if err != nil {
		return policyStatus(err)
	}
	if !dry {
		if err := installFile(to, envelopeFile(env)); err != nil {
			return err
		}
	}
	res := policyActivation{to, next.Metadata.Name, next.Spec.Version, active.ID(), dry}
	return a.print(res, func(s *screen) {
		verb := "put"
		if dry {
			verb = "would put"
		}
		fmt.Fprintf(s, "%s %s version %d into %s\n  id %s\n", verb, res.Name, res.Version, res.File, res.ID)
	})
}

// policyActivation is a policy that was put in force.
type policyActivation struct {
	File    string        `json:"file"`
	Name    string        `json:"name"`
	Version int64         `json:"version"`
	ID      digest.SHA256 `json:"id"`
	DryRun  bool          `json:"dryRun,omitempty"` // nothing was changed
}

func (policyActivation) kind() string { return "PolicyActivation" }

// currentPolicy returns what lies where the node looks; nil: nothing.
func currentPolicy(path string) (*dsse.Envelope, error) {
	env, err := docfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, hinted(fmt.Errorf("read the policy in force: %w", err), "the node would not believe what lies there: mend that first")
	}
	return env, nil
}

// installFile is replaceFile for a file that others read.
func installFile(path string, data []byte) error {
	_, err := os.Lstat(path)
	if err := replaceFile(path, data); err != nil {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return os.Chmod(path, 0o644)
	}
	return nil
}
