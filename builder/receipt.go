package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"arch.network/attest"
	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// MaxCarried is how many bytes of NAR the local sources of a build that travel within its receipt have together, so
// that the receipt alone is enough to rebuild. A source that does not fit must reach the rebuilder by an archive directory.
const MaxCarried = 16 << 20

// Version names the program in provenance.
type Version struct {
	Name   string // such as "arch"
	Number string
}

// Attest signs what was made: the claim, which is the same at every honest builder, and this builder's provenance. The
// receipt carries the local sources that fit into MaxCarried, in the order of the manifest.
func (b *Builder) Attest(ctx context.Context, made *Made, signer identity.Signer, v Version) (*attest.Receipt, error) {
	claim, err := claimOf(made, made.Record.names())
	if err != nil {
		return nil, err
	}
	env, err := claim.Sign(ctx, signer)
	if err != nil {
		return nil, fmt.Errorf("sign claim of %s: %w", made.Manifest.Metadata.Name, err)
	}
	return b.receipt(ctx, made, env, signer, v)
}

// claimOf makes the claim that a build gave outputs.
func claimOf(made *Made, outputs []attest.Output) (*attest.Statement, error) {
	return attest.NewClaim(made.Manifest, made.Dependencies, outputs)
}

// names returns what the outputs are known by.
func (r Record) names() []attest.Output {
	var outputs []attest.Output
	for _, o := range r.Outputs {
		outputs = append(outputs, o.Output)
	}
	return outputs
}

// receipt bundles the signed claim with our provenance and the carried sources.
func (b *Builder) receipt(ctx context.Context, made *Made, claim *dsse.Envelope, signer identity.Signer, v Version) (*attest.Receipt, error) {
	provenance, err := b.provenance(made, claim, v)
	if err != nil {
		return nil, err
	}
	env, err := provenance.Sign(ctx, signer)
	if err != nil {
		return nil, fmt.Errorf("sign provenance of %s: %w", made.Manifest.Metadata.Name, err)
	}
	r := &attest.Receipt{}
	r.Add(claim)
	r.Add(env)
	return r, b.carry(ctx, made, r)
}

// provenance is this builder's statement. It repeats the claim's subjects and build definition.
func (b *Builder) provenance(made *Made, env *dsse.Envelope, v Version) (*attest.Statement, error) {
	claim, err := attest.ParseStatement(env.Payload)
	if err != nil {
		return nil, err
	}
	confinement, err := canonical.Marshal(made.Record.Confinement)
	if err != nil {
		return nil, err
	}
	versions := map[string]string{v.Name: v.Number}
	maps.Copy(versions, made.Record.Tools)
	return attest.NewProvenance(claim, attest.Run{
		Builder:      attest.Builder{ID: builderID(made.Record.Confinement), Version: versions, BuilderDependencies: made.Record.Dependencies},
		InvocationID: made.ID.Hex() + "/" + made.Record.Run,
		Started:      made.Record.Started,
		Finished:     made.Record.Finished,
		Variations:   made.Record.variations(),
		Confinement:  confinement,
		Log:          made.Record.Log,
	})
}

// builderID names the way of building: what could not be enforced makes it another one.
func builderID(c runner.Confinement) string {
	switch {
	case c.Driver == DriverNix && degraded(c):
		return attest.BuilderNixDegraded
	case c.Driver == DriverNix:
		return attest.BuilderNix
	case c.Driver == DriverGuix && degraded(c):
		return attest.BuilderGuixDegraded
	case c.Driver == DriverGuix:
		return attest.BuilderGuix
	case degraded(c):
		return attest.BuilderDegraded
	}
	return attest.BuilderHermetic
}

// The drivers in the confinement of what Nix and Guix built.
const (
	DriverNix  = "nix"
	DriverGuix = "guix"
)

