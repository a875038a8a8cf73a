package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

const doctorHelp = `Doctor finds out which of the guarantees that jobs and builds rely on hold on this machine, by trying: it runs a program in
confinement that does what a hostile job would do, and sees whether it is stopped. Each check is a line with what was seen
and, where something is missing, what to do about it.

  PASS  it holds
  WARN  it does not, and arch does without: slower, with weaker limits, or without a feature
  FAIL  it does not, and jobs or builds are refused for it

It changes nothing, opens no connection, and takes about three seconds.

EXIT STATUS: 0 every guarantee that jobs need holds; 1 one of them does not, or an error; 2 usage; 130 interrupted.`

// The states of a finding.
const (
	holds   = "PASS"
	lacking = "WARN"
	fails   = "FAIL"
)

// finding is what one check saw.
type finding struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Needed bool   `json:"needed"` // whether jobs are refused without it
	Seen   string `json:"seen"`   // evidence: what was tried, and what came of it
	Cure   string `json:"cure,omitempty"`
}

// doctorCheck is one row of the table of checks.
type doctorCheck struct {
	name   string
	needed bool
	// run returns what was seen, and an error that says what is missing; a Hint of the error is the cure, cure if it has none.
	run  func(ctx context.Context) (seen string, err error)
	cure string
}

func newDoctorCommand(a *app) *cobra.Command {
	var driver string
	c := &cobra.Command{
		Use:     "doctor",
		Short:   "Find out which guarantees hold on this machine",
		Long:    doctorHelp,
		Example: "  arch doctor\n  arch doctor --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkDriver(driver); err != nil {
				return err
			}
			return runDoctor(c.Context(), a, driver)
		},
	}
	c.Flags().StringVar(&driver, "driver", driverAuto, "what confines the program that is tried: "+strings.Join(driverNames(), ", "))
	return c
}

// doctorResult is what --json shows.
type doctorResult struct {
	OK     bool      `json:"ok"`
	Driver string    `json:"driver"` // that was tried
	Checks []finding `json:"checks"`
}

func (doctorResult) kind() string { return "DoctorResult" }

func runDoctor(ctx context.Context, a *app, name string) error {
	d := chooseDriver(name, false)
	if d.name == driverBroker {
		return hinted(usage("--driver broker: doctor cannot have the broker run what nobody signed"), "leave --driver out; the broker is a check of its own")
	}
	res := doctorResult{OK: true, Driver: d.name}
	p := newProgress(a)
	for _, group := range [][]doctorCheck{hostChecks(a), confinementChecks(a, d), systemdChecks(), ownChecks(a)} {
		for _, check := range group {
			p.mu.Lock()
			if p.live {
				p.begin("check " + check.name)
			}
			p.mu.Unlock()
			for _, f := range check.findings(ctx) {
				res.OK = res.OK && f.State != fails
				res.Checks = append(res.Checks, f)
			}
			if interrupted(ctx) {
				p.end()
				return ctx.Err()
			}
		}
	}
	p.end()
	if err := a.print(res, res.text); err != nil {
		return err
	}
	return res.verdict()
}

// findings runs the check.
func (c doctorCheck) findings(ctx context.Context) []finding {
	f := finding{Name: c.name, State: holds, Needed: c.needed}
	seen, err := c.run(ctx)
	if f.Seen = seen; err == nil {
		return []finding{f}
	}
	f.State = lacking
	if c.needed {
		f.State = fails
	}
	f.Seen = strings.TrimPrefix(f.Seen+"; "+err.Error(), "; ")
	f.Cure = cmp.Or(hintOf(err), c.cure)
	return []finding{f}
}

func (res doctorResult) verdict() error {
	if res.OK {
		return nil
	}
	var names []string
	cure := ""
	for _, f := range res.Checks {
		if f.State == fails {
			names = append(names, f.Name)
			cure = cmp.Or(cure, f.Cure)
		}
	}
	return hinted(fmt.Errorf("what jobs need does not hold here: %s", strings.Join(names, ", ")), cure)
}

func (res doctorResult) text(s *screen) {
	colors := map[string]string{holds: "32", lacking: "33", fails: "31"}
	width := 0
	for _, f := range res.Checks {
		width = max(width, len(f.Name))
	}
	for _, f := range res.Checks {
		s.paint(colors[f.State], f.State)
		fmt.Fprintf(s, "  %-*s  %s\n", width, f.Name, f.Seen)
		if f.Cure != "" {
			fmt.Fprintf(s, "      %-*s  to mend it: %s\n", width, "", f.Cure)
		}
	}
	count := func(state string) int {
		n := 0
		for _, f := range res.Checks {
			if f.State == state {
				n++
			}
		}
		return n
	}
	fmt.Fprintf(s, "%d hold, %d are done without, %d are missing; confined by %s\n", count(holds), count(lacking), count(fails), res.Driver)
}
