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
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder/diff"
	"arch.network/builder/source"
	"arch.network/runner"
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
	// Cause is the error behind a Negative: what is missing, what failed, or why differing bits could not be explained.
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
	if err := checkKnown(claim); err != nil {
		return nil, err
	}
	doc, err := claim.Document()
	if err != nil {
		return nil, fmt.Errorf("read claim: %w", err)
	}
	if err := doc.Validate(); err != nil {
		return nil, fmt.Errorf("check the claim's manifest: %w", err)
	}
	want := attest.BuildType
	if d := doc.Spec.Derivation; d != nil {
		want = attest.DerivationType(d.Ref.Location)
	}
	if claim.BuildType != want {
		return nil, &ClaimError{doc.Metadata.Name, fmt.Sprintf("its manifest is not one of build type %q", claim.BuildType)}
	}
	return &Rebuild{Claim: env, Subject: stmt, Build: doc}, nil
}

// ForeignError says that a claim is of a kind that this program cannot rebuild.
type ForeignError struct {
	What       string // "build type" or "normalizer"
	Want, Have string // what the claim needs, and what this program has
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("the claim has the %s %q, this program has %q", e.What, e.Want, e.Have)
}

// Hint tells the way out.
func (e *ForeignError) Hint() string { return "rebuild with the program that the claim was made with" }

// checkKnown refuses a claim whose outputs this program would make or name in another way.
func checkKnown(c *attest.Claim) error {
	if !slices.Contains([]string{attest.BuildType, attest.BuildTypeNix, attest.BuildTypeGuix}, c.BuildType) {
		return &ForeignError{"build type", c.BuildType, attest.BuildType}
	}
	if ours := attest.CurrentNormalizer(); c.Normalizer != ours {
		return &ForeignError{"normalizer", c.Normalizer.Name + " " + c.Normalizer.Version, ours.Name + " " + ours.Version}
	}
	return nil
}

// Rebuild builds what the claim says from its pinned inputs alone, whatever the store remembers of it, and compares every
// output. A failed build, missing inputs and differing bits are results, not errors. A claim that does not say what its
// own manifest gives is a *ClaimError, before anything is built. The store remembers nothing of a rebuild.
//
// originals are the artifacts as they were delivered, by output, where the caller has them; they explain differences.
func (b *Builder) Rebuild(ctx context.Context, r *Rebuild, originals map[string]string) error {
	made, err := b.fetch(ctx, r.Build, "")
	if missing, ok := errors.AsType[*source.MissingError](err); ok {
		b.Fail(r, attest.InputsMissing, err, runner.Confinement{})
		r.Negative.Missing = missing.Inputs
		return nil
	}
	if err != nil {
		return err
	}
	if err := checkClaim(r, made); err != nil {
		return err
	}
	err = b.first(ctx, made, ".rebuild")
	if failed, ok := errors.AsType[*BuildError](err); ok {
		cause := failed.Error()
		if last := failed.LastLine(); last != "" {
			cause = fmt.Sprintf("%s; its log ends with %q", cause, last)
		}
		r.Cause = err
		r.Negative = b.negative(r, attest.FailedToBuild, cause, failed.Result.Confinement)
		return nil
	}
	if err != nil {
		return err
	}
	return b.Judge(ctx, r, made, originals)
}

// Fail makes err, and what it says, the result of a rebuild that did not get as far as comparing. For InputsMissing the caller adds
// what is missing.
func (b *Builder) Fail(r *Rebuild, state attest.NegativeState, err error, c runner.Confinement) {
	r.Cause = err
	r.Negative = b.negative(r, state, err.Error(), c)
}

// negative begins a negative result of an attempt that was confined by c.
func (b *Builder) negative(r *Rebuild, state attest.NegativeState, cause string, c runner.Confinement) *attest.Negative {
	return &attest.Negative{
		State: state, Cause: strings.ToValidUTF8(cause, "\uFFFD"), Claim: r.Claim.ID(),
		Tried: b.now().Format(time.RFC3339),
		By:    attest.Builder{ID: builderID(c)},
		Retry: state != attest.Differs,
	}
}

// ClaimError says that a claim contradicts itself.
type ClaimError struct {
	Name  string
	Cause string
}

func (e *ClaimError) Error() string {
	return fmt.Sprintf("claim of %s is not honest: %s", e.Name, e.Cause)
}

