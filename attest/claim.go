package attest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
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

// CurrentNormalizer is the normaliser of this program. Its version counts up whenever the bytes of a normalised
// tree, tar or image change.
func CurrentNormalizer() Normalizer { return Normalizer{Name: "arch", Version: "1"} }

// Output is one finished output with the digests it is known by. A zero digest does not apply.
type Output struct {
	Name string
	File digest.SHA256 // sha256 of the file, for a single file
	NAR  digest.SHA256 // of the tree or file
	Tar  digest.SHA256 // of the tree's normalised tar
	OCI  digest.SHA256 // of the image manifest
	URI  string        // store path of a derivation's output; empty: it has none
	// Programs are regular files in a tree that are known by themselves, too: the sha256 of each by its path, such as "bin/hello".
	Programs map[string]digest.SHA256 `json:",omitempty"`
}

// Suffixes of the names of subjects: the same output in another form.
const (
	suffixNAR = "#nar"
	suffixTar = "#tar"
	suffixOCI = "#oci"
)

// Subjects returns the descriptors of the output: NAME is the file, or the normalised tar of a tree; NAME#nar,
// NAME#tar and NAME#oci are there for the digests that are set, and NAME#PATH for each program.
func (o Output) Subjects() []ResourceDescriptor {
	var list []ResourceDescriptor
	add := func(suffix, mediaType string, d digest.SHA256) {
		if !d.IsZero() {
			list = append(list, ResourceDescriptor{
				Name: o.Name + suffix, URI: o.URI, MediaType: mediaType, Digest: map[string]string{"sha256": d.Hex()},
			})
		}
	}
	if o.File.IsZero() {
		add("", MediaTar, o.Tar)
	} else {
		add("", MediaFile, o.File)
	}
	add(suffixNAR, MediaNAR, o.NAR)
	add(suffixOCI, MediaOCIManifest, o.OCI)
	add(suffixTar, MediaTar, o.Tar)
	for _, path := range slices.Sorted(maps.Keys(o.Programs)) {
		add("#"+path, MediaFile, o.Programs[path])
	}
	return list
}

// NewClaim makes the statement that doc, with deps as the complete list of what went in, gives outputs. The same
// arguments give the same bytes, in whatever order deps and outputs come. doc is not changed; its signatures do not
// enter the claim. Every input of doc must be pinned: a path input is an error.
func NewClaim(doc *manifest.Build, deps []ResourceDescriptor, outputs []Output) (*Statement, error) {
	parameters, err := claimParameters(doc)
	if err != nil {
		return nil, fmt.Errorf("make claim: %w", err)
	}
	deps, err = sortDependencies(deps)
	if err != nil {
		return nil, fmt.Errorf("make claim: %w", err)
	}
	var subjects []ResourceDescriptor
	for _, o := range outputs {
		subjects = append(subjects, o.Subjects()...)
	}
	slices.SortFunc(subjects, func(a, b ResourceDescriptor) int { return strings.Compare(a.Name, b.Name) })
	s, err := NewStatement(subjects, &Claim{
		BuildType:            buildTypeOf(doc),
		ExternalParameters:   parameters,
		ResolvedDependencies: deps,
		Normalizer:           CurrentNormalizer(),
	})
	if err != nil {
		return nil, err
	}
	if err := s.checkClaimSubjects(); err != nil {
		return nil, fmt.Errorf("make claim: %w", err)
	}
	return s, nil
}

// buildTypeOf returns the build type of what a document asks for.
func buildTypeOf(doc *manifest.Build) string {
	if d := doc.Spec.Derivation; d != nil {
		return DerivationType(d.Ref.Location)
	}
	return BuildType
}

// DerivationType returns the build type of a derivation by the store that its path is in.
func DerivationType(path string) string {
	if strings.HasPrefix(path, "/gnu/store/") {
		return BuildTypeGuix
	}
	return BuildTypeNix
}

func claimParameters(doc *manifest.Build) (ClaimParameters, error) {
	for _, in := range doc.Spec.Inputs {
		if in.Path != "" {
			return ClaimParameters{}, fmt.Errorf("input %q is the local path %q, which says nothing to others: it must be replaced by a tree: reference", in.Name, in.Path)
		}
	}
	form, err := manifest.Canonical(doc)
	if err != nil {
		return ClaimParameters{}, err
	}
	return ClaimParameters{Manifest: form, ManifestID: buildID(form)}, nil
}

