package manifest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
)

// Signatures returns the signatures that doc carries: that of spec.signature first, then those of signatures.
func Signatures(doc Document) []Signature {
	var out []Signature
	for _, f := range signatureFields(reflect.ValueOf(doc).Elem()) {
		switch s := f.Interface().(type) {
		case *Signature:
			if s != nil {
				out = append(out, *s)
			}
		case []Signature:
			out = append(out, s...)
		}
	}
	return out
}

// setSignatures replaces the signatures of doc. A single one goes to spec.signature where the kind has it.
func setSignatures(doc Document, sigs []Signature) {
	fields := signatureFields(reflect.ValueOf(doc).Elem())
	for _, f := range fields {
		f.SetZero()
	}
	switch {
	case len(sigs) == 0:
	case len(sigs) == 1 && len(fields) == 2:
		fields[0].Set(reflect.ValueOf(&sigs[0]))
	default:
		fields[len(fields)-1].Set(reflect.ValueOf(sigs))
	}
}

// Bytes returns the signature itself. Both base64 alphabets are read, with and without padding.
func (s Signature) Bytes() ([]byte, error) {
	text := strings.TrimRight(s.Sig, "=")
	enc := base64.RawStdEncoding
	if strings.ContainsAny(text, "-_") {
		enc = base64.RawURLEncoding
	}
	out, err := enc.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") || (text != s.Sig && enc.WithPadding('=').EncodeToString(out) != s.Sig) {
		return nil, fmt.Errorf("signature by %s: sig is not base64", shortKey(s.By))
	}
	return out, nil
}

// CheckAlg compares the algorithm that the signature claims with what the signer's identity says. An identity that is only
// a key id ("sha256:…") does not say it: there the claim is left for whoever knows the key.
func CheckAlg(sig Signature) error {
	want, err := algOf(sig.By)
	if err != nil {
		return err
	}
	if want == "" || identity.Algorithm(sig.Alg) == want {
		return nil
	}
	return &SyntaxError{Msg: fmt.Sprintf("signature says alg %q, but its signer's key is %s", sig.Alg, want), Cure: fmt.Sprintf("write alg: %s, or ask who signed: the signature may be another's", want)}
}

// algOf returns the algorithm that an identity says, or "" if it is only a key id.
func algOf(by string) (identity.Algorithm, error) {
	switch {
	case strings.HasPrefix(by, "sha256:"):
		return "", nil
	case strings.HasPrefix(by, "openpgp:"):
		return identity.OpenPGP, nil
	}
	key, err := identity.ParsePublicKey(by)
	if err != nil {
		return "", fmt.Errorf("signature: %w", err)
	}
	return key.Algorithm(), nil
}

// Wrap returns the document's envelope: its canonical form with the signatures it carries, each with its signer as keyid.
// It verifies no signature; that each claims the algorithm of its signer is checked.
func Wrap(doc Document) (*dsse.Envelope, error) {
	if err := doc.Validate(); err != nil {
		return nil, err
	}
	payload, err := Canonical(doc)
	if err != nil {
		return nil, err
	}
	env := &dsse.Envelope{PayloadType: PayloadType(doc.DocumentKind()), Payload: payload}
	for _, s := range Signatures(doc) {
		if err := CheckAlg(s); err != nil {
			return nil, fmt.Errorf("wrap %s %q: %w", doc.DocumentKind(), doc.Head().Name, err)
		}
		sig, err := s.Bytes()
		if err != nil {
			return nil, fmt.Errorf("wrap %s %q: %w", doc.DocumentKind(), doc.Head().Name, err)
		}
		env.Signatures = append(env.Signatures, dsse.Signature{KeyID: s.By, Sig: sig})
	}
	if n := len(env.Marshal()); n > dsse.MaxEnvelope {
		return nil, &SyntaxError{
			Msg:  fmt.Sprintf("the envelope of %s %q has %d bytes; at most %d are allowed", doc.DocumentKind(), doc.Head().Name, n, dsse.MaxEnvelope),
			Cure: "move large values into files and refer to them by their pins",
		}
	}
	return env, nil
}

// Unwrap returns the document that is exactly the envelope's payload, carrying the envelope's signatures. The payload type
// must be that of the document's kind. Unwrap verifies no signature: whoever relies on the document calls
// env.Verified first.
func Unwrap(env *dsse.Envelope) (Document, error) {
	doc, err := Payload(env)
	if err != nil {
		return nil, err
	}
	var sigs []Signature
	for i, s := range env.Signatures {
		sig, err := SignatureOf(s)
		if err != nil {
			return nil, fmt.Errorf("unwrap %s %q: signature %d: %w", doc.DocumentKind(), doc.Head().Name, i+1, err)
		}
		sigs = append(sigs, sig)
	}
	setSignatures(doc, sigs)
	if err := doc.Validate(); err != nil {
		return nil, err
	}
	return doc, nil
}

// Payload returns the document that is exactly the envelope's payload, without signatures. It is for verifiers, which
// must not stumble over a signature that nobody can read.
func Payload(env *dsse.Envelope) (Document, error) {
	at := slices.IndexFunc(Kinds(), func(kind string) bool { return PayloadType(kind) == env.PayloadType })
	if at < 0 {
		return nil, fmt.Errorf("unwrap envelope: payload type %q is that of no document", env.PayloadType)
	}
	if len(env.Payload) <= MaxSize {
		if doc, err := readJSON(Kinds()[at], env.Payload); err == nil {
			return doc, nil
		}
	}
	doc, err := ReadJSON(env.Payload) // which says best what is wrong
	if err != nil {
		return nil, fmt.Errorf("unwrap envelope: %w", err)
	}
	if want := PayloadType(doc.DocumentKind()); env.PayloadType != want {
		return nil, fmt.Errorf("unwrap envelope: payload type is %q, but the payload is a %s, whose type is %q", env.PayloadType, doc.DocumentKind(), want)
	}
	return doc, nil
}

// SignatureOf returns the in-document form of an envelope's signature. The keyid must be an identity. A keyid that is only a
// key id stands for an ML-DSA-65 key, whose did:key is too long to repeat (see dsse.KeyID).
func SignatureOf(s dsse.Signature) (Signature, error) {
	if len(s.Sig) == 0 {
		return Signature{}, errors.New("the envelope has no readable signature there")
	}
	if !patterns["identity"].match(s.KeyID) {
		return Signature{}, fmt.Errorf("keyid %q is no identity; want %s", s.KeyID, patterns["identity"].says)
	}
	alg, err := algOf(s.KeyID)
	if err != nil {
		return Signature{}, err
	}
	if alg == "" {
		alg = identity.MLDSA65
	}
	return Signature{By: s.KeyID, Alg: string(alg), Sig: base64.StdEncoding.EncodeToString(s.Sig)}, nil
}
