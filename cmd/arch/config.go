package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"arch.network/cmd/config"
)

// settings are what may stand in the configuration file or in the environment, too: a command that has the flag goes by it. What weakens a
// check is no setting: it must be seen in the command.
func settings() config.Known {
	return config.Known{Names: []string{"output", "color", "quiet", "store", "key", "trust", "driver", "agent", "ledger"}, Prefix: "ARCH_"}
}

// namesakes are flags that have a setting's name and mean something else: a key that is not the user's own, a ledger that is to be made.
func namesakes() []string {
	return []string{"arch ledger witness --key", "arch serve-store --key", "arch ledger hammer --ledger"}
}

// settle gives the flags of a command that were not given the values of the environment and of the configuration file.
func (a *app) settle(c *cobra.Command) error {
	file, err := a.readConfig()
	if err != nil {
		return err
	}
	flags := pflag.NewFlagSet(c.Name(), pflag.ContinueOnError)
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if slices.Contains(namesakes(), c.CommandPath()+" --"+f.Name) || f.Name == "output" && a.json && !f.Changed { // --json was given
			return
		}
		flags.AddFlag(f)
	})
	a.settings, err = settings().Apply(flags, file, os.Getenv)
	return asUsage(err)
}

// asUsage makes of what is wrong with the configuration an error of usage.
func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return withStatus(exitUsage, err)
}

// readConfig reads the file that --config names, or the one of the user, or that of the machine.
func (a *app) readConfig() (config.File, error) {
	var usual []string
	if dir, err := a.configDir(); err == nil {
		usual = append(usual, filepath.Join(dir, "config.yaml"))
	}
	file, err := config.Read(a.configFile, append(usual, "/etc/arch/config.yaml")...)
	if _, missing := errors.AsType[*os.PathError](err); missing {
		return file, err
	}
	return file, asUsage(err)
}

func newConfigCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Show by which settings the commands go",
		Long: `A setting is a flag that may also be given by an environment variable, ARCH_ and its name, or in the configuration file: the one that
--config names, else config.yaml in the configuration directory ($ARCH_CONFIG, or arch in $XDG_CONFIG_HOME), else /etc/arch/config.yaml.
What stands first in this list counts: flag, environment, file, default.

The file is a YAML mapping of names to values, read as strictly as documents are:

  agent: /run/arch-node-agent/socket
  color: never

The settings are ` + strings.Join(settings().Names, ", ") + `.`,
	}
	c.AddCommand(newConfigViewCommand(a))
	return c
}

// configResult is what --json shows.
type configResult struct {
	File     string           `json:"file,omitempty"` // that was read
	Settings []config.Setting `json:"settings"`
}

func (configResult) kind() string { return "Settings" }

func newConfigViewCommand(a *app) *cobra.Command {
	var origins bool
	var f remoteFlags
	var unused struct{ key, trust, driver, ledger string }
	c := &cobra.Command{
		Use:     "view",
		Short:   "Show every setting, and with --origins where it comes from",
		Long:    "View shows every setting as commands that have its flag go by it.",
		Example: "  arch config view\n  arch config view --origins\n  arch config view --config ./config.yaml -o yaml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			file, err := a.readConfig()
			if err != nil {
				return err
			}
			return a.print(configResult{File: file.Path, Settings: a.settings}, func(s *screen) { _ = config.Table(s, a.settings, origins) }) // a screen takes everything
		},
	}
	c.Flags().BoolVar(&origins, "origins", false, "show where each comes from: flag, environment, file with its line, or default")
	c.Flags().StringVar(&unused.key, "key", "", "key to sign with, as other commands take it")
	c.Flags().StringVar(&unused.trust, "trust", "", "trust root, as other commands take it")
	c.Flags().StringVar(&unused.driver, "driver", driverAuto, "what confines jobs, as other commands take it")
	c.Flags().StringVar(&unused.ledger, "ledger", "", "ledger to read, as other commands take it")
	f.add(c)
	return c
}
