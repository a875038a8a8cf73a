package main

import (
	"os"

	"github.com/spf13/pflag"

	"arch.network/cmd/config"
	"arch.network/cmd/manual"
)

// settle gives the flags that were not given the values of the environment and of the configuration file, and returns all settings.
func settle(flags *pflag.FlagSet, named string) ([]config.Setting, error) {
	known := config.Known{Names: config.Names(flags, "check-config", "config", "help", "man", "show-config", "version"), Prefix: "ARCH_RUNNERD_"}
	settings, err := known.Settle(flags, os.Getenv, named, defaultConfig)
	if err != nil {
		return nil, usage("%w", err) // a hint, if it has one, stays
	}
	return settings, nil
}

// book is what the manual page is made with.
func book() manual.Book {
	return manual.Book{
		Section: "8", Version: "",
		Statuses: []manual.Status{
			{Status: exitOK, Meaning: "it was stopped, or what was asked for was found good, or printed"},
			{Status: exitError, Meaning: "an error"},
			{Status: exitUsage, Meaning: "the command line, the environment or the configuration file is wrong"},
			{Status: exitTrust, Meaning: "the trust root or the policy cannot be relied on"},
		},
	}
}

// defaultConfig is where the configuration is looked for that no flag names.
const defaultConfig = "/etc/arch/runnerd.yaml"
