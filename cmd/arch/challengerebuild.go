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
	"arch.network/builder/derivation"
	"arch.network/builder/guix"
	"arch.network/builder/nix"
)

// rebuilder lets Nix or Guix build a path again on this machine, as one more vote: of an operator called self, who needs nobody's signature.
type rebuilder struct {
	shop *workshop
	nix  nix.Backend
	mu   sync.Mutex // one build at a time: each uses all processors
}

// Name implements challenge.Voter.
func (*rebuilder) Name() string { return "rebuild" }

// Ask implements challenge.Voter. What counts is the second build: the first may have come from a cache.
func (r *rebuilder) Ask(ctx context.Context, p storepath.Path) (challenge.Answer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	made, err := r.build(ctx, p)
	if _, ok := errors.AsType[*derivation.UnknownDeriverError](err); ok {
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

// build builds what gave a path, twice.
func (r *rebuilder) build(ctx context.Context, p storepath.Path) (*builder.Made, error) {
	var b derivation.Backend = r.nix
	var e derivation.Evaluated
	var err error
	if p.Dir == storepath.Guix {
		var g *guix.Backend
		if g, err = r.shop.openGuix(ctx, guixFlags{}); err != nil {
			return nil, err
		}
		b = g
		e.Drv, err = g.Deriver(ctx, p.String())
	} else {
		e, err = r.nix.Evaluate(ctx, nix.Target{Text: p.String(), Path: p.String()})
	}
	if err != nil {
		return nil, err
	}
	quiet := r.shop.builderOf(b)
	quiet.Events = nil // the progress is the challenge's
	return quiet.Build(ctx, derivation.Request{Of: e, Again: true})
}

func mismatchOf(e *derivation.NotReproducibleError, output string) (builder.Mismatch, bool) {
	for _, m := range e.Differ {
		if m.Output == output {
			return m, true
		}
	}
	return builder.Mismatch{}, false
}
