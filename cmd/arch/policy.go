package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"arch.network/agent/policy"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

func newPolicyCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Show, check, change and put in force what a node accepts",
		Long: `A policy says what a node accepts: who may have jobs run, what they may use, what must be proven of their images.

To change one: edit a copy, propose numbers it as the next version, diff says what it allows more and less, check tries it on
a job, members of the trust root's policy role sign it, and activate puts it where nodes look, if enough of them did.`,
	}
	c.AddCommand(newPolicyShowCommand(a), newPolicyCheckCommand(a), newPolicyDiffCommand(a), newPolicyProposeCommand(a), newPolicySignCommand(a), newPolicyActivateCommand(a))
	return c
}

// readPolicy reads a policy in either carrier. Nothing is verified.
func (a *app) readPolicy(path string) (*dsse.Envelope, *manifest.Policy, error) {
	env, doc, err := a.readSigned(path)
	if err != nil {
		return nil, nil, err
	}
	p, ok := doc.(*manifest.Policy)
	if !ok {
		return nil, nil, hinted(fmt.Errorf("%s is a %s, not a Policy", path, doc.DocumentKind()), "arch policy takes documents of kind Policy")
	}
	return env, p, nil
}

// policyStatus gives a refused policy its exit status.
func policyStatus(err error) error {
	no, ok := errors.AsType[*policy.RefusedError](err)
	switch {
	case !ok:
		return err
	case no.Rule == policy.RuleForm || no.Rule == policy.RuleFile:
		return withStatus(exitError, err)
	}
	return withStatus(exitDenied, err)
}

// changeMarks are how the directions of changes are shown.
var changeMarks = map[policy.Direction]struct{ mark, color string }{
	policy.More: {"+", "33"}, policy.Less: {"-", "32"}, policy.Other: {"~", "2"},
}

// showChanges shows one change a line.
func showChanges(s *screen, list []policy.Change) {
	for _, c := range list {
		m := changeMarks[c.Direction]
		s.paint(m.color, m.mark)
		fmt.Fprintf(s, " %s  [%s]\n", c.Text, c.Field)
	}
}
