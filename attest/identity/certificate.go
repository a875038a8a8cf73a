package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// certificate is an OpenPGP certificate as its packets say, nothing verified yet. go-crypto's own Entity is not used: it
// skips revocations it cannot read, and remembers whether a signature was valid at the time it was first asked.
type certificate struct {
	primary *packet.PublicKey
	sigs    []*packet.Signature // on the primary key: direct key signatures and revocations
	users   []certUser
	subkeys []certSubkey
}

type certUser struct {
	id   string
	sigs []*packet.Signature
}

type certSubkey struct {
	key  *packet.PublicKey
	sigs []*packet.Signature
}

var (
	armorBegin = []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----")
	armorEnd   = []byte("-----END PGP PUBLIC KEY BLOCK-----")
)

// dearmor returns the binary form of a certificate in either form.
func dearmor(data []byte) ([]byte, error) {
	text := bytes.TrimSpace(data)
	if !bytes.HasPrefix(text, []byte("-----BEGIN ")) {
		return data, nil
	}
	switch {
	case bytes.Contains(text, []byte("PRIVATE KEY BLOCK")):
		return nil, errors.New("it is a private key; export the public one")
	case !bytes.HasPrefix(text, armorBegin) || !bytes.HasSuffix(text, armorEnd) || bytes.Count(text, []byte("-----BEGIN ")) != 1:
		return nil, errors.New("it is not exactly one PGP PUBLIC KEY BLOCK")
	}
	block, err := armor.Decode(bytes.NewReader(text))
	if err != nil {
		return nil, errors.New("its ASCII armour is malformed")
	}
	raw, err := io.ReadAll(io.LimitReader(block.Body, MaxCertificate+1))
	if err != nil || len(raw) > MaxCertificate {
		return nil, errors.New("its ASCII armour is malformed")
	}
	return raw, nil
}

// readCertificate sorts the packets of one certificate (RFC 9580, section 10.1).
func readCertificate(raw []byte) (*certificate, error) {
	r := packet.NewReader(bytes.NewReader(raw))
	p, err := r.NextWithUnsupported()
	if err != nil {
		return nil, errors.New("it does not begin with a readable packet")
	}
	primary, ok := p.(*packet.PublicKey)
	switch {
	case !ok:
		return nil, fmt.Errorf("it does not begin with a public key that we support%s", unsupported(p))
	case primary.IsSubkey || primary.Version != 4:
		return nil, fmt.Errorf("it does not begin with a primary key of version 4")
	}
	c := &certificate{primary: primary}
	into := &c.sigs // where signatures go; nil: nowhere
	for {
		p, err := r.NextWithUnsupported()
		if err == io.EOF {
			return c, nil
		}
		if err != nil {
			return nil, errors.New("malformed packet")
		}
		if into, err = c.add(p, into); err != nil {
			return nil, err
		}
	}
}

// add files one packet, and returns where the signatures go that follow.
func (c *certificate) add(p packet.Packet, into *[]*packet.Signature) (*[]*packet.Signature, error) {
	switch p := p.(type) {
	case *packet.PublicKey:
		if !p.IsSubkey {
			return nil, errors.New("it holds several certificates; give one at a time")
		}
		c.subkeys = append(c.subkeys, certSubkey{key: p})
		return &c.subkeys[len(c.subkeys)-1].sigs, nil
	case *packet.PrivateKey:
		return nil, errors.New("it holds a private key; export the public one")
	case *packet.UserId:
		c.users = append(c.users, certUser{id: p.Id})
		return &c.users[len(c.users)-1].sigs, nil
	case *packet.Signature:
		if into != nil {
			*into = append(*into, p)
		}
		return into, nil
	case *packet.UnsupportedPacket:
		s, ok := p.IncompletePacket.(*packet.Signature)
		if !ok {
			return nil, nil // a subkey or user attribute we do not know, and what belongs to it
		}
		if s.SigType == packet.SigTypeKeyRevocation || s.SigType == packet.SigTypeSubkeyRevocation {
			return nil, fmt.Errorf("it holds a revocation that we cannot read: %w", p.Error)
		}
		return into, nil
	}
	return nil, nil // a user attribute, and the signatures on it
}

func unsupported(p packet.Packet) string {
	if u, ok := p.(*packet.UnsupportedPacket); ok {
		return ": " + u.Error.Error()
	}
	return ""
}

