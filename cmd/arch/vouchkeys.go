package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"arch.network/attest/digest"
	"arch.network/builder/vouch"
)

// vouchFlags say whose word counts for the content of a store path.
type vouchFlags struct {
	keys, trust string
	operators   int
}

func (f *vouchFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.keys, "keys", "", "file that says who runs which key: lines \"operator NAME KEY\" and \"quorum N\"")
	c.Flags().StringVar(&f.trust, "trust", "", "trust root whose builders and rebuilders count, too")
	c.Flags().IntVarP(&f.operators, "operators", "k", 0, "how many operators must vouch (default: the quorum of --keys, or else 2)")
}

// rules are what a store path is judged by.
type rules struct {
	keys   *vouch.Keys
	quorum int
	digest digest.SHA256 // of the file of keys; zero: there is none
}

// open reads the files.
func (f *vouchFlags) open(a *app) (rules, error) {
	r := rules{keys: &vouch.Keys{}}
	if f.operators < 0 || f.operators > maxVotes {
		return r, usage("--operators: %d is not between 1 and %d", f.operators, maxVotes)
	}
	if f.keys != "" {
		if info, err := os.Stat(f.keys); err == nil && info.Mode().Perm()&0o002 != 0 {
			return r, hinted(fmt.Errorf("read keys %s: everybody may change it", f.keys), "chmod o-w "+f.keys)
		}
		text, err := a.readFile(f.keys, vouch.MaxKeysFile)
		if err != nil {
			return r, err
		}
		if r.keys, err = vouch.ParseKeys(string(text)); err != nil {
			return r, inFile(err, f.keys)
		}
		r.digest = digest.Of(text)
	}
	if f.trust != "" {
		root, err := a.readTrust(f.trust)
		if err != nil {
			return r, err
		}
		if err := r.keys.SetTrust(root); err != nil {
			return r, err
		}
	}
	switch {
	case f.operators > 0:
		r.quorum = f.operators
	case r.keys.Quorum > 0:
		r.quorum = r.keys.Quorum
	default:
		r.quorum = 2
	}
	return r, nil
}
