package signature

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"filippo.io/edwards25519"

	"arch.network/builder/guix/sexp"
)

// PublicKey is a point of the curve as RFC 8032 encodes it, which Guix calls q.
type PublicKey [32]byte

// ParsePublicKey reads (public-key (ecc (curve Ed25519) (q #…#))), the content of /etc/guix/signing-key.pub.
func ParsePublicKey(text string) (PublicKey, error) {
	e, err := sexp.Parse(text)
	if err != nil {
		return PublicKey{}, err
	}
	return publicKey(e)
}

func publicKey(e sexp.Expression) (PublicKey, error) {
	parts, ok := e.Named("public-key")
	if !ok || len(parts) != 1 {
		return PublicKey{}, errors.New("it is no public key")
	}
	numbers, err := onCurve(parts[0], "q")
	if err != nil {
		return PublicKey{}, err
	}
	return point(numbers[0])
}

// onCurve reads (ecc (curve Ed25519) (NAME #…#)…).
func onCurve(e sexp.Expression, names ...string) ([]string, error) {
	parts, ok := e.Named("ecc")
	if !ok || len(parts) != 1+len(names) {
		return nil, errors.New("it is no key on the curve Ed25519")
	}
	if curve, ok := parts[0].Value("curve"); !ok || curve != "Ed25519" {
		return nil, errors.New("it is no key on the curve Ed25519")
	}
	var values []string
	for i, name := range names {
		value, ok := parts[i+1].Value(name)
		if !ok {
			return nil, fmt.Errorf("%s is missing in the key", name)
		}
		values = append(values, value)
	}
	return values, nil
}

// point refuses what is no point, is written in a second way, or is of an order so small that anybody could sign for it.
func point(q string) (PublicKey, error) {
	p, err := new(edwards25519.Point).SetBytes([]byte(q))
	if err != nil || string(p.Bytes()) != q {
		return PublicKey{}, errors.New("the key is no point of the curve")
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return PublicKey{}, errors.New("the key is a point of small order")
	}
	return PublicKey([]byte(q)), nil
}

func (k PublicKey) expression() sexp.Expression {
	return sexp.List("public-key", curve(sexp.List("q", sexp.Atom(string(k[:])))))
}

func curve(numbers ...sexp.Expression) sexp.Expression {
	return sexp.List("ecc", append([]sexp.Expression{sexp.List("curve", sexp.Atom("Ed25519"))}, numbers...)...)
}

// String returns the content of a signing-key.pub.
func (k PublicKey) String() string { return k.expression().Advanced() }

// Keys are those whose signatures count.
type Keys map[PublicKey]bool

// ParseKeys reads an access control list, the content of /etc/guix/acl:
//
//	(acl (entry (public-key …) (tag (guix import))) …)
//
// or one public key alone. Keys with another tag are left out.
func ParseKeys(text string) (Keys, error) {
	e, err := sexp.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read Guix keys: %w", err)
	}
	if _, alone := e.Named("public-key"); alone {
		key, err := publicKey(e)
		if err != nil {
			return nil, fmt.Errorf("read Guix keys: %w", err)
		}
		return Keys{key: true}, nil
	}
	entries, ok := e.Named("acl")
	if !ok {
		return nil, errors.New("read Guix keys: it is neither an access control list nor a public key")
	}
	keys := Keys{}
	for _, entry := range entries {
		parts, ok := entry.Named("entry")
		if !ok || len(parts) != 2 {
			return nil, errors.New("read Guix keys: an entry is not a key and a tag")
		}
		tag, ok := parts[1].Named("tag")
		if !ok || len(tag) != 1 {
			return nil, errors.New("read Guix keys: an entry is not a key and a tag")
		}
		if right, ok := tag[0].Value("guix"); !ok || right != "import" {
			continue
		}
		key, err := publicKey(parts[0])
		if err != nil {
			return nil, fmt.Errorf("read Guix keys: %w", err)
		}
		keys[key] = true
	}
	return keys, nil
}

// String returns the access control list, sorted.
func (k Keys) String() string {
	list := sexp.List("acl")
	for _, key := range slices.SortedFunc(maps.Keys(k), func(a, b PublicKey) int { return strings.Compare(string(a[:]), string(b[:])) }) {
		if k[key] {
			list.List = append(list.List, sexp.List("entry", key.expression(), sexp.List("tag", sexp.List("guix", sexp.Atom("import")))))
		}
	}
	return list.Advanced()
}

// PrivateKey signs. Nothing prints it but Expose.
type PrivateKey struct {
	public PublicKey
	number [32]byte // big endian; libgcrypt makes it larger than the order
}

// GeneratePrivateKey makes a key from 32 bytes of random.
func GeneratePrivateKey(random io.Reader) (PrivateKey, error) {
	var number [32]byte
	if _, err := io.ReadFull(random, number[:]); err != nil {
		return PrivateKey{}, fmt.Errorf("make Guix key: %w", err)
	}
	number[0] = number[0]&0x7f | 0x40 // as libgcrypt does: RFC 7748, section 5
	number[31] &= 0xf8
	return newPrivateKey(number)
}

func newPrivateKey(number [32]byte) (PrivateKey, error) {
	d := reduced(number)
	if d.Equal(edwards25519.NewScalar()) == 1 {
		return PrivateKey{}, errors.New("the private key is out of range")
	}
	return PrivateKey{PublicKey(new(edwards25519.Point).ScalarBaseMult(d).Bytes()), number}, nil
}

// ParsePrivateKey reads (private-key (ecc (curve Ed25519) (q #…#) (d #…#))), the content of /etc/guix/signing-key.sec. Its errors show
// nothing of it.
func ParsePrivateKey(text string) (PrivateKey, error) {
	e, err := sexp.Parse(text)
	if err != nil {
		return PrivateKey{}, errors.New("it is no private key: it is no S-expression")
	}
	parts, ok := e.Named("private-key")
	if !ok || len(parts) != 1 {
		return PrivateKey{}, errors.New("it is no private key")
	}
	numbers, err := onCurve(parts[0], "q", "d")
	if err != nil {
		return PrivateKey{}, err
	}
	number, err := padded(numbers[1])
	if err != nil {
		return PrivateKey{}, fmt.Errorf("d: %w", err)
	}
	key, err := newPrivateKey(number)
	if err != nil {
		return PrivateKey{}, err
	}
	if string(key.public[:]) != numbers[0] {
		return PrivateKey{}, errors.New("the private key and the public one beside it do not belong together")
	}
	return key, nil
}

// Public returns the key that verifies.
func (k PrivateKey) Public() PublicKey { return k.public }

// Expose returns the content of a signing-key.sec.
func (k PrivateKey) Expose() string {
	return sexp.List("private-key", curve(sexp.List("q", sexp.Atom(string(k.public[:]))), number("d", k.number))).Advanced()
}

// String says whose key it is, and not the key.
func (k PrivateKey) String() string { return fmt.Sprintf("private key of %X", k.public[:]) }

// GoString is String.
func (k PrivateKey) GoString() string { return k.String() }
