package attest

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"arch.network/attest/digest"
)

// Form is a way in which an artifact has a digest.
type Form string

// The forms, in the order in which a verifier tries them.
const (
	FormFile Form = "file" // sha256 of a regular file's bytes
	FormNAR  Form = "nar"  // of a tree, as NAR
	FormTar  Form = "tar"  // of a tree, as normalised tar
	FormOCI  Form = "oci"  // of the only manifest of an OCI image layout
)

// ErrNoForm says that an artifact has no digest of the form asked for, such as a directory as FormFile.
var ErrNoForm = errors.New("artifact does not have this form")

// Artifact is what is to be verified.
type Artifact struct {
	Name string // base name of the file or tree, for messages and for comparing with the subject's name
	// Hash computes the digest of one form; ErrNoForm if the artifact has none. It is called at most once a form, in
	// the order of the forms, until a digest is a subject of a trusted claim.
	Hash func(ctx context.Context, form Form) (digest.SHA256, error)
}

// hashed computes and remembers digests of an artifact.
type hashed struct {
	Artifact
	sums map[Form]digest.SHA256
}

func (h *hashed) sum(ctx context.Context, form Form) (digest.SHA256, bool, error) {
	if sum, ok := h.sums[form]; ok {
		return sum, !sum.IsZero(), nil
	}
	sum, err := h.Hash(ctx, form)
	if errors.Is(err, ErrNoForm) {
		sum, err = digest.SHA256{}, nil
	}
	if err != nil {
		return digest.SHA256{}, false, fmt.Errorf("hash artifact %s: %w", h.Name, err)
	}
	h.sums[form] = sum
	return sum, !sum.IsZero(), nil
}

// formOf says which form of an artifact a subject of a claim names.
func formOf(subject ResourceDescriptor) (Form, bool) {
	_, suffix, found := strings.Cut(subject.Name, "#")
	switch {
	case !found && subject.MediaType == MediaTar:
		return FormTar, true
	case !found:
		return FormFile, true
	case "#"+suffix == suffixNAR:
		return FormNAR, true
	case "#"+suffix == suffixTar:
		return FormTar, true
	case "#"+suffix == suffixOCI:
		return FormOCI, true
	case isProgram(suffix):
		return FormFile, true
	}
	return "", false
}

// names reports whether the artifact in form, with the digest sum, is what subject names. A regular file is also
// the subject of a tar.
func names(subject ResourceDescriptor, form Form, sum digest.SHA256) bool {
	have, ok := subject.SHA256()
	if !ok || have != sum {
		return false
	}
	of, known := formOf(subject)
	return known && (of == form || of == FormTar && form == FormFile)
}

// baseName returns the name of the output that a subject belongs to.
func baseName(subject ResourceDescriptor) string {
	base, _, _ := strings.Cut(subject.Name, "#")
	return base
}

// isProgram reports whether what follows the # in a subject's name is the path of a program in the tree, and no form of it.
func isProgram(suffix string) bool { return strings.Contains(suffix, "/") }

// thing returns the name of what a subject is a form of: the output, or NAME#PATH for a program in it.
func thing(subject ResourceDescriptor) string {
	if base, suffix, _ := strings.Cut(subject.Name, "#"); !isProgram(suffix) {
		return base
	}
	return subject.Name
}

// calledName returns the name of the file or tree that a subject is.
func calledName(subject ResourceDescriptor) string {
	return path.Base(strings.ReplaceAll(thing(subject), "#", "/"))
}

// match finds the first form of the artifact whose digest is a subject of one of the claims; ok is false if there is
// none.
func (h *hashed) match(ctx context.Context, claims []*trustedClaim) (form Form, sum digest.SHA256, ok bool, err error) {
	for _, form := range []Form{FormFile, FormNAR, FormTar, FormOCI} {
		if !anyNames(claims, func(s ResourceDescriptor) bool {
			of, known := formOf(s)
			return known && (of == form || of == FormTar && form == FormFile)
		}) {
			continue // no need to read the artifact for a form that nobody claims
		}
		sum, ok, err := h.sum(ctx, form)
		if err != nil {
			return "", digest.SHA256{}, false, err
		}
		if ok && anyNames(claims, func(s ResourceDescriptor) bool { return names(s, form, sum) }) {
			return form, sum, true, nil
		}
	}
	return "", digest.SHA256{}, false, nil
}

// first returns the first digest that was computed; zero if there is none.
func (h *hashed) first() digest.SHA256 {
	for _, form := range []Form{FormFile, FormNAR, FormTar, FormOCI} {
		if sum := h.sums[form]; !sum.IsZero() {
			return sum
		}
	}
	return digest.SHA256{}
}

// describe lists the digests that were computed.
func (h *hashed) describe() string {
	var parts []string
	for _, form := range []Form{FormFile, FormNAR, FormTar, FormOCI} {
		if sum := h.sums[form]; !sum.IsZero() {
			parts = append(parts, fmt.Sprintf("%s %s", form, sum))
		}
	}
	if len(parts) == 0 {
		return "it has none of the forms that are claimed"
	}
	return "it is " + strings.Join(parts, ", ")
}

func anyNames(claims []*trustedClaim, is func(ResourceDescriptor) bool) bool {
	for _, c := range claims {
		if slices.ContainsFunc(c.statement.Subject, is) {
			return true
		}
	}
	return false
}
