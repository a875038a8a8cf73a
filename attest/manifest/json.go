package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"arch.network/attest/canonical"
)

// ReadJSON reads a document from its canonical form, the payload of its envelope. It accepts no other bytes: not another
// order or spacing, no unknown or empty members, no signatures. It refuses what Validate refuses.
//
// Whoever got the bytes from somewhere verifies them first; see dsse.Envelope.
func ReadJSON(src []byte) (Document, error) {
	if len(src) > MaxSize {
		return nil, &SyntaxError{Msg: fmt.Sprintf("the document has %d bytes; at most %d are allowed", len(src), MaxSize)}
	}
	if err := canonical.Check(src); err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(src, &head); err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	return readJSON(head.Kind, src)
}

// readJSON reads a document that is to be of a kind.
func readJSON(kind string, src []byte) (Document, error) {
	doc := newDocument(kind)
	if doc == nil {
		return nil, &SyntaxError{Path: "kind", Msg: fmt.Sprintf("%q is no kind of document", kind), Cure: didYouMean(kind, Kinds())}
	}
	if err := canonical.Unmarshal(src, doc); err != nil {
		return nil, fmt.Errorf("read %s: %w", kind, err)
	}
	for _, f := range signatureFields(reflect.ValueOf(doc).Elem()) {
		if !f.IsZero() {
			return nil, &SyntaxError{Path: "signatures", Msg: "the canonical form carries no signatures", Cure: "put them into the envelope"}
		}
	}
	if err := validateAs(doc, true); err != nil {
		return nil, err
	}
	return doc, nil
}

// PayloadType returns the media type of a kind's canonical form, which DSSE signs with it:
// application/vnd.arch.network.job.v1+json for Job.
func PayloadType(kind string) string {
	return "application/vnd.arch.network." + strings.ToLower(kind) + ".v1+json"
}
