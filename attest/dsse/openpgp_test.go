package dsse_test

import (
	"bytes"
	"testing"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"
)

// A detached OpenPGP signature of the PAE counts like any other, beside signatures by did:key.
func TestVerifiedTakesOpenPGP(t *testing.T) {
	entity, err := openpgp.NewEntity("Alice", "", "alice@example.org", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var cert, sig bytes.Buffer
	if err := entity.Serialize(&cert); err != nil {
		t.Fatal(err)
	}
	alice, err := identity.ParseOpenPGP(cert.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	bob := newKey(t, identity.Ed25519, 1)
	env := signedBy(t, bob)
	message := bytes.NewReader(dsse.PAE(env.PayloadType, env.Payload))
	if err := openpgp.DetachSign(&sig, entity, message, nil); err != nil {
		t.Fatal(err)
	}
	keys := []identity.PublicKey{alice, bob.Public()}
	for name, hint := range map[string]string{"hinted": dsse.KeyID(alice), "no hint": "", "wrong hint": dsse.KeyID(bob.Public())} {
		t.Run(name, func(t *testing.T) {
			both := *env
			both.Signatures = append(both.Signatures[:1:1], dsse.Signature{KeyID: hint, Sig: sig.Bytes()})
			again, err := dsse.Parse(both.Marshal())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(ids(keys), ids(again.Verified(keys))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
