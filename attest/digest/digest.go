// Package digest names bytes by their SHA-256 hash, in each spelling the field uses:
// OCI ("sha256:<hex>"), Subresource Integrity ("sha256-<base64>"), Nix's base 32
// ("sha256:<nixbase32>") and IPFS CIDv1 of a raw block ("bafkrei…").
//
// It promises that each spelling is canonical: what Parse accepts, the matching method writes back
// byte for byte, so two texts of one form name the same bytes only if they are equal. The all-zero hash,
// which is the zero value and stands for "no digest", has no spelling but the empty text.
//
// It hashes; it never fetches and never decides. Its subpackage nar names trees.
package digest

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// SHA256 is a SHA-256 hash. The zero value names nothing: IsZero tells.
type SHA256 [sha256.Size]byte

// cidPrefix starts the binary form of every CID written here: version 1, codec raw (0x55),
// multihash sha2-256 (0x12) of 32 bytes (https://github.com/multiformats/cid).
const cidPrefix = "\x01\x55\x12\x20"

// cidBase32 is RFC 4648's base 32 in lower case without padding, multibase prefix "b".
var cidBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Of returns the hash of b.
func Of(b []byte) SHA256 { return sha256.Sum256(b) }

// IsZero reports whether d is the zero value, which stands for "no digest".
func (d SHA256) IsZero() bool { return d == SHA256{} }

// Hex returns 64 lower-case hexadecimal digits, the form of in-toto's DigestSet.
func (d SHA256) Hex() string { return hex.EncodeToString(d[:]) }

// String returns the OCI form, "sha256:" followed by Hex.
func (d SHA256) String() string { return "sha256:" + d.Hex() }

// SRI returns the Subresource Integrity form, "sha256-" followed by 44 characters of padded
// standard base 64 (https://www.w3.org/TR/SRI/), which Nix uses for narHash and vendorHash.
func (d SHA256) SRI() string { return "sha256-" + base64.StdEncoding.EncodeToString(d[:]) }

// Nix32 returns the form of a narinfo's NarHash, "sha256:" followed by 52 characters of Nix's base 32.
func (d SHA256) Nix32() string { return "sha256:" + nixbase32.EncodeToString(d[:]) }

// CID returns the IPFS name of a raw block with this hash: CIDv1, base 32, 59 characters.
// A file that IPFS split into several blocks has another CID.
func (d SHA256) CID() string {
	return "b" + cidBase32.EncodeToString(append([]byte(cidPrefix), d[:]...))
}

// MarshalText returns the OCI form, or nothing if d is zero.
func (d SHA256) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return []byte{}, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText accepts what MarshalText writes and nothing else: the OCI form, or empty text for zero.
func (d *SHA256) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = SHA256{}
		return nil
	}
	sum, err := parseOCI(string(text))
	if err != nil {
		return err
	}
	*d = sum
	return nil
}
