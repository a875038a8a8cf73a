package dsse_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"testing"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"github.com/google/go-cmp/cmp"
	library "github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/secure-systems-lab/go-securesystemslib/signerverifier"
)

// libraryKey lets the library use one of our keys.
type libraryKey struct {
	*identity.Key
	id string
}

func (k libraryKey) Verify(_ context.Context, data, sig []byte) error {
	return k.Key.Public().Verify(data, sig)
}
func (k libraryKey) KeyID() (string, error)   { return k.id, nil }
func (k libraryKey) Public() crypto.PublicKey { return k.Key.Public() }

// libraryEd25519 returns the library's own form of Ed25519 key n.
func libraryEd25519(t testing.TB, n byte, id string) *signerverifier.ED25519SignerVerifier {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = n
	}
	private := ed25519.NewKeyFromSeed(seed)
	sv, err := signerverifier.NewED25519SignerVerifierFromSSLibKey(&signerverifier.SSLibKey{
		KeyID: id,
		KeyVal: signerverifier.KeyVal{
			Private: hex.EncodeToString(private),
			Public:  hex.EncodeToString(private[ed25519.SeedSize:]),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return sv
}

// libraryP256 returns the key of the specification's vector in the library's form and in ours.
func libraryP256(t *testing.T) (*signerverifier.ECDSASignerVerifier, identity.PublicKey) {
	t.Helper()
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), decimal(t, helloD))
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sv, err := signerverifier.NewECDSASignerVerifierFromSSLibKey(&signerverifier.SSLibKey{
		KeyID: "p256",
		KeyVal: signerverifier.KeyVal{
			Private: string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: privateDER})),
			Public:  string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER})),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ours, err := identity.Generate(identity.ECDSAP256, bytesOf(decimal(t, helloD)))
	if err != nil {
		t.Fatal(err)
	}
	return sv, ours.Public()
}

// What the library signs, we verify.
func TestLibrarySigns(t *testing.T) {
	p256, p256Key := libraryP256(t)
	signer, err := library.NewEnvelopeSigner(libraryEd25519(t, 1, "one"), libraryEd25519(t, 2, ""), p256)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := signer.SignPayload(t.Context(), "t", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	env, err := dsse.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	keys := append(public(newKeys(t, 2)...), p256Key)
	if diff := cmp.Diff(ids(keys), ids(env.Verified(keys))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What we sign, the library verifies.
func TestLibraryVerifies(t *testing.T) {
	keys := newKeys(t, 3)
	verifier, err := library.NewMultiEnvelopeVerifier(3,
		libraryEd25519(t, 1, keys[0].Public().String()),
		libraryEd25519(t, 2, keys[1].Public().String()),
		libraryEd25519(t, 3, keys[2].Public().String()))
	if err != nil {
		t.Fatal(err)
	}
	accepted, payload, err := verifier.VerifyAndDecode(t.Context(), libraryEnvelope(t, signedBy(t, keys...)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"kind":"Build"}`, string(payload)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(3, len(accepted)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// libraryEnvelope reads what Marshal writes as the library's users do.
func libraryEnvelope(t testing.TB, env *dsse.Envelope) *library.Envelope {
	t.Helper()
	var out library.Envelope
	if err := json.Unmarshal(env.Marshal(), &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

// Cases in which go-securesystemslib v0.11.1 gives a wrong answer, and ours. If its answer changes, say so here.
func TestLibraryIsWrong(t *testing.T) {
	ed := newKeys(t, 2)
	mldsa := []*identity.Key{newKey(t, identity.MLDSA65, 1), newKey(t, identity.MLDSA65, 2)}
	for name, c := range map[string]struct {
		signers   []*identity.Key
		change    func(*dsse.Envelope)
		verifiers []library.Verifier
		threshold int
		library   bool // what the library says
		want      bool // what is right
	}{
		"one key under two key IDs is two signers": {
			signers: ed[:1],
			change: func(e *dsse.Envelope) {
				e.Signatures = twice(dsse.Signature{KeyID: "a", Sig: e.Signatures[0].Sig}, "b")
			},
			verifiers: []library.Verifier{libraryKey{ed[0], "a"}, libraryKey{ed[0], "b"}},
			threshold: 2, library: true, want: false,
		},
		"two ML-DSA keys without key ID are one signer": {
			signers:   mldsa,
			verifiers: []library.Verifier{libraryKey{mldsa[0], ""}, libraryKey{mldsa[1], ""}},
			threshold: 2, library: false, want: true,
		},
		"one signature that is no base64 spoils all": {
			signers: ed,
			change: func(e *dsse.Envelope) {
				e.Signatures = append([]dsse.Signature{{Sig: []byte("REPLACED")}}, e.Signatures...)
			},
			verifiers: []library.Verifier{libraryKey{ed[0], ed[0].Public().String()}, libraryKey{ed[1], ed[1].Public().String()}},
			threshold: 2, library: false, want: true,
		},
		"a wrong hint spoils a good signature": {
			signers:   ed,
			change:    rotateHints,
			verifiers: []library.Verifier{libraryKey{ed[0], ed[0].Public().String()}, libraryKey{ed[1], ed[1].Public().String()}},
			threshold: 2, library: false, want: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := signedBy(t, c.signers...)
			if c.change != nil {
				c.change(env)
			}
			text := []byte(replaceBase64(string(env.Marshal())))

			var theirs library.Envelope
			if err := json.Unmarshal(text, &theirs); err != nil {
				t.Fatal(err)
			}
			verifier, err := library.NewMultiEnvelopeVerifier(c.threshold, c.verifiers...)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := verifier.Verify(t.Context(), &theirs); (err == nil) != c.library {
				t.Errorf("the library has changed: %v", err)
			}

			ours, err := dsse.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			var keys []identity.PublicKey
			for _, v := range c.verifiers {
				keys = append(keys, v.(libraryKey).Key.Public())
			}
			if got := len(ours.Verified(keys)) >= c.threshold; got != c.want {
				t.Errorf("ours says %t, want %t", got, c.want)
			}
		})
	}
}

// The library's ECDSA takes ASN.1 only, so that it refuses the specification's own vector.
func TestLibraryRefusesVector(t *testing.T) {
	sv, key := libraryP256(t)
	var theirs library.Envelope
	if err := json.Unmarshal([]byte(helloJSON), &theirs); err != nil {
		t.Fatal(err)
	}
	verifier, err := library.NewEnvelopeVerifier(sv)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.Verify(t.Context(), &theirs); err == nil {
		t.Error("the library has changed: it takes raw signatures")
	}
	ours, err := dsse.Parse([]byte(helloJSON))
	if err != nil {
		t.Fatal(err)
	}
	if len(ours.Verified([]identity.PublicKey{key})) != 1 {
		t.Error("ours does not verify")
	}
}
