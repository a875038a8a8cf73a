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

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/ledger/notekey"
)

// Files of keys in the state directory.
const (
	nodeKeyFile   = "node.key"
	ledgerKeyFile = "ledger.key"
)

// nodeKey returns the node's signer. The one in the state directory is made when it is not there; one that is named must be.
func nodeKey(ctx context.Context, o options, stderr *os.File) (_ identity.Signer, made bool, err error) {
	load := identity.LoadOptions{Stderr: stderr}
	if o.key != "" {
		s, err := identity.Load(ctx, o.key, load)
		return s, false, err
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && exists(filepath.Join(dir, "key")) {
		s, err := identity.Load(ctx, "credential:key", load)
		return s, false, err
	}
	path := filepath.Join(o.state, nodeKeyFile)
	if !exists(path) {
		k, err := identity.Generate(identity.Ed25519, rand.Reader)
		if err != nil {
			return nil, false, err
		}
		if err := k.WriteFile(path, identity.WriteOptions{}); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, false, err
		}
		made = true
	}
	s, err := identity.Load(ctx, path, load)
	return s, made, err
}

// ledgerKeys returns what signs the ledger's checkpoints, in the same way.
func ledgerKeys(o options, node identity.Signer) (*notekey.Keys, error) {
	path := filepath.Join(o.state, ledgerKeyFile)
	if name, ok := strings.CutPrefix(o.ledgerKey, "credential:"); ok {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" || name != filepath.Base(name) {
			return nil, usage("start it from a unit with LoadCredential="+name+":FILE", "--ledger-key: there is no credential %q", name)
		}
		return notekey.Load(filepath.Join(dir, name))
	}
	if o.ledgerKey != "" {
		return notekey.Load(o.ledgerKey)
	}
	if !exists(path) {
		origin := o.origin
		if origin == "" {
			origin = "node/" + strings.ReplaceAll(dsse.KeyID(node.Public()), ":", "/")
		}
		k, err := notekey.Generate(origin, rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make the ledger's keys: %w", err)
		}
		if err := k.WriteFile(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return notekey.Load(path)
}
