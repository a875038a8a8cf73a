package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"arch.network/attest/digest"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"
)

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "openpgp", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// gpgMessage is what the signatures in testdata/openpgp are over. GnuPG 2.2.40 made them, on 2026-01-15.
var gpgMessage = []byte("DSSEv1 5 hello 5 world")

// day returns a day of January 2026.
func day(n int) time.Time { return time.Date(2026, 1, n, 12, 0, 0, 0, time.UTC) }

func TestOpenPGPFromGnuPG(t *testing.T) {
	for _, c := range []struct{ file, name string }{
		{"ed", "openpgp:B5BF46274EC919EADECC4B6C424E189F0C957D58"}, // primary key certifies, a subkey signs
		{"rsa", "openpgp:3EC98B6ACCFB92E4EB18B983A42B0438474E2666"},
		{"p256", "openpgp:9159FEDDD37C288F3F948D062A7AC5FE3BD4D804"},
	} {
		t.Run(c.file, func(t *testing.T) {
			k, err := ParseOpenPGP(testdata(t, c.file+".asc"))
			if err != nil {
				t.Fatal(err)
			}
			if k.String() != c.name || k.Algorithm() != OpenPGP {
				t.Errorf("key %s, %s", k, k.Algorithm())
			}
			sig := testdata(t, c.file+".sig")
			if err := k.Verify(gpgMessage, sig); err != nil {
				t.Error(err)
			}
			if err := k.At(day(14)).Verify(gpgMessage, sig); err == nil || !strings.Contains(err.Error(), "in the future") {
				t.Errorf("the day before: %v", err)
			}
			if k.Verify(append(gpgMessage, '\n'), sig) == nil {
				t.Error("another message verified")
			}
			if k.Verify(gpgMessage, append(bytes.Clone(sig), sig...)) == nil {
				t.Error("two signatures verified as one")
			}
			for i := range sig {
				bad := bytes.Clone(sig)
				bad[i] ^= 4
				// The two bytes of the hash that the packet repeats, and the unhashed part, prove nothing.
				if k.Verify(gpgMessage, bad) == nil && !unprotected(t, sig, i) {
					t.Errorf("a signature with byte %d changed verified", i)
				}
			}
		})
	}
	if ed, err := ParseOpenPGP(testdata(t, "ed.asc")); err != nil {
		t.Fatal(err)
	} else if err := ed.Verify(gpgMessage, testdata(t, "text.sig")); err == nil || !strings.Contains(err.Error(), "type 0x01") {
		t.Errorf("signature of a text: %v", err)
	} else if len(ed.Components()) != 1 {
		t.Errorf("%d keys may sign, not 1", len(ed.Components()))
	}
}

// unprotected reports whether byte i of a version 4 signature packet is not covered by the signature: the packet header, the
// unhashed subpackets, the hash's first two bytes, and the bit counts of the numbers.
func unprotected(t *testing.T, sig []byte, i int) bool {
	t.Helper()
	short := func(at int) int { return int(sig[at])<<8 + int(sig[at+1]) }
	head := 2
	if sig[0]&3 == 1 && sig[0]&0x40 == 0 {
		head = 3
	}
	unhashed := head + 6 + short(head+4)
	numbers := unhashed + 2 + short(unhashed) + 2
	if i < head || i >= unhashed && i < numbers {
		return true
	}
	for at := numbers; at < len(sig); at += 2 + (short(at)+7)/8 {
		if i == at || i == at+1 {
			return true
		}
	}
	return false
}

// cert is an OpenPGP key made for a test.
type cert struct {
	t *testing.T
	*openpgp.Entity
}

func config(at time.Time, alg packet.PublicKeyAlgorithm) *packet.Config {
	return &packet.Config{Time: func() time.Time { return at }, Algorithm: alg, DefaultHash: crypto.SHA256, RSABits: 2048}
}

