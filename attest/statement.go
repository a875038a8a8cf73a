package attest

import "encoding/json"

// Statement says something of its subjects (in-toto attestation spec/v1/statement.md).
type Statement struct {
	Type          string               `json:"_type"`
	Subject       []ResourceDescriptor `json:"subject"`
	PredicateType string               `json:"predicateType"`
	Predicate     json.RawMessage      `json:"predicate,omitempty"`
}

// Predicate is what a Statement can say: a Claim, Provenance, VSA or Negative.
type Predicate interface {
	PredicateType() string
	Validate() error
}
