package ledger

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/identity"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// The signature types that are accepted (C2SP signed-note, Signature types).
const (
	typeEd25519     = 0x01 // of a log
	typeCosignature = 0x04 // Ed25519 with a time, of a witness
	typeMLDSA44     = 0x06 // with a time, of a witness or a log
)

// key is a verifier key: NAME+HASH+BASE64 of a type and a public key.
type key struct {
	verifier note.Verifier
	kind     byte
	public   digest.SHA256 // of the public key: two names for it are one key
}

// parseLogKey reads the key of a log: Ed25519 or ML-DSA-44.
func parseLogKey(text string) (key, error) { return parseKey(text, false) }

// parseWitnessKey reads the key of a witness: Ed25519, as type 0x04 or 0x01, or ML-DSA-44.
func parseWitnessKey(text string) (key, error) { return parseKey(text, true) }

func parseKey(text string, witness bool) (key, error) {
	kind, public, err := splitKey(text)
	if err != nil {
		return key{}, fmt.Errorf("read key %q: %w", shorten(text), err)
	}
	k := key{kind: kind, public: digest.Of(public)}
	switch {
	case kind == typeMLDSA44, witness && (kind == typeEd25519 || kind == typeCosignature):
		k.verifier, err = fnote.NewVerifierForCosignatureV1(text)
	case !witness && kind == typeEd25519:
		k.verifier, err = note.NewVerifier(text)
	default:
		err = fmt.Errorf("signature type %#02x is not accepted here", kind)
	}
	if err == nil && kind != typeMLDSA44 {
		_, err = identity.NewPublicKey(identity.Ed25519, public) // refuses what the libraries let pass, such as points of small order
	}
	if err != nil {
		return key{}, fmt.Errorf("read key %q: %w", shorten(text), err)
	}
	return k, nil
}

// splitKey returns the type and the public key of a verifier key.
func splitKey(text string) (byte, []byte, error) {
	name, rest, ok := strings.Cut(text, "+")
	hash, encoded, ok2 := strings.Cut(rest, "+")
	if !ok || !ok2 || len(hash) != 8 {
		return 0, nil, errors.New("it is not NAME+HASH+KEY")
	}
	if name == "" || len(name) > MaxOrigin {
		return 0, nil, fmt.Errorf("its name has %d bytes, not 1 to %d", len(name), MaxOrigin)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(data) < 2 {
		return 0, nil, errors.New("its key is not base64")
	}
	return data[0], data[1:], nil
}
