package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
)

// Statement says something of its subjects (in-toto attestation spec/v1/statement.md).
type Statement struct {
	Type          string               `json:"_type"`
	Subject       []ResourceDescriptor `json:"subject"`
	PredicateType string               `json:"predicateType"`
	Predicate     json.RawMessage      `json:"predicate,omitempty"`
}

// Predicate is what a Statement can say: a Claim, Provenance, VSA, Negative, JobResult, JobRun or Decision.
type Predicate interface {
	PredicateType() string
	Validate() error
}

// NewStatement makes a statement that says p of subjects, and checks both.
func NewStatement(subjects []ResourceDescriptor, p Predicate) (*Statement, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("make statement: %w", err)
	}
	predicate, err := canonical.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("make statement: %w", err)
	}
	s := &Statement{Type: StatementType, Subject: subjects, PredicateType: p.PredicateType(), Predicate: predicate}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("make statement: %w", err)
	}
	return s, nil
}

// Encode returns the statement in canonical form (RFC 8785): the payload that is signed.
func (s *Statement) Encode() ([]byte, error) {
	data, err := s.encode()
	if err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	if len(data) > MaxStatement {
		return nil, fmt.Errorf("encode statement: %d bytes are over the limit of %d", len(data), MaxStatement)
	}
	return data, nil
}

// encode writes the members in their canonical order. The predicate, which is most of it, is in canonical form already if we have made it, and then
// it is looked through once and not taken apart again.
func (s *Statement) encode() ([]byte, error) {
	kind, err := canonical.Marshal(s.Type)
	if err != nil {
		return nil, err
	}
	predicateType, err := canonical.Marshal(s.PredicateType)
	if err != nil {
		return nil, err
	}
	subject, err := canonical.Marshal(s.Subject)
	if err != nil {
		return nil, err
	}
	out := append([]byte(`{"_type":`), kind...)
	if len(s.Predicate) > 0 {
		predicate, err := canonical.Transform(s.Predicate)
		if err != nil {
			return nil, err
		}
		out = slices.Grow(out, len(predicate)+len(predicateType)+len(subject)+64)
		out = append(append(out, `,"predicate":`...), predicate...)
	}
	out = append(append(out, `,"predicateType":`...), predicateType...)
	out = append(append(out, `,"subject":`...), subject...)
	return append(out, '}'), nil
}

// Sign returns a new envelope of the statement, signed by each of by.
func (s *Statement) Sign(ctx context.Context, by ...identity.Signer) (*dsse.Envelope, error) {
	data, err := s.Encode()
	if err != nil {
		return nil, err
	}
	return dsse.Sign(ctx, PayloadType, data, by...)
}

// ID returns the statement's id, the SHA-256 of the DSSE PAE of its canonical form. It is the ID of every envelope
// that holds the statement as Encode writes it, whoever signed it.
func (s *Statement) ID() (digest.SHA256, error) {
	data, err := s.Encode()
	if err != nil {
		return digest.SHA256{}, err
	}
	return digest.Of(dsse.PAE(PayloadType, data)), nil
}

// Validate checks the statement's own fields; the predicate is checked by Claim, Provenance, VSA and Negative.
func (s *Statement) Validate() error {
	switch {
	case s.Type != StatementType:
		return fmt.Errorf("statement has the _type %q, not %q", s.Type, StatementType)
	case s.PredicateType == "":
		return errors.New("statement has no predicateType")
	case len(s.Subject) == 0:
		return errors.New("statement has no subject")
	}
	for i, d := range s.Subject {
		if len(d.Digest) == 0 {
			return fmt.Errorf("subject[%d]: %q has no digest", i, d)
		}
	}
	return validateDescriptors("subject", s.Subject)
}

