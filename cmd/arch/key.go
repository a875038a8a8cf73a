package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"arch.network/attest/identity"
)

// keyFile is the name of the default key in the configuration directory.
const keyFile = "key"

func newKeyCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "key",
		Short: "Make and show signing keys",
		Long: `A key signs receipts and documents. Its public half is its name, a did:key.

A key file is plain and readable by its owner alone, or encrypted with age. Commands that sign also take keys from
systemd's credentials directory (--key credential:NAME) and from external signers (--key exec:COMMAND).`,
	}
	c.AddCommand(newKeyNewCommand(a), newKeyShowCommand(a), newKeyCacheCommand(a))
	return c
}

type keyResult struct {
	Key       string `json:"key"`
	Algorithm string `json:"algorithm"`
	ID        string `json:"id"`
	File      string `json:"file,omitempty"`
}

func (keyResult) kind() string { return "Key" }

func describeKey(k identity.PublicKey, file string) keyResult {
	return keyResult{Key: k.String(), Algorithm: string(k.Algorithm()), ID: k.ID().String(), File: file}
}

func (k keyResult) text(w *screen) {
	fmt.Fprintf(w, "%s\n  algorithm %s\n  id        %s\n", k.Key, k.Algorithm, k.ID)
	if k.File != "" {
		fmt.Fprintf(w, "  file      %s\n", k.File)
	}
}

func newKeyNewCommand(a *app) *cobra.Command {
	var algorithm string
	var passphrase bool
	var recipients []string
	c := &cobra.Command{
		Use:   "new [FILE]",
		Short: "Make a key; FILE is key in the configuration directory by default",
		Example: `  arch key new
  arch key new --algorithm ml-dsa-65 pq.key
  arch key new --passphrase release.key
  arch key new --recipient age1… release.key`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := identity.Generate(identity.Algorithm(algorithm), rand.Reader)
			if err != nil {
				return hinted(usage("--algorithm: %v", err), "the algorithms are ed25519, ecdsa-p256 and ml-dsa-65")
			}
			if passphrase && len(recipients) > 0 {
				return hinted(usage("--passphrase and --recipient are two ways to encrypt one file"), "leave out one of them")
			}
			path, err := a.keyPath(args)
			if err != nil {
				return err
			}
			opts := identity.WriteOptions{Recipients: recipients}
			if passphrase {
				if _, err := os.Lstat(path); err == nil { // before anyone thinks up a passphrase
					return key.WriteFile(path, opts)
				}
				if opts.Passphrase, err = a.newPassphrase(c.Context(), path); err != nil {
					return err
				}
			}
			if err := key.WriteFile(path, opts); err != nil {
				return err
			}
			k := describeKey(key.Public(), path)
			return a.print(k, k.text)
		},
	}
	c.Flags().StringVar(&algorithm, "algorithm", string(identity.Ed25519), "ed25519, ecdsa-p256 or ml-dsa-65")
	c.Flags().BoolVar(&passphrase, "passphrase", false, "encrypt the file with a passphrase")
	c.Flags().StringArrayVar(&recipients, "recipient", nil, "encrypt the file to this age recipient (repeatable)")
	return c
}

func newKeyShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show [KEY]",
		Short:   "Show the public half of a key: a file, credential:NAME, exec:COMMAND or did:key",
		Example: "  arch key show\n  arch key show did:key:z6Mk…",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				public, err := identity.ParsePublicKey(args[0])
				switch {
				case err == nil:
					k := describeKey(public, "")
					return a.print(k, k.text)
				case strings.HasPrefix(args[0], "did:"):
					return hinted(err, "copy the name whole, as arch key show prints it; a key that anybody could sign for is refused")
				}
			}
			source, err := a.keyPath(args)
			if err != nil {
				return err
			}
			s, err := a.loadKey(c.Context(), source)
			if err != nil {
				return err
			}
			k := describeKey(s.Public(), source)
			return a.print(k, k.text)
		},
	}
}

func (a *app) keyPath(args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	dir, err := a.configDir()
	return filepath.Join(dir, keyFile), err
}

func (a *app) loadKey(ctx context.Context, source string) (identity.Signer, error) {
	return identity.Load(ctx, source, identity.LoadOptions{
		Passphrase:    a.askPassphrase,
		AgeIdentities: os.Getenv("ARCH_AGE_IDENTITIES"),
		Stderr:        a.err,
	})
}

// signer returns the key to sign with. Where none is named and there is no default one, it makes one if it may, and a
// trust root that trusts it, and says so.
func (a *app) signer(ctx context.Context, source string, create bool) (identity.Signer, error) {
	if source != "" {
		return a.loadKey(ctx, source)
	}
	path, err := a.keyPath(nil)
	if err != nil {
		return nil, err
	}
	s, err := a.loadKey(ctx, path)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return s, err
	case !create:
		return nil, hinted(err, "arch key new makes a key, and --key names another one")
	}
	key, err := identity.Generate(identity.Ed25519, rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := key.WriteFile(path, identity.WriteOptions{}); err != nil {
		return nil, err
	}
	a.note("made a signing key: %s", key.Public())
	a.note("  it lies in %s, readable by you alone; whoever has it signs as you", path)
	trust, made, err := a.trustOwn(key.Public())
	if err != nil {
		return nil, err
	}
	if made {
		a.note("  %s trusts it, on this machine only; others trust it with: arch trust add %s --name NAME", trust, key.Public())
	}
	return key, nil
}

// askPassphrase asks on the terminal.
func (a *app) askPassphrase(_ context.Context, source string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", hinted(fmt.Errorf("read the passphrase of %s: there is no terminal", source),
			"use an unencrypted key, credential:NAME, or a key encrypted to an age identity named by ARCH_AGE_IDENTITIES")
	}
	defer tty.Close()
	fmt.Fprintf(tty, "passphrase of %s: ", source)
	text, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	return string(text), err
}

func (a *app) newPassphrase(ctx context.Context, path string) (string, error) {
	first, err := a.askPassphrase(ctx, path)
	if err != nil {
		return "", err
	}
	second, err := a.askPassphrase(ctx, path+" again")
	if err != nil {
		return "", err
	}
	if first != second || first == "" {
		return "", errors.New("the passphrases are empty or differ")
	}
	return first, nil
}