// buildID returns the document id of a Build in canonical form.
func buildID(form []byte) digest.SHA256 {
	return digest.Of(dsse.PAE(manifest.PayloadType("Build"), form))
}

// sortDependencies returns deps sorted, equal ones once. Two that have URI, name and media type in common, but not
// the digest, are an error.
func sortDependencies(deps []ResourceDescriptor) ([]ResourceDescriptor, error) {
	sorted := slices.SortedFunc(slices.Values(deps), compareDescriptors)
	out := make([]ResourceDescriptor, 0, len(sorted))
	for i, d := range sorted {
		if !d.Pinned() {
			return nil, fmt.Errorf("dependency %q has no digest that pins it", d)
		}
		if i > 0 && sameThing(d, sorted[i-1]) {
			if !sameDescriptor(d, sorted[i-1]) {
				return nil, fmt.Errorf("dependency %q is listed twice, with different digests", d)
			}
			continue
		}
		out = append(out, d)
	}
	return out, nil
}

func sameThing(a, b ResourceDescriptor) bool {
	return a.URI == b.URI && a.Name == b.Name && a.MediaType == b.MediaType
}

func sameDescriptor(a, b ResourceDescriptor) bool {
	return string(encodeList([]ResourceDescriptor{a})) == string(encodeList([]ResourceDescriptor{b}))
}

// encodeList returns the canonical form of a list, by which lists are compared; nil if it has none.
func encodeList(list []ResourceDescriptor) []byte {
	data, err := canonical.Marshal(list)
	if err != nil {
		return nil
	}
	return data
}

// PredicateType returns ClaimType.
func (*Claim) PredicateType() string { return ClaimType }

// Validate checks the claim itself: that the manifest has the id it is said to have, and that every dependency is
// pinned and in order. What the subjects must look like is checked by Statement.Claim.
func (c *Claim) Validate() error {
	switch {
	case c.BuildType == "":
		return errors.New("claim has no buildType")
	case c.ExternalParameters.ManifestID != buildID(c.ExternalParameters.Manifest):
		return fmt.Errorf("claim's manifest has the id %s, not %s", buildID(c.ExternalParameters.Manifest), c.ExternalParameters.ManifestID)
	case c.Normalizer.Name == "" || c.Normalizer.Version == "":
		return errors.New("claim has no normalizer")
	case c.ResolvedDependencies == nil:
		return errors.New("claim has no resolvedDependencies")
	}
	for i, d := range c.ResolvedDependencies {
		if !d.Pinned() {
			return fmt.Errorf("resolvedDependencies[%d]: %q has no digest that pins it", i, d)
		}
		if i > 0 && compareDescriptors(c.ResolvedDependencies[i-1], d) >= 0 {
			return fmt.Errorf("resolvedDependencies[%d]: %q is out of order or listed twice", i, d)
		}
	}
	return validateDescriptors("resolvedDependencies", c.ResolvedDependencies)
}

// Document returns the claim's manifest as a Build. Reading is strict: see manifest.ReadJSON.
func (c *Claim) Document() (*manifest.Build, error) {
	doc, err := manifest.ReadJSON(c.ExternalParameters.Manifest)
	if err != nil {
		return nil, fmt.Errorf("read manifest of claim: %w", err)
	}
	build, ok := doc.(*manifest.Build)
	if !ok {
		return nil, fmt.Errorf("read manifest of claim: it is a %s, not a Build", doc.DocumentKind())
	}
	return build, nil
}

// checkClaimSubjects checks that names are unique and in order, and that each subject is known by its sha256 alone,
// so that whatever digest a verifier compares, it is the same thing.
func (s *Statement) checkClaimSubjects() error {
	for i, d := range s.Subject {
		if _, ok := d.SHA256(); !ok || len(d.Digest) != 1 {
			return fmt.Errorf("subject %q: a claim's subject has one digest, sha256", d)
		}
		if _, err := storepath.Parse(d.URI); d.URI != "" && err != nil {
			return fmt.Errorf("subject %q: %w", d, err)
		}
		if d.Name == "" || (i > 0 && s.Subject[i-1].Name >= d.Name) {
			return fmt.Errorf("subject %q: unnamed, out of order or named twice", d)
		}
		base, form, _ := strings.Cut(d.Name, "#")
		if base == "" || strings.Contains(form, "#") || isProgram(form) && !fs.ValidPath(form) {
			return fmt.Errorf("subject %q: the name is not NAME, NAME#nar, NAME#tar, NAME#oci or NAME#DIRECTORY/PROGRAM", d)
		}
	}
	return nil
}
