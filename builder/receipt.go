package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"arch.network/attest"
	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

// MaxCarried is the size, in bytes of NAR, up to which a local source travels within the receipt, so that the receipt
// alone is enough to rebuild. Larger ones must reach the rebuilder by an archive directory.
const MaxCarried = 16 << 20

// Version names the program in provenance.
type Version struct {
	Name   string // such as "arch"
	Number string
}

// Attest signs what was made: the claim, which is the same at every honest builder, and this builder's provenance. The
// receipt carries the local sources that are not over MaxCarried.
func (b *Builder) Attest(ctx context.Context, made *Made, signer identity.Signer, v Version) (*attest.Receipt, error) {
	claim, err := claimOf(made)
	if err != nil {
		return nil, err
	}
	payload, err := claim.Encode()
	if err != nil {
		return nil, err
	}
	env, err := dsse.Sign(ctx, attest.PayloadType, payload, signer)
	if err != nil {
		return nil, fmt.Errorf("sign claim of %s: %w", made.Manifest.Metadata.Name, err)
	}
	return b.receipt(ctx, made, env, signer, v)
}

// claimOf makes the claim of a build.
func claimOf(made *Made) (*attest.Statement, error) {
	var outputs []attest.Output
	for _, o := range made.Record.Outputs {
		outputs = append(outputs, o.Output)
	}
	return attest.NewClaim(made.Manifest, made.Dependencies, outputs)
}

// receipt bundles the signed claim with our provenance and the carried sources.
func (b *Builder) receipt(ctx context.Context, made *Made, claim *dsse.Envelope, signer identity.Signer, v Version) (*attest.Receipt, error) {
	provenance, err := b.provenance(made, claim, v)
	if err != nil {
		return nil, err
	}
	env, err := dsse.Sign(ctx, attest.PayloadType, provenance, signer)
	if err != nil {
		return nil, fmt.Errorf("sign provenance of %s: %w", made.Manifest.Metadata.Name, err)
	}
	r := &attest.Receipt{}
	r.Add(claim)
	r.Add(env)
	return r, b.carry(ctx, made, r)
}

// provenance is the encoded statement of this builder. It repeats the claim's subjects and build definition.
func (b *Builder) provenance(made *Made, env *dsse.Envelope, v Version) ([]byte, error) {
	claim, err := attest.ParseStatement(env.Payload)
	if err != nil {
		return nil, err
	}
	confinement, err := canonical.Marshal(made.Record.Confinement)
	if err != nil {
		return nil, err
	}
	log, err := b.logDigest(made)
	if err != nil {
		return nil, err
	}
	stmt, err := attest.NewProvenance(claim, attest.Run{
		Builder:      b.identity(made, v),
		InvocationID: fmt.Sprintf("%s@%d", made.ID.Hex(), made.Record.Started.Unix()),
		Started:      made.Record.Started,
		Finished:     made.Record.Finished,
		Variations:   made.Record.variations(),
		Confinement:  confinement,
		Log:          log,
	})
	if err != nil {
		return nil, err
	}
	return stmt.Encode()
}

// identity names the way of building: what could not be enforced makes it another one.
func (b *Builder) identity(made *Made, v Version) attest.Builder {
	id := attest.BuilderHermetic
	if made.Record.degraded() {
		id = attest.BuilderDegraded
	}
	return attest.Builder{ID: id, Version: map[string]string{v.Name: v.Number}}
}

// degraded reports whether something that the build asked for was not enforced.
func (r Record) degraded() bool { return len(r.Confinement.Missing) > 0 }

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

// logDigest hashes the log of the build; zero if there is none, because it was built long ago or the log was removed.
func (b *Builder) logDigest(made *Made) (digest.SHA256, error) {
	log, err := os.Open(filepath.Join(b.Logs, made.ID.Hex()+".log"))
	if errors.Is(err, fs.ErrNotExist) {
		return digest.SHA256{}, nil
	}
	if err != nil {
		return digest.SHA256{}, err
	}
	defer log.Close()
	sum, _, err := digest.OfReader(log)
	return sum, err
}

// carry puts the trees that only have a name of their own into the receipt.
func (b *Builder) carry(ctx context.Context, made *Made, r *attest.Receipt) error {
	for _, in := range made.Manifest.Spec.Inputs {
		if in.Ref.Scheme != manifest.RefTree {
			continue
		}
		var buf limitedBuffer
		if err := nar.Dump(ctx, &buf, made.Inputs[in.Name].Path, nar.Options{}); err != nil {
			return fmt.Errorf("carry input %s: %w", in.Name, err)
		}
		if buf.over {
			continue
		}
		s, err := attest.NewSource(attest.MediaNARZstd, in.Name, buf.Bytes())
		if err != nil {
			return err
		}
		r.AddSource(s)
	}
	return nil
}

// limitedBuffer keeps at most MaxCarried bytes, and says when there were more.
type limitedBuffer struct {
	bytes.Buffer
	over bool
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if l.over || l.Len()+len(p) > MaxCarried {
		l.over = true
		return len(p), nil
	}
	return l.Buffer.Write(p)
}

// receiptKind is under what the store remembers receipts, by build and key.
const receiptKind = "receipt"

// RecallReceipt returns the receipt that the key signed for this very build before. Whatever is wrong with it, it is
// made anew: nothing is lost but a few milliseconds.
func (b *Builder) RecallReceipt(made *Made, key identity.PublicKey) (*attest.Receipt, bool) {
	data, ok, err := b.Store.Recall(receiptKind, receiptName(made, key))
	if err != nil || !ok {
		return nil, false
	}
	var rec receiptRecord
	if json.Unmarshal(data, &rec) != nil || !rec.Finished.Equal(made.Record.Finished) {
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
	Finished time.Time     `json:"finished"` // of the build it speaks of
	Receipt  digest.SHA256 `json:"receipt"`  // blob
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
	data, err := json.Marshal(receiptRecord{made.Record.Finished, blob})
	if err != nil {
		return err
	}
	return b.Store.Remember(receiptKind, receiptName(made, key), data)
}

func receiptName(made *Made, key identity.PublicKey) string {
	return made.ID.Hex() + " " + key.ID().Hex()
}
