package closure

import (
	"fmt"

	"arch.network/builder/guix/signature"
)

// GuixKeys are the public keys of Guix substitute servers that are trusted.
type GuixKeys signature.Keys

// ParseGuixKeys reads an access control list, /etc/guix/acl, or one public key as `guix archive --generate-key` writes it. Keys with
// another tag than (guix import) are left out.
func ParseGuixKeys(text string) (GuixKeys, error) {
	keys, err := signature.ParseKeys(text)
	return GuixKeys(keys), err
}

// Verify reads a narinfo of a Guix substitute server and returns what it says of the path, if one of the keys signed that. Only what
// stands before the signature is read.
func (k GuixKeys) Verify(narinfo []byte, path string) (Proof, error) {
	if len(narinfo) > maxNarinfo {
		return Proof{}, fmt.Errorf("read narinfo of %s: it has %d bytes, more than %d", path, len(narinfo), maxNarinfo)
	}
	signed, s, err := signature.Narinfo(narinfo)
	if err != nil {
		return Proof{}, fmt.Errorf("signature on %s: %w", path, err)
	}
	if err := s.Verify(signature.Keys(k), signed); err != nil {
		return Proof{}, fmt.Errorf("signature on %s: %w", path, err)
	}
	n, err := parseNarinfo(signed)
	if err != nil {
		return Proof{}, fmt.Errorf("read narinfo of %s: %w", path, err)
	}
	if n.path != path {
		return Proof{}, fmt.Errorf("read narinfo of %s: it is that of %.250q", path, n.path)
	}
	return Proof{NAR: n.nar, References: n.references, Source: "signature of a Guix server"}, nil
}
