package attest

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"arch.network/attest/digest"
)

// ResourceDescriptor names a thing that a statement speaks of (in-toto attestation spec/v1/resource_descriptor.md).
// At least one of Name, URI and Digest is set.
type ResourceDescriptor struct {
	Name string `json:"name,omitempty"`
	URI  string `json:"uri,omitempty"`
	// Digest is the specification's DigestSet: algorithm to lower-case hexadecimal. "sha256" is the hash of the bytes;
	// with MediaType MediaNAR those of the NAR. "dirHash" is Go's h1, "gitCommit" a commit id.
	Digest           map[string]string `json:"digest,omitempty"`
	Content          []byte            `json:"content,omitempty"` // standard base64 in JSON; at most MaxContent bytes
	DownloadLocation string            `json:"downloadLocation,omitempty"`
	MediaType        string            `json:"mediaType,omitempty"`
	// Annotations are values of JSON. Nothing is decided by them.
	Annotations map[string]json.RawMessage `json:"annotations,omitempty"`
}

// SHA256 returns the sha256 entry of the digest set; false if there is none or it is no hash.
func (d ResourceDescriptor) SHA256() (digest.SHA256, bool) {
	var sum digest.SHA256
	text, ok := d.Digest["sha256"]
	if !ok || !lowerHex(text) || len(text) != hex.EncodedLen(len(sum)) {
		return digest.SHA256{}, false
	}
	_, err := hex.Decode(sum[:], []byte(text))
	return sum, err == nil
}

// String names the descriptor for people: its name, else its URI, else its digest.
func (d ResourceDescriptor) String() string {
	switch {
	case d.Name != "":
		return d.Name
	case d.URI != "":
		return d.URI
	}
	for _, alg := range slices.Sorted(maps.Keys(d.Digest)) {
		return alg + ":" + d.Digest[alg]
	}
	return ""
}

// digestLengths are the algorithms we know, with the number of hexadecimal digits each has
// (in-toto attestation spec/v1/digest_set.md).
var digestLengths = map[string][]int{
	"sha1": {40}, "sha224": {56}, "sha256": {64}, "sha384": {96}, "sha512": {128},
	"sha3_256": {64}, "sha3_512": {128},
	"gitCommit": {40, 64}, "gitTree": {40, 64}, "gitBlob": {40, 64}, "gitTag": {40, 64},
	"dirHash": {64},
}

// strong are the algorithms that pin content.
var strong = []string{"sha256", "sha384", "sha512", "sha3_256", "sha3_512", "dirHash"}

// Pinned reports whether the descriptor names exact bytes: it has a well-formed digest of a strong algorithm.
func (d ResourceDescriptor) Pinned() bool {
	for _, alg := range strong {
		if text, ok := d.Digest[alg]; ok && checkDigest(alg, text) == nil {
			return true
		}
	}
	return false
}

// Validate reports what is wrong with the descriptor. Digests of algorithms that are not known are allowed.
func (d ResourceDescriptor) Validate() error {
	if d.Name == "" && d.URI == "" && len(d.Digest) == 0 {
		return fmt.Errorf("descriptor has neither name, uri nor digest")
	}
	if len(d.Content) > MaxContent {
		return fmt.Errorf("descriptor %q: content of %d bytes is over the limit of %d", d, len(d.Content), MaxContent)
	}
	var wrong string // the first by name, so that the message does not depend on the map's order
	for alg, text := range d.Digest {
		if checkDigest(alg, text) != nil && (wrong == "" || alg < wrong) {
			wrong = alg
		}
	}
	if wrong != "" {
		return fmt.Errorf("descriptor %q: %w", d, checkDigest(wrong, d.Digest[wrong]))
	}
	return nil
}

func checkDigest(alg, text string) error {
	lengths, known := digestLengths[alg]
	if !known {
		return nil
	}
	if !lowerHex(text) || !slices.Contains(lengths, len(text)) {
		return fmt.Errorf("digest %s: %q is not %d lower-case hexadecimal digits", alg, text, lengths[0])
	}
	return nil
}

// hexDigits has a 1 at each lower-case hexadecimal digit. Digits are random: a branch for each would be mispredicted.
var hexDigits = func() (t [256]uint8) {
	for _, c := range []byte("0123456789abcdef") {
		t[c] = 1
	}
	return t
}()

func lowerHex(s string) bool {
	all := uint8(1)
	for i := range len(s) {
		all &= hexDigits[s[i]]
	}
	return all == 1 && s != ""
}

// compareDescriptors orders by URI, then name, then digest: the order of resolvedDependencies.
func compareDescriptors(a, b ResourceDescriptor) int {
	return cmp.Or(
		strings.Compare(a.URI, b.URI),
		strings.Compare(a.Name, b.Name),
		strings.Compare(a.Digest["sha256"], b.Digest["sha256"]),
		strings.Compare(a.MediaType, b.MediaType),
	)
}

// validateDescriptors checks a list and its length.
func validateDescriptors(what string, list []ResourceDescriptor) error {
	if len(list) > MaxDescriptors {
		return fmt.Errorf("%s: %d entries are over the limit of %d", what, len(list), MaxDescriptors)
	}
	for i, d := range list {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("%s[%d]: %w", what, i, err)
		}
	}
	return nil
}
