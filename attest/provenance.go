package attest

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Provenance is the predicate of SLSA Provenance v1 (slsa.dev/spec/v1.2/build-provenance): one builder's account.
type Provenance struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// BuildDefinition says what was asked for. For our builds it repeats the Claim, and Verify compares the two.
type BuildDefinition struct {
	BuildType          string          `json:"buildType"`
	ExternalParameters json.RawMessage `json:"externalParameters"`
	InternalParameters json.RawMessage `json:"internalParameters,omitempty"`
	// ResolvedDependencies is everything that went in. For our hermetic builder it is complete.
	ResolvedDependencies []ResourceDescriptor `json:"resolvedDependencies,omitempty"`
}

// RunDetails says what happened: everything that is not the same at every builder.
type RunDetails struct {
	Builder    Builder              `json:"builder"`
	Metadata   RunMetadata          `json:"metadata,omitzero"`
	Byproducts []ResourceDescriptor `json:"byproducts,omitempty"`
}

// Builder is what built.
type Builder struct {
	ID                  string               `json:"id"`
	Version             map[string]string    `json:"version,omitempty"` // such as "arch" to "v1.2.3"
	BuilderDependencies []ResourceDescriptor `json:"builderDependencies,omitempty"`
}

// RunMetadata are facts about one run. Times are RFC 3339, UTC.
type RunMetadata struct {
	InvocationID string `json:"invocationId,omitempty"`
	StartedOn    string `json:"startedOn,omitempty"`
	FinishedOn   string `json:"finishedOn,omitempty"`
}

// PredicateType returns ProvenanceType.
func (*Provenance) PredicateType() string { return ProvenanceType }

// Validate checks what SLSA Build L1 requires, and the form of everything that is there.
func (p *Provenance) Validate() error {
	def, run := p.BuildDefinition, p.RunDetails
	switch {
	case def.BuildType == "":
		return errors.New("provenance has no buildDefinition.buildType")
	case len(def.ExternalParameters) == 0 || string(def.ExternalParameters) == "null":
		return errors.New("provenance has no buildDefinition.externalParameters")
	case run.Builder.ID == "":
		return errors.New("provenance has no runDetails.builder.id")
	}
	for _, list := range []struct {
		name string
		of   []ResourceDescriptor
	}{
		{"resolvedDependencies", def.ResolvedDependencies},
		{"builderDependencies", run.Builder.BuilderDependencies},
		{"byproducts", run.Byproducts},
	} {
		if err := validateDescriptors(list.name, list.of); err != nil {
			return err
		}
	}
	return run.Metadata.validate()
}

func (m RunMetadata) validate() error {
	started, err := parseTime("startedOn", m.StartedOn)
	if err != nil {
		return err
	}
	finished, err := parseTime("finishedOn", m.FinishedOn)
	if err != nil {
		return err
	}
	if !started.IsZero() && !finished.IsZero() && finished.Before(started) {
		return fmt.Errorf("finishedOn %s is before startedOn %s", m.FinishedOn, m.StartedOn)
	}
	return nil
}

// parseTime reads an RFC 3339 time; the zero time if text is empty.
func parseTime(what, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %q is not an RFC 3339 time", what, text)
	}
	return t, nil
}

// Names of the byproducts our builder records.
const (
	// ByproductVariations is the record of the double build: a Variations as canonical JSON.
	ByproductVariations = "arch_variations"
	// ByproductConfinement is what the sandbox really enforced: a runner.Confinement as canonical JSON.
	ByproductConfinement = "arch_confinement"
	// ByproductLog is the build's log; only its digest is recorded.
	ByproductLog = "arch_log"

	MediaVariations  = "application/vnd.arch.network.variations.v1+json"
	MediaConfinement = "application/vnd.arch.network.confinement.v1+json"
	MediaLog         = "text/plain; charset=utf-8"
)

// Variations says what was varied between the two builds of `arch build --attest`, and whether the bits were equal.
type Variations struct {
	Builds  int      `json:"builds"`            // 2, or 1 when Once
	Once    bool     `json:"once,omitempty"`    // the second build was skipped on request
	Factors []string `json:"factors,omitempty"` // sorted: "cpus", "directory-order", "time", …
	Equal   bool     `json:"equal,omitempty"`   // every output was equal in both builds; never set when Once
}
