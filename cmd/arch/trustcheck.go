package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
)

const trustCheckHelp = `Check tells whether a trust root can be relied on: whether it is sound (every key good and of one principal, every role
reachable), has not expired, cannot be changed by others on this machine, and, if it carries signatures, whether its own
governance signed it.

EXIT STATUS: 0 every check passed; 1 error, or it is no valid trust root; 2 usage; 3 it has expired or others may change it;
4 its signatures do not verify or are not enough.`

// expirySoon is how long before its end a trust root is worth a word.
const expirySoon = 30 * 24 * time.Hour

func newTrustCheckCommand(a *app) *cobra.Command {
	var at string
	c := &cobra.Command{
		Use:     "check [FILE]",
		Short:   "Check whether a trust root can be relied on",
		Long:    trustCheckHelp,
		Example: "  arch trust check\n  arch trust check --at 2027-06-01T00:00:00Z root-2.yaml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			when, err := parseTime("--at", at)
			if err != nil {
				return err
			}
			path, err := a.trustPath()
			if len(args) == 1 {
				path, err = args[0], nil
			}
			if err != nil {
				return err
			}
			return runTrustCheck(a, path, when)
		},
	}
	c.Flags().StringVar(&at, "at", "", "judge expiry at this time, RFC 3339 (default: now)")
	return c
}

// trustCheck is one line of the result.
type trustCheck struct {
	Name   string        `json:"name"`
	Result attest.Result `json:"result"`
	Detail string        `json:"detail"`
	Hint   string        `json:"hint,omitempty"`
	status int           // exit status of a failure
}

// trustCheckResult is what is to be said about a trust root.
type trustCheckResult struct {
	File   string       `json:"file"`
	OK     bool         `json:"ok"`
	Checks []trustCheck `json:"checks"`
}

func (trustCheckResult) kind() string { return "TrustCheck" }

func runTrustCheck(a *app, path string, at time.Time) error {
	root, err := a.readTrust(path)
	if err != nil {
		return err
	}
	compiled, err := quorum.Compile(root)
	if err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	checks := []trustCheck{
		{Name: "form", Result: attest.Pass, Detail: fmt.Sprintf("%s version %d: %d principals, roles %s", root.Metadata.Name, root.Spec.Version, len(root.Spec.Principals), strings.Join(rolesOf(root), ", "))},
		checkExpiry(compiled, at),
		checkOwner(path),
		checkGovernance(root, compiled, at),
	}
	res := trustCheckResult{path, true, checks}
	var failure error
	for _, c := range checks {
		if c.Result == attest.Fail {
			res.OK = false
			failure = hinted(withStatus(c.status, fmt.Errorf("check %s: %s: %s", path, c.Name, c.Detail)), c.Hint)
		}
	}
	if err := a.print(res, func(s *screen) { showChecks(s, checks) }); err != nil {
		return err
	}
	return failure
}

func showChecks(s *screen, checks []trustCheck) {
	colors := map[attest.Result]string{attest.Pass: "32", attest.Fail: "31", attest.Skip: "2"}
	for _, c := range checks {
		s.paint(colors[c.Result], string(c.Result))
		fmt.Fprintf(s, "  %-12s %s\n", c.Name, c.Detail)
	}
}

func rolesOf(root *manifest.TrustRoot) []string {
	return slices.DeleteFunc(manifest.Roles(), func(role string) bool {
		_, ok := root.Spec.Roles[role]
		return !ok
	})
}

func checkExpiry(root *quorum.Root, at time.Time) trustCheck {
	c := trustCheck{Name: "expiry", Result: attest.Pass, Detail: "until " + root.Expires().Format(time.RFC3339), status: exitDenied}
	switch left := root.Expires().Sub(at); {
	case left <= 0:
		c.Result, c.Detail = attest.Fail, "expired on "+root.Expires().Format(time.RFC3339)
		c.Hint = "get a newer version and run arch trust update, or edit a root of your own"
	case left < expirySoon:
		c.Detail += fmt.Sprintf(", only %d days more", int(left.Hours()/24))
	}
	return c
}

// checkOwner looks at who may change the file: its owner must be this user or root, and nobody else may write.
func checkOwner(path string) trustCheck {
	c := trustCheck{Name: "permissions", Result: attest.Pass, Detail: "only its owner may change it", status: exitDenied}
	info, err := os.Stat(path)
	if err != nil {
		c.Result, c.Detail = attest.Fail, err.Error()
		return c
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case info.Mode().Perm()&0o022 != 0:
		c.Result, c.Detail, c.Hint = attest.Fail, fmt.Sprintf("its mode is %04o: others may change it", info.Mode().Perm()), "chmod go-w "+path
	case owner != 0 && int(owner) != os.Getuid():
		c.Result, c.Detail, c.Hint = attest.Fail, fmt.Sprintf("it belongs to user %d", owner), "copy it, so that it belongs to you"
	}
	return c
}

// checkGovernance looks at the signatures, if there are any. A local root needs none: it is trusted for where it lies.
func checkGovernance(root *manifest.TrustRoot, compiled *quorum.Root, at time.Time) trustCheck {
	c := trustCheck{Name: "governance", Result: attest.Skip, Detail: "not signed: trusted because it lies where it lies", status: exitVerification}
	if len(root.Signatures) == 0 {
		return c
	}
	env, err := manifest.Wrap(root)
	if err != nil {
		c.Result, c.Detail = attest.Fail, err.Error()
		return c
	}
	var verified []identity.PublicKey
	if keys := compiled.KeysAt(manifest.RoleGovernance, at); len(keys) > 0 {
		verified = env.Verified(keys)
	}
	// Expiry is a check of its own: whether enough signed is judged before it.
	if before := compiled.Expires().Add(-time.Second); at.After(before) {
		at = before
	}
	d := compiled.Evaluate(manifest.RoleGovernance, verified, at, quorum.Options{})
	c.Result, c.Detail = attest.Pass, strings.Join(d.Reasons, "; ")
	if !d.OK {
		c.Result, c.Hint = attest.Fail, "have its governance sign it: arch sign FILE"
	}
	return c
}
