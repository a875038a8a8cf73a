package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"math/big"
	"time"

	"filippo.io/edwards25519"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

// Sizes of public keys as a did:key holds them, in bytes.
const (
	ed25519Size = ed25519.PublicKeySize
	p256Size    = 33 // SEC 1 compressed point
	mldsaSize   = mldsa65.PublicKeySize
)

// verifier checks signatures with one key.
type verifier interface {
	verify(message, sig []byte, at time.Time) error
}

type ed25519Key ed25519.PublicKey

func parseEd25519(key []byte) (verifier, error) {
	if err := checkEd25519(key); err != nil {
		return nil, err
	}
	return ed25519Key(append([]byte(nil), key...)), nil
}

// minusOne is the order of the prime-order group of edwards25519 less one, encoded as RFC 8032 does scalars.
var minusOne = [32]byte{
	0xec, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
}

// checkEd25519 refuses what crypto/ed25519 lets pass: an encoding that is not the canonical one of its point, a point of small
// order, for which signatures can be made without any secret, and a point outside the prime-order group.
func checkEd25519(key []byte) error {
	p, err := new(edwards25519.Point).SetBytes(key)
	if err != nil {
		return errors.New("it is not a point of edwards25519")
	}
	if string(p.Bytes()) != string(key) {
		return errors.New("its encoding is not canonical")
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return errors.New("it is a point of small order, for which anyone can sign")
	}
	s, err := edwards25519.NewScalar().SetCanonicalBytes(minusOne[:])
	if err != nil {
		return err
	}
	zero := edwards25519.NewScalar()
	q := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(s, p, zero)
	if q.Add(q, p).Equal(edwards25519.NewIdentityPoint()) != 1 {
		return errors.New("it is a point outside the prime-order group")
	}
	return nil
}

func (k ed25519Key) verify(message, sig []byte, _ time.Time) error {
	if len(sig) != ed25519.SignatureSize || !ed25519.Verify(ed25519.PublicKey(k), message, sig) {
		return errBadSignature
	}
	return nil
}

type p256Key struct{ *ecdsa.PublicKey }

func parseP256(key []byte) (verifier, error) {
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), key)
	if x == nil {
		return nil, errors.New("it is not a compressed point of P-256")
	}
	point := make([]byte, 65) // SEC 1 uncompressed
	point[0] = 4
	x.FillBytes(point[1:33])
	y.FillBytes(point[33:])
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, err
	}
	return p256Key{public}, nil
}

// compressP256 turns the uncompressed form of a point into the compressed one.
func compressP256(point []byte) []byte {
	return append([]byte{2 | point[64]&1}, point[1:33]...)
}

// verify takes 64 bytes for r and s, and everything else for ASN.1. Should 64 bytes not verify as the former, they
// may be an unusually short ASN.1 signature.
func (k p256Key) verify(message, sig []byte, _ time.Time) error {
	const maxASN1 = 72
	hash := sha256.Sum256(message)
	if len(sig) == 64 {
		r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
		if ecdsa.Verify(k.PublicKey, hash[:], r, s) {
			return nil
		}
	}
	if len(sig) > maxASN1 || !ecdsa.VerifyASN1(k.PublicKey, hash[:], sig) {
		return errBadSignature
	}
	return nil
}

// mldsaKey is held parsed: expanding the matrix costs twice what a verification does.
type mldsaKey struct{ *mldsa65.PublicKey }

func parseMLDSA65(key []byte) (verifier, error) {
	var k mldsa65.PublicKey
	if err := k.UnmarshalBinary(key); err != nil {
		return nil, errors.New("it is not an ML-DSA-65 key")
	}
	return mldsaKey{&k}, nil
}

func (k mldsaKey) verify(message, sig []byte, _ time.Time) error {
	if len(sig) != mldsa65.SignatureSize || !mldsa65.Verify(k.PublicKey, message, nil, sig) {
		return errBadSignature
	}
	return nil
}
