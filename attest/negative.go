package attest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"arch.network/attest/digest"
)

// Negative is the predicate of a result that is not good: someone tried to rebuild a claim and did not get its bytes.
// The statement's subjects are those of the claim, so that whoever looks up the artifact finds it.
type Negative struct {
	State NegativeState `json:"state"`
	Cause string        `json:"cause"`     // one sentence for people, at most MaxCause bytes
	Claim digest.SHA256 `json:"claim"`     // id of the claim: sha256 of its DSSE PAE
	Tried string        `json:"triedOn"`   // RFC 3339, UTC
	By    Builder       `json:"builder"`   // in what it was tried
	Retry bool          `json:"retryable"` // whether another attempt may end otherwise
	// Found is, for Differs, every subject of the claim that came out otherwise, in the claim's order.
	Found []Mismatch `json:"mismatches,omitempty"`
	// Differences are the first of what a comparison found, at most MaxDifferences; Total counts all.
	Differences []Difference `json:"differences,omitempty"`
	Total       int          `json:"differencesTotal,omitempty"`
	Missing     []string     `json:"missing,omitempty"` // for InputsMissing: URIs of the dependencies that could not be had
}

// NewNegative makes the statement that trying claim ended as n says; n.Claim is set from claim. Texts and differences
// over the limits are cut; Total keeps the whole number.
func NewNegative(claim *Statement, n Negative) (*Statement, error) {
	id, err := claim.ID()
	if err != nil {
		return nil, fmt.Errorf("make negative result: %w", err)
	}
	n.Claim = id
	n.Cause = shorten(n.Cause, MaxCause)
	n.Total = max(n.Total, len(n.Differences))
	n.Differences = slices.Clone(n.Differences[:min(len(n.Differences), MaxDifferences)])
	for i := range n.Differences {
		d := &n.Differences[i]
		d.Path, d.Detail = shorten(d.Path, MaxText), shorten(d.Detail, MaxText)
	}
	return NewStatement(claim.Subject, &n)
}

// shorten cuts text to at most limit bytes, at a character, and makes it UTF-8.
func shorten(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	const mark = "…"
	cut := limit - len(mark)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + mark
}

// NegativeState classifies a negative result. Only FailedToBuild and InputsMissing may pass by themselves.
type NegativeState string

// The states of a negative result.
const (
	Differs       NegativeState = "differs"
	FailedToBuild NegativeState = "failed-to-build"
	InputsMissing NegativeState = "inputs-missing"
)

// Limits of a Negative.
const (
	MaxCause       = 4 << 10 // bytes
	MaxDifferences = 100
	MaxText        = 1 << 10 // bytes of a path or of a sentence in a Difference
)

// Mismatch is one output that came out otherwise.
type Mismatch struct {
	Name     string        `json:"name"` // name of the subject
	Expected digest.SHA256 `json:"expected"`
	Found    digest.SHA256 `json:"found"`
}

// Difference is one place where two outputs differ.
type Difference struct {
	Output string `json:"output"` // name of the output
	Path   string `json:"path"`   // within a tree, with the members of archives after it
	Offset int64  `json:"offset"` // bytes, of the first that differs; -1 if it is not in the content
	Cause  string `json:"cause"`  // class, such as "mtime" or "build-id"; see builder/diff
	Detail string `json:"detail"` // a sentence
}

// PredicateType returns NegativeType.
func (*Negative) PredicateType() string { return NegativeType }

// Validate checks the fields that each state needs.
func (n *Negative) Validate() error {
	switch n.State {
	case Differs:
		if len(n.Found) == 0 {
			return errors.New("negative result \"differs\" has no mismatches")
		}
	case InputsMissing:
		if len(n.Missing) == 0 {
			return errors.New("negative result \"inputs-missing\" names no input")
		}
	case FailedToBuild:
	default:
		return fmt.Errorf("negative result has the unknown state %q", n.State)
	}
	switch {
	case n.Claim.IsZero():
		return errors.New("negative result names no claim")
	case n.Cause == "" || len(n.Cause) > MaxCause:
		return fmt.Errorf("negative result needs a cause of 1 to %d bytes", MaxCause)
	case n.By.ID == "":
		return errors.New("negative result has no builder.id")
	case n.Tried == "":
		return errors.New("negative result has no triedOn")
	case len(n.Found) > MaxDescriptors || len(n.Missing) > MaxDescriptors:
		return fmt.Errorf("negative result lists over %d entries", MaxDescriptors)
	}
	if _, err := parseTime("triedOn", n.Tried); err != nil {
		return err
	}
	for _, m := range n.Found {
		if m.Name == "" || m.Expected == m.Found || m.Expected.IsZero() {
			return fmt.Errorf("mismatch %q: expected %s and found %s are no difference", m.Name, m.Expected, m.Found)
		}
	}
	return n.validateDifferences()
}

func (n *Negative) validateDifferences() error {
	if len(n.Differences) > MaxDifferences {
		return fmt.Errorf("negative result lists %d differences, over the limit of %d", len(n.Differences), MaxDifferences)
	}
	if n.Total < len(n.Differences) {
		return fmt.Errorf("differencesTotal %d is less than the %d listed", n.Total, len(n.Differences))
	}
	for i, d := range n.Differences {
		if len(d.Path) > MaxText || len(d.Detail) > MaxText || len(d.Cause) > MaxText || len(d.Output) > MaxText {
			return fmt.Errorf("differences[%d]: a text is over the limit of %d bytes", i, MaxText)
		}
		if d.Offset < -1 {
			return fmt.Errorf("differences[%d]: offset %d is negative", i, d.Offset)
		}
	}
	return nil
}
