// Package digest names bytes by their SHA-256 hash, in each spelling the field uses:
// OCI ("sha256:<hex>"), Subresource Integrity ("sha256-<base64>"), Nix's base 32
// ("sha256:<nixbase32>") and IPFS CIDv1. It hashes; it never fetches and never decides.
//
// Its subpackage nar names trees.
package digest

import (
	"crypto/sha256"
	"encoding/hex"
)

// SHA256 is a SHA-256 hash. The zero value names nothing: IsZero tells.
type SHA256 [sha256.Size]byte

// Of returns the hash of b.
func Of(b []byte) SHA256 { return sha256.Sum256(b) }

// IsZero reports whether d is the zero value, which stands for "no digest".
func (d SHA256) IsZero() bool { return d == SHA256{} }

// Hex returns 64 lower-case hexadecimal digits, the form of in-toto's DigestSet.
func (d SHA256) Hex() string { return hex.EncodeToString(d[:]) }

// String returns the OCI form, "sha256:" followed by Hex.
func (d SHA256) String() string { return "sha256:" + d.Hex() }
