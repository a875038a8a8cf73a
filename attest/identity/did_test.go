package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"
	"testing"

	"arch.network/attest/digest"
	"filippo.io/edwards25519"
	"github.com/google/go-cmp/cmp"
	"github.com/multiformats/go-multibase"
)

// seed returns the 32 bytes of n, big endian: the seeds of the did:key specification's vectors.
func seed(n byte) []byte {
	s := make([]byte, secretSize)
	s[secretSize-1] = n
	return s
}

func mustKey(t testing.TB, alg Algorithm, n byte) *Key {
	t.Helper()
	k, err := newKey(alg, seed(n))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// didOf encodes bytes as a did:key, without looking at them.
func didOf(raw []byte) string {
	s, err := multibase.Encode(multibase.Base58BTC, raw)
	if err != nil {
		panic(err)
	}
	return "did:key:" + s
}

func withCodec(codec uint64, key []byte) []byte {
	return append(binary.AppendUvarint(nil, codec), key...)
}

// TestVectors holds us to the did:key specification's vectors.
func TestVectors(t *testing.T) {
	want := []string{
		"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
		"did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG",
		"did:key:z6MknGc3ocHs3zdPiJbnaaqDi58NGb4pk1Sp9WxWufuXSdxf",
		"did:key:z6MkvqoYXQfDDJRv8L4wKzxYeuKyVZBfi9Qo6Ro8MiLH3kDQ",
		"did:key:z6MkwW6aqMnjgrhJXFUko3NnZPGzVpkNzhYK7yEhnsibmLwL",
	}
	var got []string
	for n := range byte(5) {
		got = append(got, mustKey(t, Ed25519, n).Public().String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names of seeds 0 to 4 (-want +got):\n%s", diff)
	}
	for _, name := range append(want, "did:key:zDnaerx9CtbPJ1q36T5Ln5wYt3MQYeGRG5ehnPAmxcf5mDZpv") {
		k, err := ParsePublicKey(name)
		if err != nil {
			t.Error(err)
		} else if k.String() != name {
			t.Errorf("%s became %s", name, k)
		}
	}
}

func TestNamesOfEachAlgorithm(t *testing.T) {
	for _, c := range []struct {
		alg    Algorithm
		prefix string
		length int
	}{
		{Ed25519, "did:key:z6Mk", 56},
		{ECDSAP256, "did:key:zDn", 57},
		{MLDSA65, "did:key:z5Fb", maxDID},
	} {
		t.Run(string(c.alg), func(t *testing.T) {
			k := mustKey(t, c.alg, 7).Public()
			name := k.String()
			if !strings.HasPrefix(name, c.prefix) {
				t.Errorf("%.20s… does not begin with %s", name, c.prefix)
			}
			if len(name) != c.length {
				t.Errorf("name of %d characters, not %d", len(name), c.length)
			}
			if len(k.Short()) > 70 {
				t.Errorf("Short has %d bytes", len(k.Short()))
			}
			again, err := ParsePublicKey(name)
			if err != nil {
				t.Fatal(err)
			}
			if !again.Equal(k) || again.Algorithm() != c.alg || again.ID() != k.ID() {
				t.Errorf("%s came back as another key", k.Short())
			}
		})
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	ed := ed25519.NewKeyFromSeed(seed(1))[32:]
	p256 := mustKey(t, ECDSAP256, 1).Public().String()
	_, p256raw, _ := multibase.Decode(strings.TrimPrefix(p256, "did:key:"))
	good := didOf(withCodec(codecEd25519, ed))
	notOnCurve := slices.Clone(p256raw[2:])
	for notOnCurve[32] = 0; ; notOnCurve[32]++ {
		if _, err := parseP256(notOnCurve); err != nil {
			break
		}
	}
	for _, c := range []struct{ name, did, want string }{
		{"empty", "", `it does not begin with "did:key:z"`},
		{"other method", "did:web:example.org", `it does not begin with "did:key:z"`},
		{"base64url form", "did:key:u7QEB", `it does not begin with "did:key:z"`},
		{"OpenPGP name", "openpgp:0123456789ABCDEF0123456789ABCDEF01234567", `it does not begin with "did:key:z"`},
		{"with fragment", good + "#" + good[8:], "it is not base58btc"},
		{"space behind", good + " ", "it is not base58btc"},
		{"upper-case scheme", strings.Replace(good, "did", "DID", 1), `it does not begin with "did:key:z"`},
		{"not base58", "did:key:z0OIl", "it is not base58btc"},
		{"no bytes", "did:key:z", "it is not base58btc"},
		{"too long", didPrefix + strings.Repeat("2", maxDID), "2687 characters; no key needs more than 2678"},
		{"unfinished varint", didOf([]byte{0xed}), "the varint of its multicodec is malformed or not minimal"},
		{"padded varint", didOf(append([]byte{0xed, 0x81, 0x00}, ed...)), "the varint of its multicodec is malformed or not minimal"},
		{"overlong varint", didOf(append(bytes.Repeat([]byte{0xff}, 11), ed...)), "the varint of its multicodec is malformed or not minimal"},
		{"private key codec", didOf(withCodec(0x1300, ed)), "multicodec 0x1300 is not a public key of Ed25519 (0xed), P-256 (0x1200) or ML-DSA-65 (0x1211)"},
		{"X25519", didOf(withCodec(0xec, ed)), "multicodec 0xec is not a public key of Ed25519 (0xed), P-256 (0x1200) or ML-DSA-65 (0x1211)"},
		{"trailing byte", didOf(withCodec(codecEd25519, append(slices.Clone(ed), 0))), "33 bytes of key; ed25519 has 32"},
		{"short key", didOf(withCodec(codecEd25519, ed[:31])), "31 bytes of key; ed25519 has 32"},
		{"leading zeros", "did:key:z1" + good[len(didPrefix):], "multicodec 0x0 is not a public key of Ed25519 (0xed), P-256 (0x1200) or ML-DSA-65 (0x1211)"},
		{"uncompressed P-256", didOf(withCodec(codecP256, make([]byte, 65))), "65 bytes of key; ecdsa-p256 has 33"},
		{"P-256 off the curve", didOf(withCodec(codecP256, notOnCurve)), "it is not a compressed point of P-256"},
		{"P-256 hybrid form", didOf(withCodec(codecP256, append([]byte{6}, p256raw[3:]...))), "it is not a compressed point of P-256"},
		{"ML-DSA-44 length", didOf(withCodec(codecMLDSA65, make([]byte, 1312))), "1312 bytes of key; ml-dsa-65 has 1952"},
		{"not a point", didOf(withCodec(codecEd25519, append([]byte{2}, make([]byte, 31)...))), "it is not a point of edwards25519"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := ParsePublicKey(c.did)
			if err == nil {
				t.Fatalf("accepted as %s", k)
			}
			e := err.(*KeyError)
			if diff := cmp.Diff(c.want, e.Err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if len(err.Error()) > 400 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestParsePublicKeyHints(t *testing.T) {
	for did, want := range map[string]string{
		"did:key:u7QEB": "write the key in base58btc, as did:key:z…",
		"openpgp:00":    "an OpenPGP key is read from its certificate: list it under certificates in the trust root",
		"rubbish":       "",
	} {
		_, err := ParsePublicKey(did)
		if got := err.(*KeyError).Hint(); got != want {
			t.Errorf("hint for %q: %q, not %q", did, got, want)
		}
	}
}

// torsion returns the eight points of small order of edwards25519.
func torsion(t *testing.T) []*edwards25519.Point {
	t.Helper()
	order, err := edwards25519.NewScalar().SetCanonicalBytes(minusOne[:])
	if err != nil {
		t.Fatal(err)
	}
	// L·P kills the large-order part of any P and leaves its part of small order, which for half of all P has order 8.
	for y := byte(2); ; y++ {
		p, err := new(edwards25519.Point).SetBytes(append([]byte{y}, make([]byte, 31)...))
		if err != nil {
			continue
		}
		g := new(edwards25519.Point).ScalarMult(order, p)
		g.Add(g, p)
		four := new(edwards25519.Point).Double(new(edwards25519.Point).Double(g))
		if four.Equal(edwards25519.NewIdentityPoint()) == 1 {
			continue
		}
		points := []*edwards25519.Point{edwards25519.NewIdentityPoint()}
		for range 7 {
			points = append(points, new(edwards25519.Point).Add(points[len(points)-1], g))
		}
		return points
	}
}

// nonCanonical returns every encoding of a point that is not its canonical one: y written as y+p, and a sign of a zero x.
func nonCanonical() [][]byte {
	var out [][]byte
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	add := func(y *big.Int, sign byte) {
		b := y.FillBytes(make([]byte, 32))
		slices.Reverse(b)
		b[31] |= sign << 7
		if _, err := new(edwards25519.Point).SetBytes(b); err == nil {
			out = append(out, b)
		}
	}
	for y := range int64(19) {
		for sign := range byte(2) {
			add(new(big.Int).Add(p, big.NewInt(y)), sign)
		}
	}
	add(big.NewInt(1), 1)
	add(new(big.Int).Sub(p, big.NewInt(1)), 1)
	return out
}

func TestWeakEd25519KeysAreRefused(t *testing.T) {
	small := torsion(t)
	distinct := map[string]bool{}
	for _, p := range small {
		distinct[string(p.Bytes())] = true
		_, err := ParsePublicKey(didOf(withCodec(codecEd25519, p.Bytes())))
		if err == nil || !strings.Contains(err.Error(), "small order") {
			t.Errorf("small-order point %x: %v", p.Bytes(), err)
		}
	}
	if len(distinct) != 8 {
		t.Fatalf("%d points of small order, not 8", len(distinct))
	}
	odd := nonCanonical()
	if len(odd) < 20 {
		t.Fatalf("only %d non-canonical encodings", len(odd))
	}
	for _, b := range odd {
		_, err := ParsePublicKey(didOf(withCodec(codecEd25519, b)))
		if err == nil || !strings.Contains(err.Error(), "not canonical") {
			t.Errorf("non-canonical %x: %v", b, err)
		}
	}
	honest, err := new(edwards25519.Point).SetBytes(ed25519.NewKeyFromSeed(seed(1))[32:])
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range small[1:] {
		mixed := new(edwards25519.Point).Add(honest, p).Bytes()
		_, err := ParsePublicKey(didOf(withCodec(codecEd25519, mixed)))
		if err == nil || !strings.Contains(err.Error(), "outside the prime-order group") {
			t.Errorf("mixed-order point %x: %v", mixed, err)
		}
	}
}

// TestSmallOrderKeysWouldVerifyAnything shows what the refusal is for.
func TestSmallOrderKeysWouldVerifyAnything(t *testing.T) {
	identity := append([]byte{1}, make([]byte, 31)...)
	sig := append(slices.Clone(identity), make([]byte, 32)...)
	for range 8 {
		message := make([]byte, 20)
		rand.Read(message)
		if !ed25519.Verify(identity, message, sig) {
			t.Skip("cannot run here: crypto/ed25519 has begun to refuse small-order keys itself")
		}
	}
}

func TestZeroPublicKey(t *testing.T) {
	var k PublicKey
	if err := k.Verify(nil, nil); err == nil {
		t.Error("no key verified a signature")
	}
	if !k.IsZero() || k.String() != "" || k.Algorithm() != "" || !k.ID().IsZero() || k.Components() != nil {
		t.Errorf("zero key: %q %q %s", k.String(), k.Algorithm(), k.ID())
	}
}

// TestID pins the ID of the first vector: sha256 of ed01 and the key.
func TestID(t *testing.T) {
	k := mustKey(t, Ed25519, 0).Public()
	raw, err := hex.DecodeString("ed01" + "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29")
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.Of(raw); k.ID() != want {
		t.Errorf("ID %s, not %s", k.ID(), want)
	}
	if diff := cmp.Diff([]digest.SHA256{k.ID()}, k.Components()); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
}

func FuzzParsePublicKey(f *testing.F) {
	for _, alg := range []Algorithm{Ed25519, ECDSAP256, MLDSA65} {
		f.Add(mustKey(f, alg, 3).Public().String())
	}
	f.Add("did:key:z")
	f.Add("did:key:z11111111")
	f.Add("did:key:u7QEBB")
	f.Fuzz(func(t *testing.T, did string) {
		k, err := ParsePublicKey(did)
		if err != nil {
			if k.String() != "" {
				t.Fatalf("%q: an error and a key", did)
			}
			return
		}
		if k.String() != did {
			t.Fatalf("%q is a second spelling of %q", did, k)
		}
		if k.Verify([]byte("message"), make([]byte, 64)) == nil {
			t.Fatalf("%q verifies zeros", did)
		}
	})
}
