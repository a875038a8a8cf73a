// Package manifest holds every kind of signed document as Go types: Job, Build, Policy, TrustRoot, Playbook,
// Directive and Node. It reads strict YAML, writes canonical JSON, and validates.
//
// YAML is author syntax only: ReadYAML turns it into the same value that ReadJSON reads from the canonical form,
// refuses whatever two YAML readers could understand differently, and names line, column and cure. What is signed,
// sent and stored is the canonical form (RFC 8785) without signatures, in a DSSE envelope; a document's id is the
// SHA-256 of that envelope's pre-authentication encoding, so comments and layout may change without breaking it.
//
// The package promises that whatever it reads comes back unchanged from its canonical form, that reading takes time
// and memory linear in the size of the input, and that every document it returns is valid by its own Validate.
// It is data: it decides nothing, verifies no signature, fetches nothing and opens no file.
package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
)

// APIVersion is the only value of a document's apiVersion.
const APIVersion = "arch.network/v1"

// Limits of every document. They hold for YAML and for the canonical form alike.
const (
	MaxSize       = 64 << 10  // bytes
	MaxDepth      = 32        // mappings and lists inside each other
	MaxKeys       = 1024      // keys of one mapping, and items of one list
	MaxInteger    = 1<<53 - 1 // largest magnitude of an integer: RFC 7493 section 2.2
	MaxSignatures = 16        // signatures of one document
)

// Metadata is the head of every document.
type Metadata struct {
	// Name names the document for people: a DNS label, or several joined by dots.
	Name string `json:"name" schema:"pattern=name" example:"embed-wikipedia"`
	// Owner is who the document belongs to, as KIND:NAME.
	Owner string `json:"owner,omitempty" schema:"pattern=owner" example:"user:alice"`
	// Labels are free remarks, for selecting.
	Labels map[string]string `json:"labels,omitempty" schema:"keys=label"`
	// Created is when the document was written, RFC 3339 in UTC to the second.
	Created string `json:"created,omitempty" schema:"pattern=time" example:"2026-01-31T12:00:00Z"`
	// Expires is when the document stops to count, RFC 3339 in UTC to the second. Empty: never.
	Expires string `json:"expires,omitempty" schema:"pattern=time" example:"2027-01-31T12:00:00Z"`
}

// Signature is the in-document carrier of a DSSE signature over the document's canonical form.
type Signature struct {
	// By is the signer's identity, such as did:key:z6Mk… It becomes the keyid of the DSSE signature.
	By string `json:"by" schema:"pattern=identity"`
	// Alg is the signature's algorithm. It is only ever compared with what the identity says, never believed.
	Alg string `json:"alg" schema:"enum=ed25519|ecdsa-p256|ml-dsa-65|openpgp"`
	// Sig is the signature in base64.
	Sig string `json:"sig" schema:"pattern=base64"`
}

// Document is one signed document of any kind: a pointer to one of this package's types.
type Document interface {
	DocumentKind() string // "Job", "Build", …
	Head() *Metadata
	// Validate checks everything that needs no other document. Its error is a *SyntaxError or an ErrorList,
	// each with the path of a field; TrustRoot's is a text that begins with that path.
	Validate() error
}

// Raw is any JSON value: one whose schema another party gives.
type Raw = json.RawMessage

// Kinds lists the kinds of documents, sorted.
func Kinds() []string {
	return []string{"Build", "Directive", "Job", "Node", "Playbook", "Policy", "TrustRoot"}
}

// newDocument returns an empty document of the kind, or nil if there is no such kind.
func newDocument(kind string) Document {
	switch kind {
	case "Build":
		return new(Build)
	case "Directive":
		return new(Directive)
	case "Job":
		return new(Job)
	case "Node":
		return new(Node)
	case "Playbook":
		return new(Playbook)
	case "Policy":
		return new(Policy)
	case "TrustRoot":
		return new(TrustRoot)
	}
	return nil
}

// Canonical returns the bytes that are signed: the document without its signatures, as RFC 8785 JSON.
// It does not validate.
func Canonical(doc Document) ([]byte, error) {
	out, err := canonical.Marshal(unsigned(doc))
	if err != nil {
		return nil, fmt.Errorf("encode %s %q: %w", doc.DocumentKind(), doc.Head().Name, err)
	}
	if len(out) > MaxSize {
		return nil, &SyntaxError{
			Msg:  fmt.Sprintf("the canonical form of %s %q has %d bytes; at most %d are allowed", doc.DocumentKind(), doc.Head().Name, len(out), MaxSize),
			Cure: "move large values into files and refer to them by their pins",
		}
	}
	return out, nil
}

// ID returns the document's id: the SHA-256 of the DSSE pre-authentication encoding of its canonical form.
// Signatures, comments and layout have no part in it.
func ID(doc Document) (digest.SHA256, error) {
	payload, err := Canonical(doc)
	if err != nil {
		return digest.SHA256{}, err
	}
	return digest.Of(dsse.PAE(PayloadType(doc.DocumentKind()), payload)), nil
}

// unsigned returns a shallow copy of doc without spec.signature and signatures.
func unsigned(doc Document) Document {
	src := reflect.ValueOf(doc).Elem()
	dst := reflect.New(src.Type())
	dst.Elem().Set(src)
	for _, f := range signatureFields(dst.Elem()) {
		f.SetZero()
	}
	return dst.Interface().(Document)
}

// signatureFields returns the fields of a document that carry signatures: spec.signature if the kind has it, then
// signatures.
func signatureFields(doc reflect.Value) []reflect.Value {
	var out []reflect.Value
	if f := doc.FieldByName("Spec").FieldByName("Signature"); f.IsValid() {
		out = append(out, f)
	}
	return append(out, doc.FieldByName("Signatures"))
}
