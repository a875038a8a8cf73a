package dsse

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"arch.network/attest/canonical"
)

// LimitError says that an envelope is over a limit of this package.
type LimitError struct {
	What  string // "bytes" or "signatures"
	Have  int    // at least
	Limit int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("read envelope: %d %s are over the limit of %d", e.Have, e.What, e.Limit)
}

// Parse reads the envelope of a document: at most MaxEnvelope bytes. See ParseLimit.
func Parse(data []byte) (*Envelope, error) { return ParseLimit(data, MaxEnvelope) }

// ParseLimit reads an envelope of at most limit bytes of JSON (and never more than canonical.MaxSize).
// The members payload, payloadType and signatures, and sig in each signature, are required; members it does not
// know are ignored; a member given twice, at any level, is an error, as is anything that is not strict JSON. Base64 may be
// in the standard or in the URL alphabet, padded or not, but not in a mixture, and without line
// breaks or stray bits. A signature whose base64 is wrong stays in its place with a nil Sig. A list of no
// signatures is accepted: it is a document not signed yet, which no key verifies.
//
// The result shares no memory with data.
func ParseLimit(data []byte, limit int) (*Envelope, error) {
	if len(data) > limit {
		return nil, &LimitError{What: "bytes", Have: len(data), Limit: limit}
	}
	r, err := canonical.NewReader(data)
	if err != nil {
		return nil, fmt.Errorf("read envelope: %w", err)
	}
	p := parser{r: r}
	if err := p.envelope(); err != nil {
		if _, ok := errors.AsType[*LimitError](err); ok {
			return nil, err
		}
		return nil, fmt.Errorf("read envelope: %w", err)
	}
	return &p.env, nil
}

// parser fills an envelope, and notes which required members were there.
type parser struct {
	r   *canonical.Reader
	env Envelope

	hasPayload, hasType, hasSignatures bool
}

func (p *parser) envelope() error {
	if err := p.r.Object(p.member); err != nil {
		return err
	}
	if err := p.r.End(); err != nil {
		return err
	}
	switch {
	case !p.hasPayload:
		return errors.New(`no member "payload"`)
	case !p.hasType:
		return errors.New(`no member "payloadType"`)
	case !p.hasSignatures:
		return errors.New(`no member "signatures"`)
	case p.env.PayloadType == "":
		return errors.New("the payload type is empty")
	}
	return nil
}

func (p *parser) member(name string) error {
	switch name {
	case "payload":
		p.hasPayload = true
		return p.payload()
	case "payloadType":
		p.hasType = true
		text, err := p.r.Text()
		p.env.PayloadType = string(text)
		return err
	case "signatures":
		p.hasSignatures = true
		return p.r.Array(p.signature)
	}
	return p.r.Skip()
}

func (p *parser) payload() error {
	// Base64 has no character that a string of JSON would have to escape.
	if p.r.Plain(func(text []byte) (ok bool) { p.env.Payload, ok = decodeBase64(text); return ok }) {
		return nil
	}
	text, err := p.r.Text()
	if err != nil {
		return err
	}
	payload, ok := decodeBase64(text)
	if !ok {
		return errors.New("the payload is not base64")
	}
	p.env.Payload = payload
	return nil
}

func (p *parser) signature() error {
	if len(p.env.Signatures) == MaxSignatures {
		return &LimitError{What: "signatures", Have: MaxSignatures + 1, Limit: MaxSignatures}
	}
	var sig Signature
	var has bool
	err := p.r.Object(func(name string) error {
		switch {
		case name == "sig":
			has = true
			text, err := p.r.Text()
			if decoded, ok := decodeBase64(text); ok && len(decoded) > 0 {
				sig.Sig = decoded
			}
			return err
		case name == "keyid" && !p.r.Null():
			text, err := p.r.Text()
			sig.KeyID = string(text)
			return err
		case name == "keyid":
			return nil
		}
		return p.r.Skip()
	})
	if err != nil {
		return err
	}
	if !has {
		return fmt.Errorf(`signature %d has no member "sig"`, len(p.env.Signatures)+1)
	}
	p.env.Signatures = append(p.env.Signatures, sig)
	return nil
}

// decodeBase64 decodes either alphabet of RFC 4648, with the right padding or none. It accepts no other characters.
func decodeBase64(text []byte) ([]byte, bool) {
	std, url := base64.StdEncoding, base64.URLEncoding
	if !bytes.HasSuffix(text, []byte("=")) {
		std, url = base64.RawStdEncoding, base64.RawURLEncoding
	}
	out := make([]byte, std.DecodedLen(len(text)))
	for _, enc := range []*base64.Encoding{std, url} {
		n, err := enc.Strict().Decode(out, text)          // strict: no stray bits
		if err == nil && enc.EncodedLen(n) == len(text) { // else there were line breaks, which it skips
			return out[:n], true
		}
	}
	return nil, false
}
