package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"arch.network/attest/ledger/hammer"
)

func newLedgerHammerCommand(a *app) *cobra.Command {
	opts := hammer.Options{}
	kills := 0
	c := &cobra.Command{
		Use:   "hammer",
		Short: "Put a new ledger under load, and prove everything that it acknowledges",
		Long: `Hammer makes a new ledger, records made-up decisions with many writers at once, and has readers prove what was acknowledged, under checkpoints
of which each must continue the one before. Without --ledger it lies in a temporary directory, which is removed. It tells what this machine's disk can do.

With --kills, two processes at once want to write the ledger, and the one that does is killed (SIGKILL), again and again, with another in its place. Nothing that was
acknowledged may be lost, no place be given twice, and each checkpoint must continue the one before. It takes about 0.1 s for each kill.

EXIT STATUS: 0 all of it held; 1 something did not; 2 usage.`,
		Example: "  arch ledger hammer --goal 100000 --writers 1024\n  arch ledger hammer --goal 1000 --writers 1 --ledger ./hammered\n  arch ledger hammer --kills 100",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if opts.Goal < 1 || opts.Writers < 1 || opts.Readers < 0 || opts.Runtime < 0 || kills < 0 {
				return usage("--goal and --writers are at least 1, --readers, --max-runtime and --kills not negative")
			}
			if changed := c.Flags().Changed; kills > 0 && (changed("goal") || changed("writers") || changed("readers") || changed("max-runtime")) {
				return usage("--kills says how long it takes: it goes with none of --goal, --writers, --readers and --max-runtime")
			}
			if opts.Dir == "" {
				dir, err := os.MkdirTemp("", "arch-hammer-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				opts.Dir = filepath.Join(dir, "ledger")
			}
			opts.Signed = opts.Dir + ".signed"
			if kills > 0 {
				return hammerKills(c, a, hammer.KillOptions{Dir: opts.Dir, Signed: opts.Signed, Kills: kills})
			}
			res, err := hammer.Run(c.Context(), opts)
			if err == nil && interrupted(c.Context()) {
				err = c.Context().Err()
			}
			if err != nil {
				return err
			}
			return a.print(hammered{res}, func(s *screen) {
				fmt.Fprintf(s, "%d decisions in %v: %.0f a second; p50 %v, p99 %v; %d proofs held\n", res.Recorded, res.Elapsed.Round(time.Millisecond),
					float64(res.Recorded)/res.Elapsed.Seconds(), res.P50.Round(10*time.Microsecond), res.P99.Round(10*time.Microsecond), res.Proved)
			})
		},
	}
	c.Flags().StringVar(&opts.Dir, "ledger", "", "new directory for the ledger, which is kept (default: a temporary one)")
	c.Flags().Int64Var(&opts.Goal, "goal", 10000, "decisions to record")
	c.Flags().IntVar(&opts.Writers, "writers", 256, "writers at once")
	c.Flags().IntVar(&opts.Readers, "readers", 1, "readers at once")
	c.Flags().IntVar(&kills, "kills", 0, "kill the writing process so many times instead (default: nobody is killed)")
	c.Flags().DurationVar(&opts.Runtime, "max-runtime", 0, "end after this time (default: when the goal is reached)")
	return c
}

// hammered is what a ledger held out.
type hammered struct{ *hammer.Result }

func (hammered) kind() string { return "HammerResult" }

// hammerKills is --kills.
func hammerKills(c *cobra.Command, a *app, opts hammer.KillOptions) error {
	res, err := hammer.Kill(c.Context(), opts)
	if err == nil && interrupted(c.Context()) {
		err = c.Context().Err()
	}
	if err != nil {
		return err
	}
	return a.print(killed{res}, func(s *screen) {
		fmt.Fprintf(s, "%d kills, %d of them while another process waited to write; %d decisions acknowledged, 0 lost; %d entries; %d checkpoints, no fork\n",
			res.Kills, res.Waited, res.Acknowledged, res.Entries, res.Checkpoints)
	})
}

// killed is what a ledger held out whose writers were killed.
type killed struct{ *hammer.KillResult }

func (killed) kind() string { return "HammerKillResult" }
