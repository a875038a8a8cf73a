package main

import (
	"errors"
	"os"

	"github.com/spf13/pflag"

	"arch.network/cmd/config"
	"arch.network/cmd/manual"
	"arch.network/cmd/release"
)

// settle gives the flags that were not given the values of the environment and of the configuration file, and returns all settings.
func settle(flags *pflag.FlagSet, named, usual string) ([]config.Setting, error) {
	known := config.Known{Names: config.Names(flags, "adopt-ledger", "check-config", "config", "help", "man", "show-config", "version"), Prefix: "ARCH_NODE_"}
	settings, err := known.Settle(flags, os.Getenv, named, usual)
	if err != nil {
		return nil, badConfig(err)
	}
	return settings, nil
}

// book is what the manual page is made with.
func book() manual.Book {
	return manual.Book{
		Section: "8", Version: release.Version,
		Statuses: []manual.Status{
			{Status: exitOK, Meaning: "it was stopped, or what was asked for was found good, or printed"},
			{Status: exitError, Meaning: "an error"},
			{Status: exitUsage, Meaning: "the command line, the environment or the configuration file is wrong"},
			{Status: exitTrust, Meaning: "the trust root or the policy cannot be relied on"},
		},
	}
}

// badConfig makes an error of usage of what is wrong with the configuration, with its way out.
func badConfig(err error) error {
	hint := ""
	if h, ok := errors.AsType[hinter](err); ok {
		hint = h.Hint()
	}
	return usage(hint, "%w", err)
}
