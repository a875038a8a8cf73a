package identity

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"arch.network/attest/digest"
	"github.com/ProtonMail/go-crypto/openpgp/ed25519"
	"github.com/ProtonMail/go-crypto/openpgp/eddsa"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	openPGPPrefix = "openpgp:"

	// MaxCertificate is the size in bytes of the largest OpenPGP certificate we read: a trust root has to hold it.
	MaxCertificate = 32 << 10

	// MaxOpenPGPSignature is the size in bytes of the largest OpenPGP signature we look at. One by a 4,096-bit RSA
	// key has about 600.
	MaxOpenPGPSignature = 8 << 10

	// clockSkew is how far in the future a signature may claim to be made: clocks differ.
	clockSkew = 5 * time.Minute

	// Sizes of RSA keys in bits: NIST SP 800-57 part 1 asks for 2,048; more than 4,096 only slows everyone down.
	minRSABits, maxRSABits = 2048, 4096
)

// CertificateError says why an OpenPGP certificate is refused.
type CertificateError struct {
	Fingerprint string // 40 upper-case hexadecimal digits, or "" if it could not be read
	Err         error
	hint        string
}

func (e *CertificateError) Error() string {
	if e.Fingerprint == "" {
		return fmt.Sprintf("parse OpenPGP certificate: %v", e.Err)
	}
	return fmt.Sprintf("parse OpenPGP certificate %s: %v", e.Fingerprint, e.Err)
}

// Unwrap returns the cause.
func (e *CertificateError) Unwrap() error { return e.Err }

// Hint returns the way out, or "".
func (e *CertificateError) Hint() string { return e.hint }

// ParseOpenPGP reads one OpenPGP certificate (public keys only, version 4, at most MaxCertificate bytes), binary or
// ASCII-armoured. Its name is "openpgp:" and the fingerprint of its primary key.
//
// The primary key and each subkey count that may sign and whose algorithm is Ed25519, ECDSA over a NIST curve, or RSA of
// 2,048 to 4,096 bits. What may sign and until when is what the newest valid self-signature says; one over SHA-1 or MD5 is not
// valid, and a signing subkey must have signed for its primary key. A certificate whose primary key is revoked is
// refused, a revoked subkey is left out, in both cases whatever the date of the revocation. Expiry is judged when
// verifying: see PublicKey.At.
//
// Verify accepts one binary version 4 signature packet of type 0x00 over SHA-256, SHA-384 or SHA-512, not armoured, at most
// MaxOpenPGPSignature bytes. At the time of judgement the certificate, the subkey and the signature must not have
// expired.
func ParseOpenPGP(armoredOrBinary []byte) (PublicKey, error) {
	if len(armoredOrBinary) > MaxCertificate {
		return PublicKey{}, &CertificateError{
			Err:  fmt.Errorf("%d bytes; at most %d are read", len(armoredOrBinary), MaxCertificate),
			hint: "export it without the signatures of others: gpg --armor --export-options export-minimal --export FINGERPRINT",
		}
	}
	raw, err := dearmor(armoredOrBinary)
	if err != nil {
		return PublicKey{}, &CertificateError{Err: err}
	}
	cert, err := readCertificate(raw)
	if err != nil {
		return PublicKey{}, &CertificateError{Err: err}
	}
	key, err := cert.publicKey()
	if err != nil {
		return PublicKey{}, &CertificateError{Fingerprint: fingerprint(cert.primary), Err: err}
	}
	return key, nil
}

func fingerprint(k *packet.PublicKey) string {
	return strings.ToUpper(hex.EncodeToString(k.Fingerprint))
}

// openPGPKey is a certificate ready to verify: immutable.
type openPGPKey struct {
	notAfter time.Time // of the primary key, and so of everything; zero: never
	signers  []openPGPSigner
}

// openPGPSigner is a primary key or subkey that may sign.
type openPGPSigner struct {
	key      *packet.PublicKey
	notAfter time.Time // zero: never
}

