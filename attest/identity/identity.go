// Package identity names those who sign, and signs and verifies for them.
//
// A public key is named by a did:key (Ed25519, P-256, ML-DSA-65) or by an OpenPGP fingerprint. The name says the
// algorithm; nothing else ever does, so a message cannot choose how it is verified. There is one accepted spelling of each
// key: two names differ if and only if the keys do.
//
// A private key is read from a file (plain or age-encrypted), from a systemd credential, or stays with an external
// command. This package never prints one, never puts one in an error, and never overwrites a key file. It promises
// nothing about who a key belongs to or what it may sign: that is quorum's matter.
package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"arch.network/attest/digest"
)

// Algorithm is how a key signs. It is a property of the key, never of a message.
type Algorithm string

// The algorithms.
const (
	Ed25519   Algorithm = "ed25519"    // RFC 8032, pure
	ECDSAP256 Algorithm = "ecdsa-p256" // FIPS 186-5 with SHA-256
	MLDSA65   Algorithm = "ml-dsa-65"  // FIPS 204, pure, empty context
	OpenPGP   Algorithm = "openpgp"    // detached binary signatures of an RFC 4880 or RFC 9580 version 4 certificate
)

// PublicKey is a key that verifies. Its zero value is no key and verifies nothing.
// It is immutable and safe for concurrent use; compare with Equal, or by ID.
type PublicKey struct {
	_   [0]func() // not comparable with ==
	key *publicKey
	at  time.Time // of judgement, for OpenPGP; zero: now
}

// publicKey is what the copies of a PublicKey share.
type publicKey struct {
	algorithm Algorithm
	name      string        // did:key:z… or openpgp:FINGERPRINT
	id        digest.SHA256 // see PublicKey.ID
	parts     []digest.SHA256
	verify    func(message, sig []byte, at time.Time) error
}

// errBadSignature is what a signature that does not verify gives, for whatever cause: there is nothing to learn from it.
var errBadSignature = errors.New("signature does not verify")

// ID returns the SHA-256 of the key's canonical bytes. For a did:key these are its decoded bytes: the multicodec as varint
// and the key. For OpenPGP they are "openpgp:" and the bytes over which the fingerprint of the primary key is computed (RFC 9580, section
// 5.5.4.2), so that, unlike the fingerprint, the ID does not rest on SHA-1. The ID of the zero PublicKey is zero.
func (k PublicKey) ID() digest.SHA256 {
	if k.key == nil {
		return digest.SHA256{}
	}
	return k.key.id
}

// Equal reports whether both are the same key.
func (k PublicKey) Equal(o PublicKey) bool { return k.ID() == o.ID() }

// IsZero reports whether k is no key.
func (k PublicKey) IsZero() bool { return k.key == nil }

// String returns the name, "did:key:z…" or "openpgp:" and 40 upper-case hexadecimal digits; "" for the zero PublicKey.
// The name of an ML-DSA-65 key has 2,678 characters: use Short for people.
func (k PublicKey) String() string {
	if k.key == nil {
		return ""
	}
	return k.key.name
}

// Short returns the name, cut in the middle if it is longer than 64 characters. It is for people, and identifies nothing.
func (k PublicKey) Short() string {
	name := k.String()
	if len(name) <= 64 {
		return name
	}
	return name[:24] + "…" + name[len(name)-8:]
}

// Algorithm returns how the key signs; "" for the zero PublicKey.
func (k PublicKey) Algorithm() Algorithm {
	if k.key == nil {
		return ""
	}
	return k.key.algorithm
}

// Components returns a hash of each bare key that can sign for k: one for a did:key, and one each for the primary key and
// the subkeys of an OpenPGP certificate that may sign. A bare key has the same hash wherever it occurs, so two names that
// share a component are the same signer twice.
func (k PublicKey) Components() []digest.SHA256 {
	if k.key == nil {
		return nil
	}
	return append([]digest.SHA256(nil), k.key.parts...)
}

// At returns the same key, which judges at time t whether an OpenPGP certificate has expired. Without it, Verify asks the
// clock. It changes nothing for other keys.
func (k PublicKey) At(t time.Time) PublicKey {
	k.at = t
	return k
}

// Verify returns nil if sig is k's signature of message. The forms of sig are: 64 bytes for Ed25519; 64 bytes (r and s, big
// endian) or ASN.1 DER for P-256; 3,309 bytes for ML-DSA-65; one binary version 4 signature packet for OpenPGP.
func (k PublicKey) Verify(message, sig []byte) error {
	if k.key == nil {
		return errors.New("verify signature: no key")
	}
	if err := k.key.verify(message, sig, k.at); err != nil {
		return fmt.Errorf("verify signature by %s: %w", k.Short(), err)
	}
	return nil
}

// LogValue makes logs show the short name.
func (k PublicKey) LogValue() slog.Value { return slog.StringValue(k.Short()) }
