package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"syscall"
	"testing"

	"arch.network/agent"
	"arch.network/agent/control/client"
	"arch.network/agent/control/wire"
	"arch.network/attest"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/source"
	"arch.network/cmd/manual"
)

// TestCodes walks the registry: each code has one name and says when it comes up and what to do, and each exit status has one of its own.
func TestCodes(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range codeNames() {
		e, ok := findCode(name)
		if !ok || e.Meaning == "" || e.Cure == "" || e.Exit == exitOK {
			t.Errorf("code %s is not explained: %+v", name, e)
		}
		if seen[name] {
			t.Errorf("code %s means two things", name)
		}
		seen[name] = true
		if slices.Contains(manifest.Kinds(), name) {
			t.Errorf("code %s is a kind of document, too", name)
		}
	}
	for _, s := range exitStatuses() {
		if c := ofStatus(s.Status); s.Status != exitOK && (c.Status != s.Status || c.is != nil) {
			t.Errorf("exit status %d has no code of its own: %+v", s.Status, c)
		}
	}
	for _, c := range ours() {
		if !slices.ContainsFunc(exitStatuses(), func(s manual.Status) bool { return s.Status == c.Status }) {
			t.Errorf("code %s has the exit status %d, which is not documented", c.Name, c.Status)
		}
	}
}

// TestClassify is the table of what errors are called, and with what exit status they end.
func TestClassify(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, tt := range []struct {
		err    error
		ctx    context.Context
		code   string
		status int
	}{
		{err: errors.New("x"), code: "error", status: exitError},
		{err: usage("x"), code: "usage", status: exitUsage},
		{err: &builder.NotReproducibleError{}, code: "not-reproducible", status: exitNotReproducible},
		{err: &attest.VerifyError{Class: attest.ClassPolicy}, code: "policy-denied", status: exitDenied},
		{err: &attest.VerifyError{Class: attest.ClassDiffers}, code: "not-reproducible", status: exitNotReproducible},
		{err: &attest.VerifyError{Class: attest.ClassNothing}, code: "nothing-to-verify", status: exitVerification},
		{err: &attest.VerifyError{Class: attest.ClassVerification}, code: "verification-failed", status: exitVerification},
		{err: &attest.VerifyError{Class: "of a later version"}, code: "verification-failed", status: exitVerification},
		{err: fmt.Errorf("x: %w", &source.MissingError{}), code: "inputs-missing", status: exitInputsMissing},
		{err: &manifest.SyntaxError{Err: &manifest.UnpinnedError{}}, code: "not-pinned", status: exitError},
		{err: manifest.ErrorList{}, code: "bad-document", status: exitError},
		{err: withStatus(exitDenied, &manifest.SyntaxError{}), code: "refused", status: exitDenied},
		{err: withStatus(exitDenied, &attest.VerifyError{Class: attest.ClassPolicy}), code: "policy-denied", status: exitDenied},
		{err: &client.ConnectError{Err: &net.OpError{Err: syscall.ENOENT}}, code: "unreachable", status: exitUnreachable},
		{err: &url.Error{Err: fs.ErrNotExist}, code: "network", status: exitError},
		{err: &fs.PathError{Err: syscall.ENOSPC}, code: "disk-full", status: exitError},
		{err: &agent.FullError{}, code: wire.CodeFull, status: exitError},
		{err: &agent.DeniedError{}, code: wire.CodeDenied, status: exitDenied},
		{err: wire.New(wire.CodeReading, "x"), code: wire.CodeReading, status: exitDenied},
		{err: errors.New("x"), ctx: stopped, code: "interrupted", status: exitInterrupted},
		{err: usage("x"), ctx: stopped, code: "usage", status: exitUsage},
	} {
		if tt.ctx == nil {
			tt.ctx = t.Context()
		}
		if got := classify(tt.ctx, tt.err); got.Name != tt.code || got.Status != tt.status {
			t.Errorf("%T is %s with exit status %d, want %s with %d", tt.err, got.Name, got.Status, tt.code, tt.status)
		}
	}
}
