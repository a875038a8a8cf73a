package attest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
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

// Run is what one builder has to tell about one build, beyond the claim.
type Run struct {
	Builder      Builder
	InvocationID string // such as a UUID; may be empty
	Started      time.Time
	Finished     time.Time
	Variations   Variations
	Confinement  json.RawMessage // a runner.Confinement as JSON
	Log          digest.SHA256   // of the build's log; zero: none was kept
	Byproducts   []ResourceDescriptor
}

// NewProvenance makes a builder's SLSA Provenance for a claim: it names the same subjects and repeats the claim's
// definition of the build, and adds what happened in this run.
func NewProvenance(claim *Statement, run Run) (*Statement, error) {
	c, err := claim.Claim()
	if err != nil {
		return nil, fmt.Errorf("make provenance: %w", err)
	}
	external, err := canonical.Marshal(c.ExternalParameters)
	if err != nil {
		return nil, fmt.Errorf("make provenance: %w", err)
	}
	internal, err := canonical.Marshal(internalParameters{c.Normalizer})
	if err != nil {
		return nil, fmt.Errorf("make provenance: %w", err)
	}
	byproducts, err := run.byproducts()
	if err != nil {
		return nil, fmt.Errorf("make provenance: %w", err)
	}
	return NewStatement(claim.Subject, &Provenance{
		BuildDefinition: BuildDefinition{
			BuildType:            c.BuildType,
			ExternalParameters:   external,
			InternalParameters:   internal,
			ResolvedDependencies: c.ResolvedDependencies,
		},
		RunDetails: RunDetails{
			Builder: run.Builder,
			Metadata: RunMetadata{
				InvocationID: run.InvocationID,
				StartedOn:    formatTime(run.Started),
				FinishedOn:   formatTime(run.Finished),
			},
			Byproducts: byproducts,
		},
	})
}

// internalParameters is BuildDefinition.InternalParameters of our build type.
type internalParameters struct {
	Normalizer Normalizer `json:"normalizer"`
}

// byproducts returns the records of the run, sorted by name.
func (run Run) byproducts() ([]ResourceDescriptor, error) {
	if err := run.Variations.validate(); err != nil {
		return nil, err
	}
	variations, err := record(ByproductVariations, MediaVariations, run.Variations)
	if err != nil {
		return nil, err
	}
	list := append(slices.Clone(run.Byproducts), variations)
	if len(run.Confinement) > 0 {
		confinement, err := record(ByproductConfinement, MediaConfinement, run.Confinement)
		if err != nil {
			return nil, err
		}
		list = append(list, confinement)
	}
	if !run.Log.IsZero() {
		list = append(list, ResourceDescriptor{
			Name: ByproductLog, MediaType: MediaLog, Digest: map[string]string{"sha256": run.Log.Hex()},
		})
	}
	slices.SortFunc(list, func(a, b ResourceDescriptor) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// record embeds a value as a byproduct: its canonical JSON and the hash of that.
func record(name, mediaType string, v any) (ResourceDescriptor, error) {
	content, err := canonical.Marshal(v)
	if err != nil {
		return ResourceDescriptor{}, fmt.Errorf("byproduct %s: %w", name, err)
	}
	return ResourceDescriptor{
		Name: name, MediaType: mediaType, Content: content,
		Digest: map[string]string{"sha256": digest.Of(content).Hex()},
	}, nil
}

// formatTime writes a time to the second, in UTC; the zero time as "".
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// Byproduct returns the embedded content of a record of ours, after checking its hash.
func (p *Provenance) Byproduct(name string) ([]byte, error) {
	var found []ResourceDescriptor
	for _, d := range p.RunDetails.Byproducts {
		if d.Name == name {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("provenance has no byproduct %s", name)
	case 1:
		if sum, ok := found[0].SHA256(); !ok || sum != digest.Of(found[0].Content) {
			return nil, fmt.Errorf("byproduct %s: its content does not have its digest", name)
		}
		return found[0].Content, nil
	}
	return nil, fmt.Errorf("provenance has %d byproducts %s, which may say different things", len(found), name)
}

// Variations returns the record of the double build.
func (p *Provenance) Variations() (Variations, error) {
	var v Variations
	content, err := p.Byproduct(ByproductVariations)
	if err != nil {
		return v, err
	}
	if err := canonical.Unmarshal(content, &v); err != nil {
		return v, fmt.Errorf("byproduct %s: %w", ByproductVariations, err)
	}
	return v, v.validate()
}

func (v Variations) validate() error {
	switch {
	case v.Once && (v.Builds != 1 || v.Equal || len(v.Factors) > 0):
		return errors.New("variations: a single build compares nothing")
	case !v.Once && v.Builds < 2:
		return fmt.Errorf("variations: %d builds and not marked as once", v.Builds)
	case !slices.IsSorted(v.Factors):
		return errors.New("variations: factors are not sorted")
	}
	return nil
}
