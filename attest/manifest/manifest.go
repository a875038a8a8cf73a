// Package manifest holds every kind of signed document as Go types: Job, Build, Policy, TrustRoot, Playbook,
// Directive and Node. It reads strict YAML, writes canonical JSON, and validates. It is data: it decides nothing,
// verifies no signature and fetches nothing.
package manifest

import "encoding/json"

// APIVersion is the only value of a document's apiVersion.
const APIVersion = "arch.network/v1"

// Metadata is the head of every document.
type Metadata struct {
	Name    string            `json:"name"`            // DNS label or several joined by dots
	Owner   string            `json:"owner,omitempty"` // such as "user:alice"
	Labels  map[string]string `json:"labels,omitempty"`
	Created string            `json:"created,omitempty"` // RFC 3339, UTC
	Expires string            `json:"expires,omitempty"` // RFC 3339, UTC; empty: never
}

// Signature is the in-document carrier of a DSSE signature over the document's canonical form.
type Signature struct {
	By  string `json:"by"`  // identity, such as did:key:z6Mk…
	Alg string `json:"alg"` // only ever compared with what the identity says
	Sig string `json:"sig"` // base64
}

// Document is one signed document of any kind.
type Document interface {
	DocumentKind() string // "Job", "Build", …
	Head() *Metadata
	Validate() error
}

// Raw keeps a value whose schema later work gives.
type Raw = json.RawMessage
