package bench

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	library "github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/secure-systems-lab/go-securesystemslib/signerverifier"
)

// BenchmarkEnvelope verifies envelopes of a 2 KB payload on one core, from their JSON to the list of signers: with attest/dsse,
// with go-securesystemslib, and, as the floor, with crypto/ed25519 alone over the finished PAE. The three take turns in
// one run, so that their ratios hold on a busy machine too. Each metric is explained where it is reported.
func BenchmarkEnvelope(b *testing.B) {
	for _, c := range []struct{ signers, trusted int }{{1, 1}, {3, 5}} {
		b.Run(fmt.Sprintf("%d-of-%d", c.signers, c.trusted), func(b *testing.B) {
			benchmarkEnvelope(b, c.signers, c.trusted)
		})
	}
}

func benchmarkEnvelope(b *testing.B, signers, trusted int) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	f := newEnvelopeFixture(b, signers, trusted)
	var ours, theirs, floor []time.Duration
	for b.Loop() {
		ours = append(ours, timed(b, f.ours))
		theirs = append(theirs, timed(b, f.theirs))
		floor = append(floor, timed(b, f.floor))
	}
	o, t, e := median(ours), median(theirs), median(floor)
	b.ReportMetric(float64(time.Second)/float64(o), "envelopes/s")
	b.ReportMetric(float64(time.Second)/float64(t), "library-envelopes/s")
	b.ReportMetric(float64(t)/float64(o), "library/ours") // over 1: ours is faster
	b.ReportMetric(float64(o)/float64(e), "ours/ed25519") // 1: parsing costs nothing
	b.ReportMetric(float64(o-e)/1e3, "overhead-µs")       // of everything but the signatures
	b.ReportMetric(0, "ns/op")                            // of all three together: of no use
}

// median says what is usual: the mean of a few microseconds is whatever else the machine was doing.
func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// timed returns how long f took.
func timed(b *testing.B, f func() error) time.Duration {
	start := time.Now()
	err := f()
	took := time.Since(start)
	if err != nil {
		b.Fatal(err)
	}
	return took
}

// envelopeFixture is one signed envelope, and what each verifier needs.
type envelopeFixture struct {
	text     []byte // the envelope's JSON
	signers  int
	keys     []identity.PublicKey
	verifier *library.EnvelopeVerifier
	message  []byte // the PAE
	sigs     [][]byte
	raw      []ed25519.PublicKey
}

func newEnvelopeFixture(b *testing.B, signers, trusted int) *envelopeFixture {
	b.Helper()
	payload := []byte(`{"kind":"Build","padding":"` + strings.Repeat("x", 2000) + `"}`)
	f := &envelopeFixture{signers: signers, message: dsse.PAE("application/vnd.arch.network.build.v1+json", payload)}
	var verifiers []library.Verifier
	var sign []identity.Signer
	for i := range trusted {
		seed := bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize)
		key, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed))
		if err != nil {
			b.Fatal(err)
		}
		raw := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
		verifier, err := signerverifier.NewED25519SignerVerifierFromSSLibKey(&signerverifier.SSLibKey{
			KeyID:  key.Public().String(),
			KeyVal: signerverifier.KeyVal{Public: hex.EncodeToString(raw)},
		})
		if err != nil {
			b.Fatal(err)
		}
		f.keys = append(f.keys, key.Public())
		f.raw = append(f.raw, raw)
		verifiers = append(verifiers, verifier)
		sign = append(sign, key)
	}
	env, err := dsse.Sign(b.Context(), "application/vnd.arch.network.build.v1+json", payload, sign[trusted-signers:]...)
	if err != nil {
		b.Fatal(err)
	}
	f.text = env.Marshal()
	for _, s := range env.Signatures {
		f.sigs = append(f.sigs, s.Sig)
	}
	f.raw = f.raw[trusted-signers:]
	if f.verifier, err = library.NewMultiEnvelopeVerifier(signers, verifiers...); err != nil {
		b.Fatal(err)
	}
	return f
}

func (f *envelopeFixture) ours() error {
	env, err := dsse.Parse(f.text)
	if err != nil {
		return err
	}
	if n := len(env.Verified(f.keys)); n != f.signers {
		return fmt.Errorf("%d keys verified", n)
	}
	return nil
}

func (f *envelopeFixture) theirs() error {
	var env library.Envelope
	if err := json.Unmarshal(f.text, &env); err != nil {
		return err
	}
	_, _, err := f.verifier.VerifyAndDecode(context.Background(), &env)
	return err
}

func (f *envelopeFixture) floor() error {
	for i, sig := range f.sigs {
		if !ed25519.Verify(f.raw[i], f.message, sig) {
			return fmt.Errorf("signature %d does not verify", i)
		}
	}
	return nil
}