// variations says in the words of provenance whether the build was repeated.
func (r Record) variations() attest.Variations {
	if r.Variation == nil {
		return attest.Variations{Builds: 1, Once: true}
	}
	v := attest.Variations{Builds: 2, Equal: true}
	for _, f := range r.Variation.Factors {
		if !slices.Contains(r.Variation.Missing, f) {
			v.Factors = append(v.Factors, string(f))
		}
	}
	slices.Sort(v.Factors)
	return v
}

// carry puts the trees that only have a name of their own into the receipt, as long as they fit.
func (b *Builder) carry(ctx context.Context, made *Made, r *attest.Receipt) error {
	for _, s := range made.Sources {
		r.AddSource(s)
	}
	left := MaxCarried
	for _, in := range made.Manifest.Spec.Inputs {
		if in.Ref.Scheme != manifest.RefTree {
			continue
		}
		content, err := dumpUpTo(ctx, made.Inputs[in.Name].Path, left)
		if errors.Is(err, errOver) {
			continue
		}
		if err != nil {
			return fmt.Errorf("carry input %s: %w", in.Name, err)
		}
		s, err := attest.NewSource(attest.MediaNARZstd, in.Name, content)
		if err != nil {
			return err
		}
		if s.Digest != in.Ref.Digest {
			return fmt.Errorf("carry input %s: %w", in.Name, &DamagedError{Form: "NAR", Want: in.Ref.Digest, Got: s.Digest})
		}
		r.AddSource(s)
		left -= len(content)
	}
	return nil
}

// errOver says that a limitedBuffer is full.
var errOver = errors.New("over the limit")

// dumpUpTo returns the NAR of what is at path, or errOver.
func dumpUpTo(ctx context.Context, path string, limit int) ([]byte, error) {
	buf := limitedBuffer{left: limit}
	if err := nar.Dump(ctx, &buf, path, nar.Options{}); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// limitedBuffer takes no more than left bytes.
type limitedBuffer struct {
	bytes.Buffer
	left int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, errOver
	}
	l.left -= len(p)
	return l.Buffer.Write(p)
}

// receiptKind is under what the store remembers receipts, by build and key.
const receiptKind = "receipt"

// RecallReceipt returns the receipt that the key signed for this very record of the build before. Whatever is wrong with
// it, it is made anew: nothing is lost but a few milliseconds.
func (b *Builder) RecallReceipt(made *Made, key identity.PublicKey) (*attest.Receipt, bool) {
	data, ok, err := b.Store.Recall(receiptKind, receiptName(made, key))
	if err != nil || !ok {
		return nil, false
	}
	var rec receiptRecord
	of, err := made.Record.digest()
	if err != nil || json.Unmarshal(data, &rec) != nil || rec.Of != of {
		return nil, false
	}
	blob, err := b.Store.OpenBlob(rec.Receipt)
	if err != nil {
		return nil, false
	}
	defer blob.Close()
	r, err := attest.ReadReceipt(blob)
	return r, err == nil && len(r.Claims) == 1 && len(r.Provenances) == 1
}

// receiptRecord names the receipt of a build.
type receiptRecord struct {
	Of      digest.SHA256 `json:"of"`      // the Record that it speaks of
	Receipt digest.SHA256 `json:"receipt"` // blob
}

// RememberReceipt keeps a receipt for RecallReceipt.
func (b *Builder) RememberReceipt(ctx context.Context, made *Made, key identity.PublicKey, r *attest.Receipt) error {
	var buf bytes.Buffer
	if _, err := r.WriteTo(&buf); err != nil {
		return err
	}
	blob, _, err := b.Store.AddBlob(ctx, &buf, digest.SHA256{})
	if err != nil {
		return err
	}
	of, err := made.Record.digest()
	if err != nil {
		return err
	}
	data, err := json.Marshal(receiptRecord{of, blob})
	if err != nil {
		return err
	}
	return b.Store.Remember(receiptKind, receiptName(made, key), data)
}

func receiptName(made *Made, key identity.PublicKey) string {
	return made.ID.Hex() + " " + key.ID().Hex()
}
