package attest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"

	intoto "github.com/in-toto/in-toto-golang/in_toto"
	sslibdsse "github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/secure-systems-lab/go-securesystemslib/signerverifier"
)

// metadata is an in-toto layout or link with its signatures, in either carrier.
type metadata struct {
	payload    any    // intoto.Layout or intoto.Link
	message    []byte // that is signed
	signatures [][]byte
}

// parseMetadata reads a Metablock or a DSSE envelope. Nothing in it is to be believed before signedBy.
func parseMetadata(data []byte, limit int) (*metadata, error) {
	if len(data) > limit {
		return nil, fmt.Errorf("%d bytes are over the limit of %d", len(data), limit)
	}
	if env, err := dsse.ParseLimit(data, limit); err == nil {
		return parseEnvelope(env)
	}
	// Transform refuses duplicate members and the like; the library would not.
	if _, err := canonical.Transform(data); err != nil {
		return nil, err
	}
	var block struct {
		Signed     json.RawMessage    `json:"signed"`
		Signatures []intoto.Signature `json:"signatures"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&block); err != nil {
		return nil, err
	}
	if len(block.Signatures) > dsse.MaxSignatures {
		return nil, fmt.Errorf("%d signatures are over the limit of %d", len(block.Signatures), dsse.MaxSignatures)
	}
	payload, err := parsePayload(block.Signed)
	if err != nil {
		return nil, err
	}
	m := &metadata{payload: payload}
	if m.message, err = (&intoto.Metablock{Signed: payload}).GetSignableRepresentation(); err != nil {
		return nil, err
	}
	for _, s := range block.Signatures {
		if sig, err := hex.DecodeString(s.Sig); err == nil {
			m.signatures = append(m.signatures, sig)
		}
	}
	return m, nil
}

func parseEnvelope(env *dsse.Envelope) (*metadata, error) {
	if env.PayloadType != intoto.PayloadType {
		return nil, fmt.Errorf("payload type is %q, not %q", env.PayloadType, intoto.PayloadType)
	}
	if _, err := canonical.Transform(env.Payload); err != nil {
		return nil, err
	}
	payload, err := parsePayload(env.Payload)
	if err != nil {
		return nil, err
	}
	m := &metadata{payload: payload, message: dsse.PAE(env.PayloadType, env.Payload)}
	for _, s := range env.Signatures {
		m.signatures = append(m.signatures, s.Sig)
	}
	return m, nil
}

// parsePayload reads a layout or link, refusing unknown members.
func parsePayload(data []byte) (any, error) {
	var head struct {
		Type string `json:"_type"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	switch head.Type {
	case "layout":
		var l intoto.Layout
		err := dec.Decode(&l)
		return l, err
	case "link":
		var l intoto.Link
		err := dec.Decode(&l)
		return l, err
	}
	return nil, fmt.Errorf("_type %q is neither layout nor link", head.Type)
}

// layoutKey is a public key of a layout, told apart by the key itself and never by its id.
type layoutKey struct {
	id       digest.SHA256
	label    string
	verifier sslibdsse.Verifier
}

// name returns the start of the in-toto key id, as link files are named.
func (k layoutKey) name() string { return k.label[:min(len(k.label), 8)] }

// layoutKeys reads PEM public keys; the same key twice counts once.
func layoutKeys(pems [][]byte) ([]layoutKey, error) {
	var out []layoutKey
	seen := map[digest.SHA256]bool{}
	for i, data := range pems {
		var key intoto.Key
		if len(data) > 64<<10 {
			return nil, fmt.Errorf("read layout key %d: over 64 KiB", i+1)
		}
		if err := key.LoadKeyReaderDefaults(bytes.NewReader(data)); err != nil {
			return nil, fmt.Errorf("read layout key %d: %w", i+1, err)
		}
		k, err := newLayoutKey(key)
		if err != nil {
			return nil, fmt.Errorf("read layout key %d: %w", i+1, err)
		}
		if !seen[k.id] {
			seen[k.id] = true
			out = append(out, k)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("verify layout: no key of the layout's owner")
	}
	return out, nil
}

func newLayoutKey(key intoto.Key) (layoutKey, error) {
	ss := &signerverifier.SSLibKey{
		KeyType: key.KeyType, KeyID: key.KeyID, Scheme: key.Scheme, KeyIDHashAlgorithms: key.KeyIDHashAlgorithms,
		KeyVal: signerverifier.KeyVal{Public: key.KeyVal.Public},
	}
	var v sslibdsse.Verifier
	var err error
	switch key.KeyType {
	case signerverifier.ED25519KeyType:
		if raw, err := hex.DecodeString(key.KeyVal.Public); err != nil || len(raw) != ed25519.PublicKeySize {
			return layoutKey{}, fmt.Errorf("ed25519 key %q is not %d bytes in hexadecimal", key.KeyVal.Public, ed25519.PublicKeySize)
		}
		v, err = signerverifier.NewED25519SignerVerifierFromSSLibKey(ss)
	case signerverifier.RSAKeyType:
		v, err = signerverifier.NewRSAPSSSignerVerifierFromSSLibKey(ss)
	case signerverifier.ECDSAKeyType:
		v, err = signerverifier.NewECDSASignerVerifierFromSSLibKey(ss)
	default:
		err = fmt.Errorf("key type %q is not supported", key.KeyType)
	}
	if err != nil {
		return layoutKey{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(v.Public())
	if err != nil {
		return layoutKey{}, fmt.Errorf("encode key: %w", err)
	}
	return layoutKey{id: digest.Of(der), label: key.KeyID, verifier: v}, nil
}

// signedBy reports whether one of the signatures is k's. Key ids are not even looked at.
func (m *metadata) signedBy(ctx context.Context, k layoutKey) bool {
	for _, sig := range m.signatures {
		if len(sig) > 0 && k.verifier.Verify(ctx, m.message, sig) == nil {
			return true
		}
	}
	return false
}
