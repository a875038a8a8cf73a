package binarycache

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

// maxKeyName bounds the name of a key, in bytes; real ones are like "cache.nixos.org-1".
const maxKeyName = 255

// PublicKey is a key of a binary cache of Nix, as in trusted-public-keys of nix.conf(5): NAME:BASE64 of 32 bytes. It signs with Ed25519.
type PublicKey struct {
	Name string
	Key  ed25519.PublicKey
}

// ParsePublicKey reads NAME:BASE64.
func ParsePublicKey(text string) (PublicKey, error) {
	name, raw, err := parseNamed(text)
	if err == nil && len(raw) != ed25519.PublicKeySize {
		err = fmt.Errorf("it has %d bytes, not %d", len(raw), ed25519.PublicKeySize)
	}
	if err != nil {
		return PublicKey{}, fmt.Errorf("read cache key %.100q: %w", text, err)
	}
	return PublicKey{name, raw}, nil
}

// String returns NAME:BASE64.
func (k PublicKey) String() string { return formatNamed(k.Name, k.Key) }

// Verify reports whether s is the signature of k over a fingerprint. Names are compared, as Nix does.
func (k PublicKey) Verify(fingerprint string, s Signature) bool {
	return s.Name == k.Name && len(k.Key) == ed25519.PublicKeySize && ed25519.Verify(k.Key, []byte(fingerprint), s.Value)
}

// SecretKey is the other half, as `nix-store --generate-binary-cache-key` writes it: NAME:BASE64 of 64 bytes.
type SecretKey struct {
	name string
	key  ed25519.PrivateKey
}

// ParseSecretKey reads NAME:BASE64; white space around it is ignored. The errors hold nothing of the key.
func ParseSecretKey(text string) (SecretKey, error) {
	name, raw, err := parseNamed(strings.TrimSpace(text))
	if err != nil || len(raw) != ed25519.PrivateKeySize {
		return SecretKey{}, fmt.Errorf("read secret key: it is not NAME:BASE64 of %d bytes", ed25519.PrivateKeySize)
	}
	key := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if !key.Equal(ed25519.PrivateKey(raw)) {
		return SecretKey{}, fmt.Errorf("read secret key %q: its public half belongs to another key", name)
	}
	return SecretKey{name, key}, nil
}

// GenerateKey makes a key from 32 bytes of random.
func GenerateKey(name string, random io.Reader) (SecretKey, error) {
	if !validKeyName(name) {
		return SecretKey{}, fmt.Errorf("make cache key: %.100q is no name of a key", name)
	}
	var seed [ed25519.SeedSize]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return SecretKey{}, fmt.Errorf("make cache key: read randomness: %w", err)
	}
	return SecretKey{name, ed25519.NewKeyFromSeed(seed[:])}, nil
}

// Public returns the public half.
func (k SecretKey) Public() PublicKey {
	return PublicKey{k.name, k.key.Public().(ed25519.PublicKey)}
}

// Sign signs a fingerprint.
func (k SecretKey) Sign(fingerprint string) Signature {
	return Signature{k.name, ed25519.Sign(k.key, []byte(fingerprint))}
}

// Reveal returns the secret, NAME:BASE64, for the file that keeps it.
func (k SecretKey) Reveal() string { return formatNamed(k.name, k.key) }

// Format names the key, whatever the verb, and never shows it.
func (k SecretKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "secret key %q", k.name) }

// Signature is NAME:BASE64, the value of a field Sig. Its length is that of the algorithm, 64 bytes for Ed25519; others are kept, for
// readers that know more.
type Signature struct {
	Name  string
	Value []byte
}

// maxSignature bounds the bytes of a signature: those of SLH-DSA have up to 49,856.
const maxSignature = 50 << 10

// ParseSignature reads NAME:BASE64.
func ParseSignature(text string) (Signature, error) {
	name, raw, err := parseNamed(text)
	if err != nil {
		return Signature{}, fmt.Errorf("read signature %.150q: %w", text, err)
	}
	return Signature{name, raw}, nil
}

// String returns NAME:BASE64.
func (s Signature) String() string { return formatNamed(s.Name, s.Value) }

func formatNamed(name string, value []byte) string {
	return name + ":" + base64.StdEncoding.EncodeToString(value)
}

func parseNamed(text string) (name string, raw []byte, err error) {
	name, value, ok := strings.Cut(text, ":")
	if !ok || !validKeyName(name) {
		return "", nil, fmt.Errorf("it is not NAME:BASE64")
	}
	if len(value) > base64.StdEncoding.EncodedLen(maxSignature) {
		return "", nil, fmt.Errorf("it is over the limit of %d bytes", maxSignature)
	}
	raw, err = base64.StdEncoding.DecodeString(value)
	// The decoder skips line breaks and ignores stray bits: only what encodes back is canonical.
	if err != nil || len(raw) == 0 || base64.StdEncoding.EncodeToString(raw) != value {
		return "", nil, fmt.Errorf("it is not NAME:BASE64")
	}
	return name, raw, nil
}

func validKeyName(name string) bool {
	return name != "" && len(name) <= maxKeyName && strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) < 0
}
