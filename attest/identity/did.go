package identity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"arch.network/attest/digest"
	"github.com/multiformats/go-multibase"
)

// Multicodecs of public keys (github.com/multiformats/multicodec, table.csv).
const (
	codecEd25519 = 0xed
	codecP256    = 0x1200
	codecMLDSA65 = 0x1211
)

const (
	didPrefix = "did:key:z" // z: base58btc

	// maxDID is the length of the longest name, that of an ML-DSA-65 key: 1,954 bytes in base 58 and the prefix.
	maxDID = 2678
)

// keyType is a kind of key that a did:key can hold.
type keyType struct {
	algorithm Algorithm
	codec     uint64
	size      int // bytes of the key
	parse     func(key []byte) (verifier, error)
}

// keyTypes are the kinds of key we know.
func keyTypes() []keyType {
	return []keyType{
		{Ed25519, codecEd25519, ed25519Size, parseEd25519},
		{ECDSAP256, codecP256, p256Size, parseP256},
		{MLDSA65, codecMLDSA65, mldsaSize, parseMLDSA65},
	}
}

// KeyError says why a name is no key that we accept.
type KeyError struct {
	Name string // as given, cut short
	Err  error
	hint string
}

func (e *KeyError) Error() string { return fmt.Sprintf("parse key %q: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// Hint returns the way out, or "".
func (e *KeyError) Hint() string { return e.hint }

// ParsePublicKey reads a did:key (W3C CCG did:key method, section 2) of an Ed25519, P-256 or ML-DSA-65 key. Of the two
// multibase forms only base58btc ("z") is accepted, so that each key has one name. The key must have exactly the length of
// its type, a minimal varint before it and nothing behind it; a point must be canonically encoded, and on the prime-order
// group: a key of small order would let anyone sign, and mixed orders would give several keys to one secret.
// OpenPGP keys need their certificate: see ParseOpenPGP.
func ParsePublicKey(did string) (PublicKey, error) {
	key, err := parseDID(did)
	if err == nil {
		return key, nil
	}
	e := &KeyError{Name: shorten(did), Err: err}
	switch {
	case strings.HasPrefix(did, "did:key:u"):
		e.hint = "write the key in base58btc, as did:key:z…"
	case strings.HasPrefix(did, openPGPPrefix):
		e.hint = "an OpenPGP key is read from its certificate: list it under certificates in the trust root"
	}
	return PublicKey{}, e
}

func parseDID(did string) (PublicKey, error) {
	if !strings.HasPrefix(did, didPrefix) {
		return PublicKey{}, fmt.Errorf("it does not begin with %q", didPrefix)
	}
	if len(did) > maxDID {
		return PublicKey{}, fmt.Errorf("%d characters; no key needs more than %d", len(did), maxDID)
	}
	_, raw, err := multibase.Decode(did[len(didPrefix)-1:])
	if err != nil {
		return PublicKey{}, errors.New("it is not base58btc")
	}
	codec, n := binary.Uvarint(raw)
	if n <= 0 || !bytes.Equal(binary.AppendUvarint(nil, codec), raw[:n]) {
		return PublicKey{}, errors.New("the varint of its multicodec is malformed or not minimal")
	}
	for _, t := range keyTypes() {
		if t.codec == codec {
			return t.publicKey(raw[n:])
		}
	}
	return PublicKey{}, fmt.Errorf("multicodec %#x is not a public key of Ed25519 (0xed), P-256 (0x1200) or ML-DSA-65 (0x1211)", codec)
}

// publicKey makes a PublicKey of the bare key.
func (t keyType) publicKey(key []byte) (PublicKey, error) {
	if len(key) != t.size {
		return PublicKey{}, fmt.Errorf("%d bytes of key; %s has %d", len(key), t.algorithm, t.size)
	}
	v, err := t.parse(key)
	if err != nil {
		return PublicKey{}, err
	}
	raw := append(binary.AppendUvarint(nil, t.codec), key...)
	name, err := multibase.Encode(multibase.Base58BTC, raw)
	if err != nil {
		return PublicKey{}, err
	}
	id := digest.Of(raw)
	return PublicKey{key: &publicKey{
		algorithm: t.algorithm,
		name:      strings.TrimSuffix(didPrefix, "z") + name,
		id:        id,
		parts:     []digest.SHA256{id},
		verify:    v.verify,
	}}, nil
}

// shorten cuts what a peer may have sent to something a line can hold.
func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most-16] + "…" + s[len(s)-8:]
}