// Hint tells the way out.
func (e *ClaimError) Hint() string {
	return "do not rely on this receipt; ask whoever signed it for one that its manifest gives"
}

// checkClaim compares everything that the claim says, but for the digests of its subjects, with what its manifest gives.
func checkClaim(r *Rebuild, made *Made) error {
	ours, err := claimOf(made, placeholders(r.Build))
	if err != nil {
		return err
	}
	sameName := func(a, b attest.ResourceDescriptor) bool { return a.Name == b.Name && a.MediaType == b.MediaType }
	switch {
	case !bytes.Equal(ours.Predicate, r.Subject.Predicate):
		return &ClaimError{r.Build.Metadata.Name, "it lists other dependencies than its manifest gives"}
	case !slices.EqualFunc(ours.Subject, r.Subject.Subject, sameName):
		return &ClaimError{r.Build.Metadata.Name, "it names other outputs, or other forms of them, than its manifest declares"}
	}
	return nil
}

// placeholders are the outputs that doc declares, each with some digest in every form that it has.
func placeholders(doc *manifest.Build) []attest.Output {
	any := digest.Of(nil)
	var list []attest.Output
	for _, decl := range doc.Spec.Outputs {
		o := attest.Output{Name: decl.Name, NAR: any}
		if isSingle(decl.Type) {
			o.File = any
		} else {
			o.Tar, o.OCI = any, any
		}
		list = append(list, o)
	}
	return list
}

// Judge compares what came out, made, with what was claimed. originals are as for Rebuild.
func (b *Builder) Judge(ctx context.Context, r *Rebuild, made *Made, originals map[string]string) error {
	r.Made = made
	claim, err := claimOf(r.Made, r.Made.Record.names())
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
		return &ClaimError{r.Build.Metadata.Name, "it has other bytes than the claim of the same outputs"}
	}
	cause := fmt.Sprintf("%d of %d digests of outputs are not as claimed", len(mismatches), len(r.Subject.Subject))
	r.Negative = b.negative(r, attest.Differs, cause, r.Made.Record.Confinement)
	r.Negative.Found = mismatches
	return b.explain(ctx, r, originals)
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

// explain compares each output that differs with its original, where there is one. What cannot be compared stays
// unexplained: the result stands without it.
func (b *Builder) explain(ctx context.Context, r *Rebuild, originals map[string]string) error {
	dir, err := os.MkdirTemp("", "arch-rebuild-*")
	if err != nil {
		return err
	}
	defer nar.RemoveAll(dir)
	r.Diffs = map[string]*diff.Report{}
	for i, out := range r.Made.Record.Outputs {
		original, ok := originals[out.Name]
		differs := slices.ContainsFunc(r.Negative.Found, func(m attest.Mismatch) bool { return m.Name == out.Name })
		if !ok || !differs {
			continue
		}
		ours := filepath.Join(dir, out.Name)
		if err := writeOutput(ctx, r.Build, r.Build.Spec.Outputs[i], out, ours); err != nil {
			return fmt.Errorf("explain output %s: %w", out.Name, err)
		}
		report, err := diff.Compare(ctx, original, ours, diff.Options{})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			r.Cause = fmt.Errorf("explain output %s: %w", out.Name, err)
			continue
		}
		r.Diffs[out.Name] = report
		summarize(r.Negative, out.Name, report)
	}
	return nil
}

// summarize puts the first differences of a report into the negative result.
func summarize(n *attest.Negative, output string, report *diff.Report) {
	n.Total += report.Total
	for _, d := range report.Differences {
		if len(n.Differences) == attest.MaxDifferences {
			return
		}
		n.Differences = append(n.Differences, attest.Difference{
			Output: output, Path: strings.Join(append([]string{d.Path}, d.Members...), "//"), Offset: d.Offset,
			Cause: string(d.Cause), Detail: d.Sentence,
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
	stmt, err := attest.NewNegative(r.Subject, *r.Negative)
	if err != nil {
		return nil, err
	}
	env, err := stmt.Sign(ctx, signer)
	if err != nil {
		return nil, fmt.Errorf("sign negative result of %s: %w", r.Build.Metadata.Name, err)
	}
	out := &attest.Receipt{}
	out.Add(env)
	return out, nil
}
