package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder/diff"
	"arch.network/builder/source"
)

// Rebuild is a third party's attempt at a claim.
type Rebuild struct {
	Claim   *dsse.Envelope    // as found in the receipt, its signatures not yet verified
	Subject *attest.Statement // the claim's statement
	Build   *manifest.Build   // the claim's manifest

	// Made is what came out; nil if the inputs could not be had or a step failed.
	Made *Made
	// Negative is what went wrong; nil if every output came out as claimed.
	Negative *attest.Negative
	// Cause is the error behind a Negative that is not about differing bits.
	Cause error
	// Diffs are the comparisons with the original artifacts, where these were at hand, by output.
	Diffs map[string]*diff.Report
}

// Reproduced reports whether every output came out as claimed.
func (r *Rebuild) Reproduced() bool { return r.Negative == nil }

// OpenClaim reads the one claim of a receipt.
func OpenClaim(r *attest.Receipt) (*Rebuild, error) {
	switch len(r.Claims) {
	case 0:
		return nil, errors.New("the receipt holds no build claim")
	case 1:
	default:
		return nil, fmt.Errorf("the receipt holds %d different claims; a rebuild is of one", len(r.Claims))
	}
	env := r.Claims[0]
	stmt, err := attest.ParseStatement(env.Payload)
	if err != nil {
		return nil, fmt.Errorf("read claim: %w", err)
	}
	claim, err := stmt.Claim()
	if err != nil {
		return nil, fmt.Errorf("read claim: %w", err)
	}
	doc, err := claim.Document()
	if err != nil {
		return nil, fmt.Errorf("read claim: %w", err)
	}
	if err := doc.Validate(); err != nil {
		return nil, fmt.Errorf("check the claim's manifest: %w", err)
	}
	return &Rebuild{Claim: env, Subject: stmt, Build: doc}, nil
}

// Rebuild builds what the claim says from its pinned inputs alone, whatever the store remembers of it, and compares every
// output. A failed build, missing inputs and differing bits are results, not errors.
//
// originals are the artifacts as they were delivered, by output, where the caller has them; they explain differences.
func (b *Builder) Rebuild(ctx context.Context, r *Rebuild, originals map[string]string) error {
	made, err := b.fetch(ctx, r.Build, "")
	if missing, ok := errors.AsType[*source.MissingError](err); ok {
		r.Cause = err
		r.Negative = b.negative(r, attest.InputsMissing, err.Error())
		r.Negative.Missing = missing.Inputs
		return nil
	}
	if err != nil {
		return err
	}
	if err := b.first(ctx, made); err != nil {
		if failed, ok := errors.AsType[*BuildError](err); ok {
			r.Cause = err
			r.Negative = b.negative(r, attest.FailedToBuild, failed.Error())
			return nil
		}
		return err
	}
	r.Made = made
	return b.judge(ctx, r, originals)
}

func (b *Builder) negative(r *Rebuild, state attest.NegativeState, cause string) *attest.Negative {
	if len(cause) > attest.MaxCause {
		cause = cause[:attest.MaxCause]
	}
	return &attest.Negative{
		State: state, Cause: cause, Claim: r.Claim.ID(),
		Tried: b.Now().UTC().Format(time.RFC3339),
		By:    attest.Builder{ID: attest.BuilderHermetic},
		Retry: state != attest.Differs,
	}
}

// judge compares what came out with what was claimed.
func (b *Builder) judge(ctx context.Context, r *Rebuild, originals map[string]string) error {
	claim, err := claimOf(r.Made)
	if err != nil {
		return err
	}
	payload, err := claim.Encode()
	if err != nil {
		return err
	}
	if bytes.Equal(payload, r.Claim.Payload) {
		return nil
	}
	mismatches := compareSubjects(r.Subject.Subject, claim.Subject)
	if len(mismatches) == 0 {
		return &ClaimError{Name: r.Build.Metadata.Name, Cause: "the outputs are as claimed, but the claim lists other dependencies, another normaliser or other forms than its manifest gives"}
	}
	r.Negative = b.negative(r, attest.Differs, fmt.Sprintf("%d of %d digests of outputs are not as claimed", len(mismatches), len(r.Subject.Subject)))
	r.Negative.Found = mismatches
	return b.explain(ctx, r, originals)
}

