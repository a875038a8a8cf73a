package challenge

import (
	"context"
	"fmt"

	"arch.network/builder/diff"
	"arch.network/builder/store"
)

// Explain says how the first two contents of a path differ, of a result whose outcome is Differ. Their NARs are fetched again into the store, from
// which GC removes them. The report is nil if there are no two contents that can be had.
func Explain(ctx context.Context, s *store.Store, r Result, o diff.Options) (*diff.Report, error) {
	a := r.first(nil)
	if a == nil {
		return nil, nil
	}
	b := r.first(a)
	if b == nil {
		return nil, nil
	}
	lease, err := s.Lease(ctx)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	left, err := keep(ctx, s, a)
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", r.Path, err)
	}
	right, err := keep(ctx, s, b)
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", r.Path, err)
	}
	report, err := diff.Compare(ctx, left, right, o)
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", r.Path, err)
	}
	report.A, report.B = a.Voter+" "+r.Path.Base(), b.Voter+" "+r.Path.Base()
	return report, nil
}

// first returns the first vote with bytes that can be had, and that are other ones than those of another vote.
func (r Result) first(other *Vote) *Vote {
	for i, v := range r.Votes {
		if v.State == Has && v.Answer.Open != nil && (other == nil || v.Answer.NAR != other.Answer.NAR) {
			return &r.Votes[i]
		}
	}
	return nil
}

// keep fetches the NAR of a vote into the store and returns where the tree is.
func keep(ctx context.Context, s *store.Store, v *Vote) (string, error) {
	r, err := v.Answer.Open(ctx)
	if err != nil {
		return "", err
	}
	defer r.Close()
	if _, err := s.AddTree(ctx, r, v.Answer.NAR); err != nil {
		return "", fmt.Errorf("fetch from %s: %w", v.Voter, err)
	}
	at, ok := s.TreePath(v.Answer.NAR)
	if !ok {
		return "", fmt.Errorf("the tree %s is gone from the store", v.Answer.NAR.SRI())
	}
	return at, nil
}