// checkRevocations refuses a revoked primary key. A revocation by a designated third party cannot be checked here and is
// ignored, as it would be by gpg without that party's key.
func (c *certificate) checkRevocations() error {
	for _, s := range c.sigs {
		if s.SigType != packet.SigTypeKeyRevocation || !s.CheckKeyIdOrFingerprint(c.primary) {
			continue
		}
		if c.primary.VerifyRevocationSignature(s) == nil {
			return fmt.Errorf("it is revoked: %q", shorten(s.RevocationReasonText))
		}
	}
	return nil
}

// selfSignature returns the newest valid self-signature on the primary key or a user ID that is not revoked; of two from the same
// second, the one that lets the key end first. It is nil if there is none.
func (c *certificate) selfSignature() *packet.Signature {
	var newest *packet.Signature
	consider := func(s *packet.Signature) {
		switch {
		case s.CreationTime.Before(c.primary.CreationTime):
		case newest == nil || s.CreationTime.After(newest.CreationTime):
			newest = s
		case s.CreationTime.Equal(newest.CreationTime) && endsBefore(c.primary, s, newest):
			newest = s
		}
	}
	for _, s := range c.sigs {
		if s.SigType == packet.SigTypeDirectSignature && c.bySelf(s) && c.primary.VerifyDirectKeySignature(s) == nil {
			consider(s)
		}
	}
	for _, u := range c.users {
		for _, s := range c.certifications(u) {
			consider(s)
		}
	}
	return newest
}

func endsBefore(k *packet.PublicKey, a, b *packet.Signature) bool {
	x, y := expiry(k, a), expiry(k, b)
	return !x.IsZero() && (y.IsZero() || x.Before(y))
}

// bySelf reports whether s claims to be by the primary key and is of a kind that we would believe.
func (c *certificate) bySelf(s *packet.Signature) bool {
	return s.Version == 4 && s.CheckKeyIdOrFingerprint(c.primary) && checkPGPSignature(s) == nil
}

// certifications returns the valid self-certifications of u; none if it is revoked after the newest.
func (c *certificate) certifications(u certUser) []*packet.Signature {
	var certs, revocations []*packet.Signature
	for _, s := range u.sigs {
		switch s.SigType {
		case packet.SigTypeGenericCert, packet.SigTypePersonaCert, packet.SigTypeCasualCert, packet.SigTypePositiveCert:
			if c.bySelf(s) && c.primary.VerifyUserIdSignature(u.id, c.primary, s) == nil {
				certs = append(certs, s)
			}
		case packet.SigTypeCertificationRevocation:
			if s.CheckKeyIdOrFingerprint(c.primary) && c.primary.VerifyUserIdSignature(u.id, c.primary, s) == nil {
				revocations = append(revocations, s)
			}
		}
	}
	var valid []*packet.Signature
	for _, s := range certs {
		revoked := false
		for _, r := range revocations {
			revoked = revoked || !r.CreationTime.Before(s.CreationTime)
		}
		if !revoked {
			valid = append(valid, s)
		}
	}
	return valid
}

// signer returns the subkey if it may sign: bound by the primary key, which it signed for itself (the cross-signature that
// keeps anyone from adopting another's subkey), and never revoked.
func (c *certificate) signer(sub certSubkey) (openPGPSigner, bool) {
	if sub.key.Version != 4 || checkPGPKey(sub.key) != nil {
		return openPGPSigner{}, false
	}
	var newest *packet.Signature
	for _, s := range sub.sigs {
		switch s.SigType {
		case packet.SigTypeSubkeyRevocation:
			if s.CheckKeyIdOrFingerprint(c.primary) && c.primary.VerifySubkeyRevocationSignature(s, sub.key) == nil {
				return openPGPSigner{}, false
			}
		case packet.SigTypeSubkeyBinding:
			// VerifyKeySignature also verifies the embedded cross-signature when the signing flag is set.
			if c.bySelf(s) && !s.CreationTime.Before(sub.key.CreationTime) &&
				c.primary.VerifyKeySignature(sub.key, s) == nil &&
				(newest == nil || s.CreationTime.After(newest.CreationTime) ||
					s.CreationTime.Equal(newest.CreationTime) && endsBefore(sub.key, s, newest)) {
				newest = s
			}
		}
	}
	if newest == nil || !newest.FlagsValid || !newest.FlagSign {
		return openPGPSigner{}, false
	}
	if e := newest.EmbeddedSignature; e == nil || checkPGPSignature(e) != nil {
		return openPGPSigner{}, false
	}
	return openPGPSigner{sub.key, expiry(sub.key, newest)}, true
}