// publicKey judges all signatures in the certificate and keeps what may sign.
func (c *certificate) publicKey() (PublicKey, error) {
	if err := checkPGPKey(c.primary); err != nil {
		return PublicKey{}, fmt.Errorf("primary key: %w", err)
	}
	if err := c.checkRevocations(); err != nil {
		return PublicKey{}, err
	}
	self := c.selfSignature()
	if self == nil {
		return PublicKey{}, errors.New("no valid self-signature over SHA-256, SHA-384 or SHA-512")
	}
	k := &openPGPKey{notAfter: expiry(c.primary, self)}
	if self.FlagsValid && self.FlagSign {
		k.signers = append(k.signers, openPGPSigner{c.primary, k.notAfter})
	}
	for _, sub := range c.subkeys {
		if s, ok := c.signer(sub); ok {
			k.signers = append(k.signers, s)
		}
	}
	if len(k.signers) == 0 {
		return PublicKey{}, errors.New("neither its primary key nor a valid subkey may sign")
	}
	name := openPGPPrefix + fingerprint(c.primary)
	var body bytes.Buffer
	body.WriteString(openPGPPrefix)
	if err := c.primary.SerializeForHash(&body); err != nil {
		return PublicKey{}, err
	}
	public := &publicKey{algorithm: OpenPGP, name: name, id: digest.Of(body.Bytes()), verify: k.verify}
	for _, s := range k.signers {
		part, err := component(s.key)
		if err != nil {
			return PublicKey{}, err
		}
		public.parts = append(public.parts, part)
	}
	return PublicKey{key: public}, nil
}

// verify checks a detached signature at a time; zero means now.
func (k *openPGPKey) verify(message, sig []byte, at time.Time) error {
	if at.IsZero() {
		at = time.Now()
	}
	s, err := parsePGPSignature(sig)
	if err != nil {
		return err
	}
	if expired(k.notAfter, at) {
		return fmt.Errorf("the certificate expired on %s", k.notAfter.UTC().Format(time.RFC3339))
	}
	if s.CreationTime.After(at.Add(clockSkew)) {
		return fmt.Errorf("it claims to be made in the future, on %s", s.CreationTime.UTC().Format(time.RFC3339))
	}
	if s.SigLifetimeSecs != nil && *s.SigLifetimeSecs != 0 && expired(lifetime(s.CreationTime, *s.SigLifetimeSecs), at) {
		return errors.New("the signature has expired")
	}
	for _, signer := range k.signers {
		if s.CheckKeyIdOrFingerprint(signer.key) {
			return signer.verify(message, s, at)
		}
	}
	return errors.New("it was not made by a key of the certificate that may sign")
}

func (k openPGPSigner) verify(message []byte, s *packet.Signature, at time.Time) error {
	if expired(k.notAfter, at) {
		return fmt.Errorf("the subkey expired on %s", k.notAfter.UTC().Format(time.RFC3339))
	}
	if s.CreationTime.Before(k.key.CreationTime) {
		return errors.New("it claims to be older than its key")
	}
	h := s.Hash.New()
	h.Write(message)
	if k.key.VerifySignature(h, s) != nil {
		return errBadSignature
	}
	return nil
}

// parsePGPSignature reads exactly one signature packet that we would accept.
func parsePGPSignature(sig []byte) (*packet.Signature, error) {
	if len(sig) > MaxOpenPGPSignature {
		return nil, fmt.Errorf("%d bytes; an OpenPGP signature has at most %d", len(sig), MaxOpenPGPSignature)
	}
	// Tag 2, in the new or the old packet format (RFC 9580, section 4.2). Nothing else reaches the parser.
	if len(sig) == 0 || sig[0] != 0xc2 && sig[0]&^3 != 0x88 {
		return nil, errors.New("it is no binary OpenPGP signature packet")
	}
	r := bytes.NewReader(sig)
	p, err := packet.Read(r)
	if err != nil {
		return nil, errors.New("malformed or unsupported OpenPGP signature packet")
	}
	s, ok := p.(*packet.Signature)
	switch {
	case !ok || s.Version != 4:
		return nil, errors.New("it is no version 4 OpenPGP signature")
	case r.Len() != 0:
		return nil, errors.New("bytes after the OpenPGP signature")
	case s.SigType != packet.SigTypeBinary:
		return nil, fmt.Errorf("OpenPGP signature of type %#02x, not of a binary document", int(s.SigType))
	}
	return s, checkPGPSignature(s)
}

