// Package dsse wraps signed bytes: the Dead Simple Signing Envelope, version 1.0.2
// (https://github.com/secure-systems-lab/dsse). Every document and receipt travels in one, and every signature
// in the system is made over its pre-authentication encoding (PAE).
//
// It promises that the payload a caller parses is the payload whose signatures were verified (it is decoded
// once), that signers are counted by public key and never by key ID, that one bad signature never spoils the
// others, and that an envelope costs bounded work: MaxSignatures, MaxVerifications, and a size limit that holds
// before anything is decoded.
//
// It never looks into the payload, never decides how many signers are enough (that is attest/quorum's), and
// never trusts a key ID. An envelope's own bytes are malleable (either base64 alphabet, any order of members):
// name it by Envelope.ID and by nothing else.
package dsse

import (
	"crypto/sha256"
	"slices"
	"strconv"

	"arch.network/attest/digest"
)

// Limits of an envelope.
const (
	MaxEnvelope      = 64 << 10 // bytes of the JSON of a document's envelope
	MaxReceipt       = 16 << 20 // bytes of the JSON of a receipt's envelope
	MaxSignatures    = 16       // good and bad ones together
	MaxVerifications = 256      // cryptographic checks that one call of Envelope.Verified makes at most; see also Budget
)

// Envelope is a payload with signatures over PAE(PayloadType, Payload).
type Envelope struct {
	PayloadType string // says what Payload is; signed; compare it before parsing Payload
	Payload     []byte
	Signatures  []Signature
}

// Signature is one signature of an envelope.
type Signature struct {
	KeyID string // a hint which key to try first; not signed, never to be believed; may be empty
	Sig   []byte // nil if the envelope carried something that is not base64
}

// PAE returns the bytes that are signed: "DSSEv1", the type and the payload, each of the two after its length in
// bytes as a decimal number, separated by single spaces.
func PAE(payloadType string, payload []byte) []byte {
	return appendPAE(nil, payloadType, payload)
}

func appendPAE(out []byte, payloadType string, payload []byte) []byte {
	out = slices.Grow(out, len(payloadType)+len(payload)+64)
	out = appendHead(out, payloadType, len(payload))
	return append(out, payload...)
}

func appendHead(out []byte, payloadType string, size int) []byte {
	out = append(out, "DSSEv1 "...)
	out = strconv.AppendInt(out, int64(len(payloadType)), 10)
	out = append(out, ' ')
	out = append(out, payloadType...)
	out = append(out, ' ')
	out = strconv.AppendInt(out, int64(size), 10)
	return append(out, ' ')
}

// ID returns the SHA-256 of PAE(e.PayloadType, e.Payload), by which everything refers to the document inside. Signatures do not
// change it.
func (e *Envelope) ID() digest.SHA256 {
	h := sha256.New()
	h.Write(appendHead(make([]byte, 0, len(e.PayloadType)+64), e.PayloadType, len(e.Payload)))
	h.Write(e.Payload)
	return digest.SHA256(h.Sum(nil))
}
