package digest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// Lengths of the spellings, in bytes, without the prefix "sha256:" or "sha256-".
const (
	hexLen   = 64
	nix32Len = 52
	sriLen   = 44
	cidLen   = 59 // with the multibase prefix
)

// A SyntaxError says why a text is no digest.
type SyntaxError struct {
	Text   string // the offending text
	Reason string // what is wrong with it
}

// Error quotes at most the first 100 bytes of the text, which may come from anywhere.
func (e *SyntaxError) Error() string {
	text, more := e.Text, ""
	if len(text) > 100 {
		text, more = text[:100], "…"
	}
	return fmt.Sprintf("parse digest %q%s: %s", text, more, e.Reason)
}

// Hint names the spellings that are accepted.
func (e *SyntaxError) Hint() string {
	return `write it as "sha256:" and 64 lower-case hexadecimal digits, or "sha256-" and base 64 with its padding`
}

// Parse reads a digest in any of the spellings this package writes, and 64 bare hexadecimal digits:
//
//	sha256:<64 lower-case hex>     OCI
//	sha256:<52 of Nix's base 32>   narinfo
//	sha256-<44 of base 64>         Subresource Integrity, padded
//	<64 lower-case hex>            sha256sum, in-toto
//	b<58 of base 32>               CIDv1, codec raw, sha2-256
//
// Only canonical spellings are accepted: no upper case, no spaces, no missing padding, no stray bits
// after the last byte. Errors are of type *SyntaxError.
func Parse(s string) (SHA256, error) {
	rest, colon := strings.CutPrefix(s, "sha256:")
	switch {
	case colon && len(rest) == nix32Len:
		return ParseNix32(s)
	case colon:
		return parseOCI(s)
	case strings.HasPrefix(s, "sha256-"):
		return ParseSRI(s)
	case len(s) == cidLen && s[0] == 'b':
		return ParseCID(s)
	case len(s) == hexLen:
		return ParseHex(s)
	}
	return SHA256{}, &SyntaxError{s, unknownForm(s)}
}

// unknownForm says what s looks like, for someone who mistook it for one of ours.
func unknownForm(s string) string {
	switch algorithm, _, ok := strings.Cut(s, ":"); {
	case s == "":
		return "it is empty"
	case strings.EqualFold(algorithm, "sha256") && ok:
		return `the algorithm must be written "sha256", in lower case`
	case ok:
		return fmt.Sprintf("algorithm %q is not used here, only sha256", cut(algorithm))
	case strings.HasPrefix(s, "sha1-"), strings.HasPrefix(s, "sha384-"), strings.HasPrefix(s, "sha512-"), strings.HasPrefix(s, "md5-"):
		algorithm, _, _ := strings.Cut(s, "-")
		return fmt.Sprintf("algorithm %q is not used here, only sha256", algorithm)
	case strings.HasPrefix(s, "Qm"):
		return "it looks like a CIDv0, which names a UnixFS node and not the bytes of a file"
	}
	return "it has none of the known forms"
}

// ParseHex reads 64 lower-case hexadecimal digits. Errors are of type *SyntaxError.
func ParseHex(s string) (SHA256, error) { return decodeHex(s, s) }

// parseOCI reads "sha256:" and 64 lower-case hexadecimal digits.
func parseOCI(s string) (SHA256, error) {
	digits, ok := strings.CutPrefix(s, "sha256:")
	if !ok {
		return SHA256{}, &SyntaxError{s, `it does not begin with "sha256:"`}
	}
	return decodeHex(s, digits)
}

func decodeHex(s, digits string) (SHA256, error) {
	if len(digits) != hexLen {
		return SHA256{}, &SyntaxError{s, fmt.Sprintf("it has %d characters where %d hexadecimal digits are due", len(digits), hexLen)}
	}
	raw, err := hex.DecodeString(digits)
	switch {
	case err != nil:
		return SHA256{}, &SyntaxError{s, "it holds something else than hexadecimal digits"}
	case hex.EncodeToString(raw) != digits:
		return SHA256{}, &SyntaxError{s, "hexadecimal digits must be in lower case"}
	}
	return nonZero(s, raw)
}

// ParseSRI reads "sha256-" and 44 characters of padded standard base 64. Errors are of type *SyntaxError.
func ParseSRI(s string) (SHA256, error) {
	text, ok := strings.CutPrefix(s, "sha256-")
	switch {
	case !ok:
		return SHA256{}, &SyntaxError{s, `it does not begin with "sha256-"`}
	case strings.Contains(text, " "):
		return SHA256{}, &SyntaxError{s, "it holds several digests where one is due"}
	case len(text) != sriLen:
		return SHA256{}, &SyntaxError{s, fmt.Sprintf("it has %d characters of base 64 where %d are due, padding counted", len(text), sriLen)}
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	// The decoder skips line breaks and ignores stray bits: only what encodes back is canonical.
	if err != nil || len(raw) != len(SHA256{}) || base64.StdEncoding.EncodeToString(raw) != text {
		return SHA256{}, &SyntaxError{s, "it is not the canonical base 64 of 32 bytes"}
	}
	return nonZero(s, raw)
}

// ParseNix32 reads "sha256:" and 52 characters of Nix's base 32. Errors are of type *SyntaxError.
func ParseNix32(s string) (SHA256, error) {
	text, ok := strings.CutPrefix(s, "sha256:")
	switch {
	case !ok:
		return SHA256{}, &SyntaxError{s, `it does not begin with "sha256:"`}
	case len(text) != nix32Len:
		return SHA256{}, &SyntaxError{s, fmt.Sprintf("it has %d characters of base 32 where %d are due", len(text), nix32Len)}
	}
	raw, err := nixbase32.DecodeString(text)
	if err != nil || len(raw) != len(SHA256{}) || nixbase32.EncodeToString(raw) != text {
		return SHA256{}, &SyntaxError{s, "it is not canonical Nix base 32 (digits and lower-case letters without e, o, t, u)"}
	}
	return nonZero(s, raw)
}

// ParseCID reads a CIDv1 of a raw block in lower-case base 32. Errors are of type *SyntaxError.
func ParseCID(s string) (SHA256, error) {
	if len(s) != cidLen || s[0] != 'b' {
		return SHA256{}, &SyntaxError{s, fmt.Sprintf(`it is no CIDv1 in base 32 of a sha2-256 hash: that is "b" and %d characters`, cidLen-1)}
	}
	raw, err := cidBase32.DecodeString(s[1:])
	if err != nil || cidBase32.EncodeToString(raw) != s[1:] {
		return SHA256{}, &SyntaxError{s, "it is not canonical base 32"}
	}
	sum, ok := strings.CutPrefix(string(raw), cidPrefix)
	if !ok || len(sum) != len(SHA256{}) {
		return SHA256{}, &SyntaxError{s, "only CIDs of raw blocks (codec 0x55) with sha2-256 pin the bytes of a file"}
	}
	return nonZero(s, []byte(sum))
}

// nonZero turns the 32 bytes of raw into a digest. It refuses the zero value: in an input, "no digest"
// must never pass for a pin.
func nonZero(s string, raw []byte) (SHA256, error) {
	d := SHA256(raw)
	if d.IsZero() {
		return SHA256{}, &SyntaxError{s, "the all-zero hash names nothing"}
	}
	return d, nil
}

func cut(s string) string { return s[:min(len(s), 32)] }
