package challenge

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/binarycache"
)

// SummaryOptions say what a summary is made with.
type SummaryOptions struct {
	Verifier attest.Verifier
	Quorum   int           // how many operators had to vouch
	Keys     digest.SHA256 // of the list of keys; zero: there was none
	At       time.Time
}

// ErrNothing says that there is nothing to say of a path: its outcome is Unknown.
var ErrNothing = errors.New("nothing was found out")

// Summary returns the statement of a result: a SLSA verification summary, whose subjects are the path with every NAR hash that was found. Its one level is
// ARCH_OPERATORS_N, how many operators vouch, or FAILED if it differs: it says nothing about how the path was built. Its inputs are the narinfos.
func Summary(r Result, o SummaryOptions) (*attest.Statement, error) {
	v := &attest.VSA{
		Verifier: o.Verifier, TimeVerified: attest.FormatTime(o.At), ResourceURI: ResourceURI(r.Path),
		Policy:      attest.ResourceDescriptor{URI: fmt.Sprintf("https://arch.network/policies/challenge/v1?operators=%d", o.Quorum)},
		SLSAVersion: attest.SLSAVersion,
	}
	if !o.Keys.IsZero() {
		v.Policy.Digest = map[string]string{"sha256": o.Keys.Hex()}
	}
	switch r.Outcome {
	case Agree:
		v.VerificationResult, v.VerifiedLevels = attest.Passed, []string{fmt.Sprintf("ARCH_OPERATORS_%d", len(r.Operators))}
	case Differ:
		v.VerificationResult, v.VerifiedLevels = attest.Failed, []string{attest.Failed}
	default:
		return nil, ErrNothing
	}
	var subjects []attest.ResourceDescriptor
	found := map[digest.SHA256]bool{}
	for _, vote := range r.Votes {
		if vote.State != Has {
			continue
		}
		if !found[vote.Answer.NAR] {
			found[vote.Answer.NAR] = true
			subjects = append(subjects, binarycache.Subject(r.Path, vote.Answer.NAR))
		}
		if vote.Answer.Document != nil {
			v.InputAttestations = append(v.InputAttestations, attest.ResourceDescriptor{
				URI: vote.Answer.Source, Digest: map[string]string{"sha256": digest.Of(vote.Answer.Document).Hex()},
			})
		}
	}
	if len(subjects) == 0 { // a cache is broken, and nobody has what it says
		return nil, ErrNothing
	}
	return attest.NewStatement(subjects, v)
}

// ResourceURI names a store path: nix:/nix/store/…, or guix:/gnu/store/….
func ResourceURI(p storepath.Path) string {
	if strings.HasPrefix(p.Dir, "/gnu/") {
		return "guix:" + p.String()
	}
	return "nix:" + p.String()
}
