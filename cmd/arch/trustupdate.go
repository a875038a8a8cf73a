package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
)

const trustUpdateHelp = `Update replaces the trust root by a newer version that others made: a signed document, in YAML or as a DSSE envelope.

It is taken only if the governance of the version in force and its own governance signed it, if its version is exactly
one more, if it has the same name, and if it has not expired. After a long absence name all versions since, in order; only
the last must not have expired.

EXIT STATUS: 0 the trust root is the new one; 1 error, or a document is not valid; 2 usage; 3 refused: the old one stays.`

func newTrustUpdateCommand(a *app) *cobra.Command {
	var file string
	var dry bool
	c := &cobra.Command{
		Use:     "update NEW...",
		Short:   "Replace the trust root by a newer version that its governance signed",
		Long:    trustUpdateHelp,
		Example: "  arch trust update root-2.yaml\n  arch trust update --dry-run root-2.dsse.json root-3.dsse.json",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if file == "" {
				var err error
				if file, err = a.trustPath(); err != nil {
					return err
				}
			}
			return runTrustUpdate(a, file, args, dry)
		},
	}
	c.Flags().StringVar(&file, "trust", "", "trust root to replace (default: trust.yaml in the configuration directory)")
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only check whether the new version would be taken")
	return c
}

func runTrustUpdate(a *app, file string, news []string, dry bool) error {
	old, err := a.readTrust(file)
	if err != nil {
		return err
	}
	var envs []*dsse.Envelope
	for _, path := range news {
		env, doc, err := a.readSigned(path)
		if err != nil {
			return err
		}
		if _, ok := doc.(*manifest.TrustRoot); !ok {
			return hinted(fmt.Errorf("%s is a %s, not a TrustRoot", path, doc.DocumentKind()), "arch trust update takes documents of kind TrustRoot")
		}
		envs = append(envs, env)
	}
	if _, err := quorum.UpdateChain(old, envs, time.Now()); err != nil {
		return err
	}
	last, err := manifest.Unwrap(envs[len(envs)-1]) // with the signatures, for whoever asks why it was taken
	if err != nil {
		return err
	}
	src, err := manifest.WriteYAML(last)
	if err != nil {
		return err
	}
	if !dry {
		if err := replaceFile(file, src); err != nil {
			return err
		}
	}
	root := last.(*manifest.TrustRoot)
	return a.print(shown{root}, func(s *screen) {
		verb := "updated"
		if dry {
			verb = "would update"
		}
		fmt.Fprintf(s, "%s %s from version %d to %d\n", verb, file, old.Spec.Version, root.Spec.Version)
		showTrust(s, root)
	})
}
