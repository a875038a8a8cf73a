package attest

import (
	"encoding/json"

	"arch.network/attest/digest"
)

// Claim is the predicate that says: these inputs, built this way, give the statement's subjects. It holds nothing
// that is not the same at every honest builder.
type Claim struct {
	BuildType            string               `json:"buildType"`
	ExternalParameters   ClaimParameters      `json:"externalParameters"`
	ResolvedDependencies []ResourceDescriptor `json:"resolvedDependencies"` // sorted by URI, then name
	Normalizer           Normalizer           `json:"normalizer"`
}

// ClaimParameters is what was asked for.
type ClaimParameters struct {
	// Manifest is the Build document without its signatures, every path input replaced by its tree: reference.
	Manifest   json.RawMessage `json:"manifest"`
	ManifestID digest.SHA256   `json:"manifestId"` // document id of Manifest
}

// Normalizer names the code that brings outputs into their normal form, whose version is an input like any other.
type Normalizer struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Output is one finished output with the digests it is known by. A zero digest does not apply.
type Output struct {
	Name string
	File digest.SHA256 // sha256 of the file, for a single file
	NAR  digest.SHA256 // of the tree or file
	Tar  digest.SHA256 // of the tree's normalised tar
	OCI  digest.SHA256 // of the image manifest
}

// PredicateType returns ClaimType.
func (*Claim) PredicateType() string { return ClaimType }
