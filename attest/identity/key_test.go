package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"reflect"
	"strings"
	"testing"

	"filippo.io/mldsa"
	"github.com/google/go-cmp/cmp"
)

var algorithms = []Algorithm{Ed25519, ECDSAP256, MLDSA65}

func mustSign(t testing.TB, s Signer, message []byte) []byte {
	t.Helper()
	sig, err := s.Sign(t.Context(), message)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func TestSignAndVerify(t *testing.T) {
	message := []byte("DSSEv1 29 http://example.com/HelloWorld 11 hello world")
	sizes := map[Algorithm]int{Ed25519: 64, ECDSAP256: 64, MLDSA65: 3309}
	for _, alg := range algorithms {
		t.Run(string(alg), func(t *testing.T) {
			k := mustKey(t, alg, 9)
			sig := mustSign(t, k, message)
			if len(sig) != sizes[alg] {
				t.Errorf("signature of %d bytes, not %d", len(sig), sizes[alg])
			}
			if err := k.Public().Verify(message, sig); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(sig, mustSign(t, k, message)) {
				t.Error("the same message got two signatures")
			}
			if mustKey(t, alg, 10).Public().Verify(message, sig) == nil {
				t.Error("another key verified it")
			}
			if k.Public().Verify(append(message, '!'), sig) == nil {
				t.Error("another message verified")
			}
			for _, bad := range [][]byte{nil, {}, sig[:len(sig)-1], append(bytes.Clone(sig), 0), make([]byte, len(sig)), bytes.Repeat(sig, 2)} {
				if k.Public().Verify(message, bad) == nil {
					t.Errorf("a signature of %d wrong bytes verified", len(bad))
				}
			}
			for i := 0; i < len(sig); i += 1 + len(sig)/64 {
				bad := bytes.Clone(sig)
				bad[i] ^= 1
				if k.Public().Verify(message, bad) == nil {
					t.Errorf("a signature with byte %d changed verified", i)
				}
			}
		})
	}
}

// TestNoAlgorithmConfusion gives each key the signatures of every other algorithm over the same secret.
func TestNoAlgorithmConfusion(t *testing.T) {
	message := []byte("message")
	for _, a := range algorithms {
		sig := mustSign(t, mustKey(t, a, 5), message)
		for _, b := range algorithms {
			if err := mustKey(t, b, 5).Public().Verify(message, sig); (err == nil) != (a == b) {
				t.Errorf("a %s signature under a %s key: %v", a, b, err)
			}
		}
	}
}

// TestDSSEVector checks the example of the DSSE specification (protocol.md, test vectors): P-256, r and s.
func TestDSSEVector(t *testing.T) {
	x, _ := new(big.Int).SetString("46950820868899156662930047687818585632848591499744589407958293238635476079160", 10)
	y, _ := new(big.Int).SetString("5640078356564379163099075877009565129882514886557779369047442380624545832820", 10)
	compressed := append([]byte{2 | byte(y.Bit(0))}, x.FillBytes(make([]byte, 32))...)
	k, err := NewPublicKey(ECDSAP256, compressed)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := base64.StdEncoding.DecodeString("A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==")
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Verify([]byte("DSSEv1 29 http://example.com/HelloWorld 11 hello world"), sig); err != nil {
		t.Error(err)
	}
}

func TestP256AcceptsBothForms(t *testing.T) {
	k := mustKey(t, ECDSAP256, 2)
	message := []byte("message")
	raw := mustSign(t, k, message)
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed(2))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(message)
	der, err := ecdsa.SignASN1(nil, private, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	for name, sig := range map[string][]byte{"r and s": raw, "ASN.1": der} {
		if err := k.Public().Verify(message, sig); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if k.Public().Verify(message, append(der, 0)) == nil {
		t.Error("ASN.1 with a byte behind it verified")
	}
}

// TestMLDSAAgreesWithAnotherImplementation compares circl's keys and signatures with those of filippo.io/mldsa.
func TestMLDSAAgreesWithAnotherImplementation(t *testing.T) {
	for n := range byte(16) {
		ours := mustKey(t, MLDSA65, n)
		theirs, err := mldsa.NewPrivateKey(mldsa.MLDSA65(), seed(n))
		if err != nil {
			t.Fatal(err)
		}
		public, err := NewPublicKey(MLDSA65, theirs.PublicKey().Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !public.Equal(ours.Public()) {
			t.Fatalf("seed %d: two public keys", n)
		}
		message := bytes.Repeat([]byte{n}, int(n)*37)
		sig := mustSign(t, ours, message)
		deterministic, err := theirs.SignDeterministic(message, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sig, deterministic) {
			t.Errorf("seed %d: two deterministic signatures", n)
		}
		hedged, err := theirs.Sign(nil, message, &mldsa.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := public.Verify(message, hedged); err != nil {
			t.Errorf("seed %d: their randomised signature: %v", n, err)
		}
		inContext, err := theirs.Sign(nil, message, &mldsa.Options{Context: "other"})
		if err != nil {
			t.Fatal(err)
		}
		if public.Verify(message, inContext) == nil {
			t.Errorf("seed %d: a signature for another context verified", n)
		}
		for i := 0; i < len(sig); i += 101 {
			bad := bytes.Clone(sig)
			bad[i] ^= 0x10
			if a, b := public.Verify(message, bad), mldsa.Verify(theirs.PublicKey(), message, bad, nil); (a == nil) != (b == nil) {
				t.Fatalf("seed %d, byte %d: %v, but %v", n, i, a, b)
			}
		}
	}
}

func TestGenerate(t *testing.T) {
	for _, alg := range algorithms {
		a, err := Generate(alg, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Generate(alg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Public().Equal(b.Public()) {
			t.Errorf("%s: the same key twice", alg)
		}
		c, err := Generate(alg, bytes.NewReader(seed(4)))
		if err != nil {
			t.Fatal(err)
		}
		if !c.Public().Equal(mustKey(t, alg, 4).Public()) {
			t.Errorf("%s: the same randomness gave another key", alg)
		}
	}
}

func TestGenerateRefuses(t *testing.T) {
	ff := bytes.Repeat([]byte{0xff}, 8*secretSize)
	for _, c := range []struct {
		name   string
		alg    Algorithm
		random []byte
		want   string
	}{
		{"OpenPGP", OpenPGP, ff, "make key: OpenPGP keys are not made or kept here"},
		{"unknown", "rsa", ff, `make key: "rsa" is no algorithm for private keys`},
		{"short randomness", Ed25519, ff[:31], "generate ed25519 key: read randomness: unexpected EOF"},
		{"P-256 beyond the order", ECDSAP256, ff, "generate ecdsa-p256 key: the randomness is not random"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Generate(c.alg, bytes.NewReader(c.random))
			if err == nil {
				t.Fatal("made a key")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSignStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := mustKey(t, Ed25519, 1).Sign(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// secretForms returns the spellings in which a secret could leak.
func secretForms(secret []byte) []string {
	return []string{
		string(secret), string(secret[4:28]),
		hex.EncodeToString(secret[4:28]), strings.ToUpper(hex.EncodeToString(secret[4:28])),
		base64.StdEncoding.EncodeToString(secret[3:27]), base64.StdEncoding.EncodeToString(secret)[:24],
		fmt.Sprint(secret[4:12])[1:20],
		strings.Trim(fmt.Sprintf("%#v", secret[4:12]), "[]byte{}"),
		strings.Trim(fmt.Sprintf("% x", secret[4:12]), "[]"),
		strings.Trim(fmt.Sprintf("%b", secret[4:8]), "[]"),
		strings.Trim(fmt.Sprintf("%o", secret[4:12]), "[]"),
	}
}

func leaks(secret []byte, text string) bool {
	for _, form := range secretForms(secret) {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// holder hides a key where fmt cannot call its methods.
type holder struct {
	pointer *Key
	value   Key
	signer  Signer
}

func TestKeysAreNeverPrinted(t *testing.T) {
	secret := []byte("\x81\x92\xa3\xb4\xc5\xd6\xe7\xf8\x19\x2a\x3b\x4c\x5d\x6e\x7f\x80\x91\xa2\xb3\xc4\xd5\xe6\xf7\x08\x29\x3a\x4b\x5c\x6d\x7e\x8f\x90")
	for _, alg := range algorithms {
		k, err := newKey(alg, bytes.Clone(secret))
		if err != nil {
			t.Fatal(err)
		}
		things := []any{k, *k, Signer(k), []*Key{k}, map[string]Key{"a": *k}, holder{k, *k, k}, &holder{k, *k, k}, struct{ K Key }{*k}, k.Public()}
		var out strings.Builder
		for _, thing := range things {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%b", "%o", "%U", "%c", "%t", "%p", "%T", "%20.10s"} {
				fmt.Fprintf(&out, verb+"\n", thing)
			}
			fmt.Fprintln(&out, thing)
			slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", thing)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "key", thing)
			if data, err := json.Marshal(thing); err == nil {
				out.Write(data)
			}
			_ = gob.NewEncoder(&out).Encode(thing)
			fmt.Fprint(&out, fmt.Errorf("wrapped: %v", thing), reflect.ValueOf(thing))
		}
		if leaks(secret, out.String()) {
			t.Errorf("%s: a private key was printed", alg)
		}
		if !strings.Contains(fmt.Sprintf("%#v", k), k.Public().Short()) {
			t.Errorf("%s: %#v does not name the public key", alg, k)
		}
		if !leaks(secret, fmt.Sprintf("%v", struct{ s []byte }{secret})) || !leaks(secret, string(k.encodeText())) {
			t.Fatal("the test would not see a leak")
		}
	}
}
