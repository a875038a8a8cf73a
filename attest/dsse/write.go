package dsse

import (
	"encoding/base64"

	"arch.network/attest/canonical"
)

// Marshal returns the envelope as one line of JSON without a line break at its end: members payload, payloadType
// and signatures in this order, base64 in the standard alphabet with padding, keyid left out if it is empty. A text that
// is not UTF-8 is written with U+FFFD in place of the wrong bytes, so that such an envelope does not verify.
func (e *Envelope) Marshal() []byte {
	out := append(make([]byte, 0, e.size()), `{"payload":"`...)
	out = base64.StdEncoding.AppendEncode(out, e.Payload)
	out = append(out, `","payloadType":`...)
	out = canonical.AppendString(out, e.PayloadType)
	out = append(out, `,"signatures":[`...)
	for i, s := range e.Signatures {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '{')
		if s.KeyID != "" {
			out = append(out, `"keyid":`...)
			out = canonical.AppendString(out, s.KeyID)
			out = append(out, ',')
		}
		out = append(out, `"sig":"`...)
		out = base64.StdEncoding.AppendEncode(out, s.Sig)
		out = append(out, `"}`...)
	}
	return append(out, "]}"...)
}

// size returns about how long the JSON will be.
func (e *Envelope) size() int {
	n := 64 + base64.StdEncoding.EncodedLen(len(e.Payload)) + len(e.PayloadType)
	for _, s := range e.Signatures {
		n += 32 + len(s.KeyID) + base64.StdEncoding.EncodedLen(len(s.Sig))
	}
	return n
}
