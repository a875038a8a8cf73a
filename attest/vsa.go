package attest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// VSA is the predicate of a SLSA Verification Summary (slsa.dev/spec/v1.2/verification_summary): what a verifier found.
type VSA struct {
	Verifier     Verifier           `json:"verifier"`
	TimeVerified string             `json:"timeVerified,omitempty"` // RFC 3339, UTC
	ResourceURI  string             `json:"resourceUri"`
	Policy       ResourceDescriptor `json:"policy"`
	// InputAttestations are all attestations that were used, each with its digest, or absent.
	InputAttestations  []ResourceDescriptor `json:"inputAttestations,omitempty"`
	VerificationResult string               `json:"verificationResult"` // Passed or Failed
	VerifiedLevels     []string             `json:"verifiedLevels"`
	// DependencyLevels counts dependencies by level. An empty map says that there are none, a nil one says nothing.
	DependencyLevels Levels `json:"dependencyLevels,omitzero"`
	SLSAVersion      string `json:"slsaVersion,omitempty"`
}

// Verifier is who verified.
type Verifier struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"`
}

// Values of VSA.VerificationResult.
const (
	Passed = "PASSED"
	Failed = "FAILED"
)

// Values of VSA.VerifiedLevels that we know how to defend. See Report.VSA.
const (
	LevelBuild0     = "SLSA_BUILD_LEVEL_0"
	LevelBuild1     = "SLSA_BUILD_LEVEL_1"
	LevelBuild2     = "SLSA_BUILD_LEVEL_2"
	LevelBuild3     = "SLSA_BUILD_LEVEL_3"
	LevelReproduced = "SLSA_BUILD_REPRODUCED" // slsa.dev/spec/v1.2/verified-properties
)

// Levels maps a level to a number of dependencies.
type Levels map[string]int

// UnmarshalJSON also accepts decimal strings, which protobuf's JSON mapping writes for 64-bit integers.
func (l *Levels) UnmarshalJSON(data []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return fmt.Errorf("read dependencyLevels: %w", err)
	}
	levels := make(Levels, len(raw))
	for level, value := range raw {
		n, err := strconv.ParseUint(strings.Trim(string(value), `"`), 10, 31)
		if err != nil {
			return fmt.Errorf("read dependencyLevels: %q: %q is not a count", level, value)
		}
		levels[level] = int(n)
	}
	*l = levels
	return nil
}

// PredicateType returns VSAType.
func (*VSA) PredicateType() string { return VSAType }

// Validate checks the fields that the specification requires.
func (v *VSA) Validate() error {
	switch {
	case v.Verifier.ID == "":
		return errors.New("verification summary has no verifier.id")
	case v.ResourceURI == "":
		return errors.New("verification summary has no resourceUri")
	case v.Policy.URI == "" && len(v.Policy.Digest) == 0:
		return errors.New("verification summary has no policy")
	case v.VerificationResult != Passed && v.VerificationResult != Failed:
		return fmt.Errorf("verificationResult %q is neither PASSED nor FAILED", v.VerificationResult)
	case v.VerifiedLevels == nil:
		return errors.New("verification summary has no verifiedLevels")
	}
	if _, err := parseTime("timeVerified", v.TimeVerified); err != nil {
		return err
	}
	for i, in := range v.InputAttestations {
		if !in.Pinned() {
			return fmt.Errorf("inputAttestations[%d]: %q has no digest", i, in)
		}
	}
	return validateDescriptors("inputAttestations", v.InputAttestations)
}