// ParseStatement reads a statement of any predicate type. As the specification asks, members it does not know are
// ignored; but names are compared exactly, and duplicate members, invalid UTF-8 and whatever else has no canonical
// form are errors. A statement of one of our own predicate types must be canonical and without unknown members.
func ParseStatement(payload []byte) (*Statement, error) {
	if len(payload) > MaxStatement {
		return nil, fmt.Errorf("read statement: %d bytes are over the limit of %d", len(payload), MaxStatement)
	}
	form, err := canonical.Transform(payload)
	if err != nil {
		return nil, fmt.Errorf("read statement: %w", err)
	}
	s := &Statement{}
	if err := decodeExact(form, s); err != nil {
		return nil, fmt.Errorf("read statement: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("read statement: %w", err)
	}
	if slices.Contains(ownTypes(), s.PredicateType) {
		if err := s.checkOwn(payload, form); err != nil {
			return nil, fmt.Errorf("read statement: %w", err)
		}
	}
	return s, nil
}

// ownTypes are the predicate types of ours, of which each statement has one form.
func ownTypes() []string {
	return []string{ClaimType, NegativeType, JobResultType, JobRunType, DecisionType}
}

// checkOwn holds a statement of ours to the one form it can have, but for its predicate, which own checks.
func (s *Statement) checkOwn(payload, form []byte) error {
	if !bytes.Equal(payload, form) {
		return fmt.Errorf("statement of type %s is not in canonical form", s.PredicateType)
	}
	const first = `{"_type":"` + StatementType + `",`
	head := *s
	head.Predicate = nil
	want, err := head.Encode()
	if err != nil {
		return err
	}
	parts := [][]byte{want}
	if s.Predicate != nil { // it is the member that follows _type
		parts = [][]byte{[]byte(first), []byte(`"predicate":`), s.Predicate, []byte(","), want[len(first):]}
	}
	rest, same := payload, true
	for _, part := range parts {
		if rest, same = bytes.CutPrefix(rest, part); !same {
			break
		}
	}
	if !same || len(rest) > 0 {
		return fmt.Errorf("statement of type %s has unknown or empty members", s.PredicateType)
	}
	return nil
}

// Claim returns the predicate of a build claim. Reading is strict: the predicate must be
// byte for byte the canonical form of what is read.
func (s *Statement) Claim() (*Claim, error) {
	c := &Claim{}
	if err := s.own(c); err != nil {
		return nil, err
	}
	return c, s.checkClaimSubjects()
}

// Negative returns the predicate of a negative result. Reading is strict: the predicate must be
// byte for byte the canonical form of what is read.
func (s *Statement) Negative() (*Negative, error) {
	n := &Negative{}
	return n, s.own(n)
}

// Provenance returns the predicate of a SLSA Provenance v1. Unknown members are ignored.
func (s *Statement) Provenance() (*Provenance, error) {
	p := &Provenance{}
	return p, s.foreign(p)
}

// VSA returns the predicate of a SLSA Verification Summary. Unknown members are ignored.
func (s *Statement) VSA() (*VSA, error) {
	v := &VSA{}
	return v, s.foreign(v)
}

// own reads a predicate of ours, which has one form only.
func (s *Statement) own(p Predicate) error {
	if err := s.expect(p); err != nil {
		return err
	}
	if err := decodeStrict(s.Predicate, p); err != nil {
		return fmt.Errorf("read predicate %s: %w", s.PredicateType, err)
	}
	return s.valid(p)
}

func (s *Statement) foreign(p Predicate) error {
	if err := s.expect(p); err != nil {
		return err
	}
	if err := decodeExact(s.Predicate, p); err != nil {
		return fmt.Errorf("read predicate %s: %w", s.PredicateType, err)
	}
	return s.valid(p)
}

func (s *Statement) expect(p Predicate) error {
	if s.PredicateType != p.PredicateType() {
		return fmt.Errorf("read predicate: it is of type %q, not %q", s.PredicateType, p.PredicateType())
	}
	return nil
}

func (s *Statement) valid(p Predicate) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("check predicate %s: %w", s.PredicateType, err)
	}
	return nil
}
