package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"arch.network/attest/digest/storepath"
	"arch.network/builder"
	"arch.network/builder/challenge"
	"arch.network/builder/nix"
)

// rebuilder lets Nix build a path again on this machine, as one more vote: of an operator called self, who needs nobody's signature.
type rebuilder struct {
	nix *nix.Builder
	mu  sync.Mutex // one build at a time: each uses all processors
}

// Name implements challenge.Voter.
func (*rebuilder) Name() string { return "rebuild" }

// Ask implements challenge.Voter. What counts is the second build, in a new store: the first may have come from a cache.
func (r *rebuilder) Ask(ctx context.Context, p storepath.Path) (challenge.Answer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Dir != storepath.Nix {
		return challenge.Answer{}, fmt.Errorf("rebuild %s: only Nix is asked to build: %w", p, fs.ErrNotExist)
	}
	made, err := r.nix.Build(ctx, nix.Request{Target: nix.Target{Text: p.String(), Path: p.String()}, Again: true})
	if _, ok := errors.AsType[*nix.UnknownDeriverError](err); ok {
		return challenge.Answer{}, fmt.Errorf("rebuild: %w: %w", err, fs.ErrNotExist)
	}
	differs, differ := asNotReproducible(err)
	if err != nil && !differ {
		return challenge.Answer{}, err
	}
	for _, out := range made.Record.Outputs {
		if out.URI != p.String() {
			continue
		}
		a := challenge.Answer{NAR: out.NAR, Self: "self", Open: challenge.OpenTree(out.Path, out.NAR)}
		if differ {
			if m, ok := mismatchOf(differs, out.Name); ok {
				a.NAR, a.Open = m.Second, challenge.OpenTree(m.B, m.Second)
			}
		}
		return a, nil
	}
	return challenge.Answer{}, fmt.Errorf("rebuild %s: its derivation has no such output", p)
}

func mismatchOf(e *nix.NotReproducibleError, output string) (builder.Mismatch, bool) {
	for _, m := range e.Differ {
		if m.Output == output {
			return m, true
		}
	}
	return builder.Mismatch{}, false
}