func newCert(t *testing.T, c *packet.Config) cert {
	t.Helper()
	e, err := openpgp.NewEntity("Test", "", "test@example.org", c)
	if err != nil {
		t.Fatal(err)
	}
	return cert{t, e}
}

func (c cert) public() []byte {
	c.t.Helper()
	var b bytes.Buffer
	if err := c.Serialize(&b); err != nil {
		c.t.Fatal(err)
	}
	return b.Bytes()
}

func (c cert) sign(conf *packet.Config) []byte {
	c.t.Helper()
	var b bytes.Buffer
	if err := openpgp.DetachSign(&b, c.Entity, bytes.NewReader(gpgMessage), conf); err != nil {
		c.t.Fatal(err)
	}
	return b.Bytes()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenPGPTime(t *testing.T) {
	lasting := func(c *packet.Config, days uint32) *packet.Config {
		c.KeyLifetimeSecs = days * 86400
		return c
	}
	month := newCert(t, lasting(config(day(1), packet.PubKeyAlgoEdDSA), 10))
	sub := newCert(t, config(day(1), packet.PubKeyAlgoEdDSA))
	must(t, sub.AddSigningSubkey(lasting(config(day(2), packet.PubKeyAlgoEdDSA), 3)))
	brief := config(day(5), packet.PubKeyAlgoEdDSA)
	brief.SigLifetimeSecs = 86400
	signedBySub := sub.sign(config(day(3), packet.PubKeyAlgoEdDSA))
	for _, c := range []struct {
		name string
		cert cert
		sig  []byte
		at   time.Time
		want string
	}{
		{"before expiry", month, month.sign(config(day(5), 0)), day(10), ""},
		{"a second before", month, month.sign(config(day(5), 0)), day(11).Add(-time.Second), ""},
		{"at expiry", month, month.sign(config(day(5), 0)), day(11), "the certificate expired on 2026-01-11T12:00:00Z"},
		{"clock a little behind", month, month.sign(config(day(5), 0)), day(5).Add(-clockSkew), ""},
		{"clock far behind", month, month.sign(config(day(5), 0)), day(5).Add(-clockSkew - time.Second), "it claims to be made in the future, on 2026-01-05T12:00:00Z"},
		{"subkey", sub, signedBySub, day(4), ""},
		{"subkey expired", sub, signedBySub, day(6), "the subkey expired on 2026-01-05T12:00:00Z"},
		{"signature still good", month, month.sign(brief), day(5).Add(time.Hour), ""},
		{"signature expired", month, month.sign(brief), day(7), "the signature has expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := ParseOpenPGP(c.cert.public())
			must(t, err)
			got := ""
			if err := k.At(c.at).Verify(gpgMessage, c.sig); err != nil {
				got = strings.TrimPrefix(err.Error(), "verify signature by "+k.String()+": ")
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOpenPGPRefusesCertificates(t *testing.T) {
	conf := config(day(1), packet.PubKeyAlgoEdDSA)
	good := newCert(t, conf)
	compromised := newCert(t, conf)
	must(t, compromised.RevokeKey(packet.KeyCompromised, "stolen", conf))
	retired := newCert(t, conf)
	must(t, retired.RevokeKey(packet.KeyRetired, "old age", config(day(20), packet.PubKeyAlgoEdDSA)))
	v6 := config(day(1), packet.PubKeyAlgoEd25519)
	v6.V6Keys = true
	small := config(day(1), packet.PubKeyAlgoRSA)
	small.RSABits = 1024
	brainpool := config(day(1), packet.PubKeyAlgoECDSA)
	brainpool.Curve = packet.CurveBrainpoolP256
	noFlag := newCert(t, conf)
	for _, id := range noFlag.Identities {
		id.SelfSignature.FlagSign = false
		must(t, id.SelfSignature.SignUserId(id.UserId.Id, noFlag.PrimaryKey, noFlag.PrivateKey, conf))
	}
	var private bytes.Buffer
	must(t, good.SerializePrivate(&private, conf))
	twice := append(good.public(), newCert(t, conf).public()...)
	armored := func(kind string, raw []byte) []byte {
		var b bytes.Buffer
		w, err := armor.Encode(&b, kind, nil)
		must(t, err)
		_, err = w.Write(raw)
		must(t, err)
		must(t, w.Close())
		return b.Bytes()
	}
	block := armored("PGP PUBLIC KEY BLOCK", good.public())
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"good", good.public(), ""},
		{"armoured", block, ""},
		{"armoured, space around", append([]byte("\n \n"), append(block, "\n\n"...)...), ""},
		{"empty", nil, "it does not begin with a readable packet"},
		{"rubbish", []byte("hello world"), "it does not begin with a readable packet"},
		{"too large", make([]byte, MaxCertificate+1), "32769 bytes; at most 32768 are read"},
		{"two armoured blocks", append(bytes.Clone(block), append([]byte("\n"), block...)...), "it is not exactly one PGP PUBLIC KEY BLOCK"},
		{"armoured, text behind", append(bytes.Clone(block), "\nand so on"...), "it is not exactly one PGP PUBLIC KEY BLOCK"},
		{"armoured message", armored("PGP MESSAGE", good.public()), "it is not exactly one PGP PUBLIC KEY BLOCK"},
		{"armoured private key", armored("PGP PRIVATE KEY BLOCK", private.Bytes()), "it is a private key; export the public one"},
		{"private key", private.Bytes(), "it does not begin with a public key that we support"},
		{"two certificates", twice, "it holds several certificates; give one at a time"},
		{"cut short", good.public()[:len(good.public())-20], "malformed packet"},
		{"bare key", good.public()[:53], "no valid self-signature over SHA-256, SHA-384 or SHA-512"},
		{"compromised", compromised.public(), `it is revoked: "stolen"`},
		{"retired, even before the day", retired.public(), `it is revoked: "old age"`},
		{"SHA-1 self-signature", testdata(t, "sha1.asc"), "no valid self-signature over SHA-256, SHA-384 or SHA-512"},
		{"version 6", newCert(t, v6).public(), "it does not begin with a primary key of version 4"},
		{"RSA of 1024 bits", newCert(t, small).public(), "primary key: RSA key of 1024 bits; 2048 to 4096 are accepted"},
		{"Brainpool curve", newCert(t, brainpool).public(), "primary key: ECDSA over curve BrainpoolP256; P-256, P-384 and P-521 are accepted"},
		{"may not sign", noFlag.public(), "neither its primary key nor a valid subkey may sign"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if k, err := ParseOpenPGP(c.data); err != nil {
				got = err.(*CertificateError).Err.Error()
				if !k.IsZero() {
					t.Error("an error and a key")
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOpenPGPSigningSubkeys(t *testing.T) {
	conf := config(day(1), packet.PubKeyAlgoEdDSA)
	later := config(day(2), packet.PubKeyAlgoEdDSA)
	revoked := newCert(t, conf)
	must(t, revoked.AddSigningSubkey(later))
	sig := revoked.sign(later)
	k, err := ParseOpenPGP(revoked.public())
	must(t, err)
	if err := k.At(day(3)).Verify(gpgMessage, sig); err != nil {
		t.Errorf("subkey before its revocation: %v", err)
	}
	sub := &revoked.Subkeys[len(revoked.Subkeys)-1]
	must(t, revoked.RevokeSubkey(sub, packet.KeySuperseded, "", config(day(10), packet.PubKeyAlgoEdDSA)))
	k, err = ParseOpenPGP(revoked.public())
	must(t, err)
	if err := k.At(day(3)).Verify(gpgMessage, sig); err == nil || !strings.Contains(err.Error(), "not made by a key of the certificate that may sign") {
		t.Errorf("revoked subkey: %v", err)
	}
	if err := k.At(day(3)).Verify(gpgMessage, signWithPrimary(t, revoked, later)); err != nil {
		t.Errorf("primary key beside a revoked subkey: %v", err)
	}

	// An attacker binds the victim's subkey to a key of their own. They lack its cross-signature.
	victim, thief := newCert(t, conf), newCert(t, conf)
	must(t, victim.AddSigningSubkey(later))
	stolen := victim.Subkeys[len(victim.Subkeys)-1]
	stolen.Sig.EmbeddedSignature = nil
	must(t, stolen.Sig.SignKey(stolen.PublicKey, thief.PrivateKey, later))
	thief.Subkeys = append(thief.Subkeys, stolen)
	k, err = ParseOpenPGP(thief.public())
	must(t, err)
	if len(k.Components()) != 1 {
		t.Errorf("%d keys may sign, not 1: a subkey was adopted", len(k.Components()))
	}
}

func signWithPrimary(t *testing.T, c cert, conf *packet.Config) []byte {
	t.Helper()
	withID := *conf
	withID.SigningKeyId = c.PrimaryKey.KeyId
	return c.sign(&withID)
}

func TestOpenPGPRefusesSignatures(t *testing.T) {
	conf := config(day(2), packet.PubKeyAlgoEdDSA)
	c := newCert(t, config(day(1), packet.PubKeyAlgoEdDSA))
	k, err := ParseOpenPGP(c.public())
	must(t, err)
	k = k.At(day(3))
	sig := c.sign(conf)
	// go-crypto's Config cannot make weak or odd signatures; a signature packet can.
	odd := func(change func(*packet.Signature)) []byte {
		s := &packet.Signature{
			Version: 4, SigType: packet.SigTypeBinary, PubKeyAlgo: c.PrimaryKey.PubKeyAlgo, Hash: crypto.SHA256,
			CreationTime: day(2), IssuerKeyId: &c.PrimaryKey.KeyId,
		}
		change(s)
		h := s.Hash.New()
		h.Write(gpgMessage)
		must(t, s.Sign(h, c.PrivateKey, conf))
		var b bytes.Buffer
		must(t, s.Serialize(&b))
		return b.Bytes()
	}
	var armored bytes.Buffer
	must(t, openpgp.ArmoredDetachSign(&armored, c.Entity, bytes.NewReader(gpgMessage), conf))
	var text bytes.Buffer
	must(t, openpgp.DetachSignText(&text, c.Entity, bytes.NewReader(gpgMessage), conf))
	var compressed bytes.Buffer
	w, err := packet.SerializeCompressed(nopCloser{&compressed}, packet.CompressionZLIB, nil)
	must(t, err)
	_, err = w.Write(sig)
	must(t, err)
	must(t, w.Close())
	for _, c := range []struct {
		name string
		sig  []byte
		want string
	}{
		{"good", sig, ""},
		{"SHA-384", odd(func(s *packet.Signature) { s.Hash = crypto.SHA384 }), ""},
		{"SHA-512", odd(func(s *packet.Signature) { s.Hash = crypto.SHA512 }), ""},
		{"remark", odd(func(s *packet.Signature) { s.Notations = []*packet.Notation{{Name: "a@example.org"}} }), ""},
		{"SHA-1", testdata(t, "sha1.sig"), "OpenPGP signature over SHA-1, which is too weak or unusual; SHA-256, SHA-384 and SHA-512 are accepted"},
		{"critical remark", odd(func(s *packet.Signature) { s.Notations = []*packet.Notation{{Name: "a@example.org", IsCritical: true}} }), `OpenPGP signature with unknown critical notation "a@example.org"`},
		{"older than its key", odd(func(s *packet.Signature) { s.CreationTime = day(1).Add(-time.Second) }), "it claims to be older than its key"},
		{"of another key", newCert(t, config(day(1), packet.PubKeyAlgoEdDSA)).sign(conf), "it was not made by a key of the certificate that may sign"},
		{"text", text.Bytes(), "OpenPGP signature of type 0x01, not of a binary document"},
		{"armoured", armored.Bytes(), "it is no binary OpenPGP signature packet"},
		{"compressed", compressed.Bytes(), "it is no binary OpenPGP signature packet"},
		{"empty", nil, "it is no binary OpenPGP signature packet"},
		{"header only", sig[:2], "malformed or unsupported OpenPGP signature packet"},
		{"two", append(bytes.Clone(sig), sig...), "bytes after the OpenPGP signature"},
		{"too large", append([]byte{0xc2}, make([]byte, MaxOpenPGPSignature)...), "8193 bytes; an OpenPGP signature has at most 8192"},
		{"bare Ed25519", make([]byte, 64), "it is no binary OpenPGP signature packet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := k.Verify(gpgMessage, c.sig); err != nil {
				got = strings.TrimPrefix(err.Error(), "verify signature by "+k.String()+": ")
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

// TestComponentsSeeThroughNames makes the same Ed25519 and P-256 keys appear as did:key and in a certificate.
func TestComponentsSeeThroughNames(t *testing.T) {
	for _, alg := range []packet.PublicKeyAlgorithm{packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoEd25519} {
		c := newCert(t, config(day(1), alg))
		point, ok := edPoint(c.PrimaryKey)
		if !ok {
			t.Fatalf("no point in %v", alg)
		}
		did, err := NewPublicKey(Ed25519, ed25519.PublicKey(point))
		must(t, err)
		k, err := ParseOpenPGP(c.public())
		must(t, err)
		if diff := cmp.Diff([]digest.SHA256{did.ID()}, k.Components()); diff != "" {
			t.Errorf("components (-want +got):\n%s", diff)
		}
		if k.Equal(did) {
			t.Error("names of one key are equal keys: they verify differently")
		}
	}
	p256 := config(day(1), packet.PubKeyAlgoECDSA)
	p256.Curve = packet.CurveNistP256
	c := newCert(t, p256)
	part, err := component(c.PrimaryKey)
	must(t, err)
	var body bytes.Buffer
	must(t, c.PrimaryKey.SerializeForHash(&body))
	point := body.Bytes()[body.Len()-65:]
	did, err := NewPublicKey(ECDSAP256, compressP256(point))
	must(t, err)
	if part != did.ID() {
		t.Error("a P-256 key has two components")
	}
}

func FuzzOpenPGPSignature(f *testing.F) {
	keys := map[string]PublicKey{}
	for _, name := range []string{"ed", "rsa", "p256"} {
		k, err := ParseOpenPGP(testdata(f, name+".asc"))
		if err != nil {
			f.Fatal(err)
		}
		keys[name] = k.At(day(16))
		f.Add(testdata(f, name+".sig"))
	}
	f.Add(testdata(f, "text.sig"))
	f.Add([]byte{0xc2, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x88, 0x00})
	f.Fuzz(func(t *testing.T, sig []byte) {
		for name, k := range keys {
			if k.Verify([]byte("never signed"), sig) == nil {
				t.Fatalf("%s verified %x", name, sig)
			}
			if k.Verify(gpgMessage, sig) == nil && len(sig) > MaxOpenPGPSignature {
				t.Fatalf("%s verified %d bytes", name, len(sig))
			}
		}
	})
}

func FuzzParseOpenPGP(f *testing.F) {
	for _, name := range []string{"ed", "rsa", "p256"} {
		f.Add(testdata(f, name+".asc"))
		raw, err := dearmor(testdata(f, name+".asc"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseOpenPGP(data)
		if (err == nil) != (len(k.Components()) > 0) {
			t.Fatalf("error %v with %d components", err, len(k.Components()))
		}
		if err == nil && len(k.String()) != len(openPGPPrefix)+40 {
			t.Fatalf("name %q", k)
		}
	})
}