// ClaimError says that a claim contradicts itself.
type ClaimError struct {
	Name  string
	Cause string
}

func (e *ClaimError) Error() string {
	return fmt.Sprintf("claim of %s is not honest: %s", e.Name, e.Cause)
}

// compareSubjects lists every claimed name that came out otherwise.
func compareSubjects(want, got []attest.ResourceDescriptor) []attest.Mismatch {
	var list []attest.Mismatch
	for _, w := range want {
		expected, _ := w.SHA256()
		var found digest.SHA256
		if i := slices.IndexFunc(got, func(g attest.ResourceDescriptor) bool { return g.Name == w.Name }); i >= 0 {
			found, _ = got[i].SHA256()
		}
		if expected != found {
			list = append(list, attest.Mismatch{Name: w.Name, Expected: expected, Found: found})
		}
	}
	return list
}

// explain compares each output that differs with its original, where there is one.
func (b *Builder) explain(ctx context.Context, r *Rebuild, originals map[string]string) error {
	dir, err := os.MkdirTemp("", "arch-rebuild-*")
	if err != nil {
		return err
	}
	defer removeAll(dir)
	if _, err := b.Deliver(ctx, r.Made, dir); err != nil {
		return err
	}
	r.Diffs = map[string]*diff.Report{}
	for _, out := range r.Made.Record.Outputs {
		original, ok := originals[out.Name]
		differs := slices.ContainsFunc(r.Negative.Found, func(m attest.Mismatch) bool { return m.Name == out.Name })
		if !ok || !differs {
			continue
		}
		report, err := diff.Compare(ctx, original, filepath.Join(dir, out.Name), diff.Options{})
		if err != nil {
			return fmt.Errorf("explain output %s: %w", out.Name, err)
		}
		r.Diffs[out.Name] = report
		summarize(r.Negative, out.Name, report)
	}
	return nil
}

// summarize puts the first differences of a report into the negative result.
func summarize(n *attest.Negative, output string, report *diff.Report) {
	clip := func(s string) string { return s[:min(len(s), attest.MaxText)] }
	n.Total += report.Total
	for _, d := range report.Differences {
		if len(n.Differences) == attest.MaxDifferences {
			return
		}
		n.Differences = append(n.Differences, attest.Difference{
			Output: output, Path: clip(strings.Join(append([]string{d.Path}, d.Members...), "//")), Offset: d.Offset,
			Cause: string(d.Cause), Detail: clip(d.Sentence),
		})
	}
}

// Sign makes the rebuilder's receipt: the claim with its signature added, and its provenance; or the signed negative
// result.
func (b *Builder) Sign(ctx context.Context, r *Rebuild, signer identity.Signer, v Version) (*attest.Receipt, error) {
	if r.Reproduced() {
		if err := r.Claim.Add(ctx, signer); err != nil {
			return nil, fmt.Errorf("co-sign claim of %s: %w", r.Build.Metadata.Name, err)
		}
		return b.receipt(ctx, r.Made, r.Claim, signer, v)
	}
	r.Negative.By.Version = map[string]string{v.Name: v.Number}
	if r.Made != nil {
		r.Negative.By = b.identity(r.Made, v)
	}
	stmt, err := attest.NewStatement(r.Subject.Subject, r.Negative)
	if err != nil {
		return nil, err
	}
	payload, err := stmt.Encode()
	if err != nil {
		return nil, err
	}
	env, err := dsse.Sign(ctx, attest.PayloadType, payload, signer)
	if err != nil {
		return nil, fmt.Errorf("sign negative result of %s: %w", r.Build.Metadata.Name, err)
	}
	out := &attest.Receipt{}
	out.Add(env)
	return out, nil
}