// checkPGPSignature refuses weak hashes and what the signer declared critical and we do not know.
func checkPGPSignature(s *packet.Signature) error {
	switch s.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return fmt.Errorf("OpenPGP signature over %s, which is too weak or unusual; SHA-256, SHA-384 and SHA-512 are accepted", s.Hash)
	}
	for _, n := range s.Notations {
		if n.IsCritical {
			return fmt.Errorf("OpenPGP signature with unknown critical notation %q", shorten(n.Name))
		}
	}
	return nil
}

func lifetime(from time.Time, seconds uint32) time.Time {
	return from.Add(time.Duration(seconds) * time.Second)
}

// expired reports whether t is not before limit; a zero limit never comes.
func expired(limit, t time.Time) bool { return !limit.IsZero() && !t.Before(limit) }

// expiry is when the self-signature lets key end; zero: never.
func expiry(key *packet.PublicKey, self *packet.Signature) time.Time {
	var end time.Time
	if s := self.KeyLifetimeSecs; s != nil && *s != 0 {
		end = lifetime(key.CreationTime, *s)
	}
	if s := self.SigLifetimeSecs; s != nil && *s != 0 {
		if t := lifetime(self.CreationTime, *s); end.IsZero() || t.Before(end) {
			end = t
		}
	}
	return end
}

// checkPGPKey refuses algorithms and sizes that we do not trust.
func checkPGPKey(k *packet.PublicKey) error {
	switch k.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		bits, err := k.BitLength()
		if err != nil || bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("RSA key of %d bits; %d to %d are accepted", bits, minRSABits, maxRSABits)
		}
		return nil
	case packet.PubKeyAlgoECDSA:
		switch curve, err := k.Curve(); {
		case err != nil:
			return err
		case curve != packet.CurveNistP256 && curve != packet.CurveNistP384 && curve != packet.CurveNistP521:
			return fmt.Errorf("ECDSA over curve %s; P-256, P-384 and P-521 are accepted", curve)
		}
		return nil
	case packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoEd25519:
		point, ok := edPoint(k)
		if !ok {
			return errors.New("EdDSA over another curve than edwards25519")
		}
		return checkEd25519(point)
	}
	return fmt.Errorf("public-key algorithm %d; Ed25519, ECDSA and RSA are accepted", k.PubKeyAlgo)
}

// edPoint returns the 32 bytes of an Ed25519 key, as which it is the same key in each of its OpenPGP forms.
func edPoint(k *packet.PublicKey) ([]byte, bool) {
	switch p := k.PublicKey.(type) {
	case *ed25519.PublicKey:
		return p.Point, len(p.Point) == ed25519Size
	case *eddsa.PublicKey:
		curve, err := k.Curve()
		return p.X, err == nil && curve == packet.Curve25519 && len(p.X) == ed25519Size
	}
	return nil, false
}

// component returns the hash of the bare key: that of the did:key's bytes if it has one, else that of the algorithm and its
// parameters, without the time that is part of the fingerprint.
func component(k *packet.PublicKey) (digest.SHA256, error) {
	if point, ok := edPoint(k); ok {
		return digest.Of(append(binary.AppendUvarint(nil, codecEd25519), point...)), nil
	}
	var body bytes.Buffer
	if err := k.SerializeForHash(&body); err != nil {
		return digest.SHA256{}, err
	}
	b := body.Bytes()
	if curve, err := k.Curve(); err == nil && curve == packet.CurveNistP256 && len(b) > 65 {
		point := b[len(b)-65:]
		return digest.Of(append(binary.AppendUvarint(nil, codecP256), compressP256(point)...)), nil
	}
	const head = 3 + 1 + 4 // prefix, version and time
	return digest.Of(append([]byte("openpgp-key:"), b[head:]...)), nil
}
