package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"slices"

	"filippo.io/edwards25519"
)

// orderBits is the length of the order of the curve's group (RFC 8032, section 5.1).
const orderBits = 253

// valid checks the numbers (FIPS 186-5, section 6.4.2). The first coordinate of a point is that of the Edwards curve.
func (s Signature) valid() bool {
	q, err := new(edwards25519.Point).SetBytes(s.Key[:])
	if err != nil {
		return false
	}
	r, okR := inRange(s.R)
	w, okS := inRange(s.S)
	if !okR || !okS {
		return false
	}
	w.Invert(w)
	u1 := new(edwards25519.Scalar).Multiply(reduced(leftmost(s.Hash)), w)
	u2 := new(edwards25519.Scalar).Multiply(r, w)
	return firstCoordinate(new(edwards25519.Point).VarTimeDoubleScalarBaseMult(u2, q, u1)).Equal(r) == 1
}

// Sign signs bytes. The same key and bytes give the same signature. What depends on the key takes the same time for every key.
func (k PrivateKey) Sign(signed []byte) Signature { return k.SignHash(sha256.Sum256(signed)) }

// SignHash is Sign for bytes whose SHA-256 hash is known (FIPS 186-5, section 6.4.1).
func (k PrivateKey) SignHash(sum [32]byte) Signature {
	d, z := reduced(k.number), reduced(leftmost(sum))
	zero := edwards25519.NewScalar()
	for nonces := newNonces(k.number, reversed(z.Bytes())); ; {
		nonce := nonces.next()
		r := firstCoordinate(new(edwards25519.Point).ScalarBaseMult(nonce))
		s := new(edwards25519.Scalar).MultiplyAdd(r, d, z)
		s.Multiply(s, new(edwards25519.Scalar).Invert(nonce))
		if r.Equal(zero) == 1 || s.Equal(zero) == 1 {
			continue
		}
		return Signature{Key: k.public, Hash: sum, R: reversed(r.Bytes()), S: reversed(s.Bytes())}
	}
}

// nonces are those of RFC 6979, section 3.2, with HMAC-SHA256.
type nonces struct {
	k, v []byte
	used bool // one was returned or refused
}

// newNonces begins with a private key, and a hash that is reduced, both big endian.
func newNonces(private, hash [32]byte) *nonces {
	n := &nonces{k: make([]byte, sha256.Size), v: slices.Repeat([]byte{1}, sha256.Size)}
	n.mix([]byte{0}, private[:], hash[:])
	n.mix([]byte{1}, private[:], hash[:])
	return n
}

func (n *nonces) mix(parts ...[]byte) {
	n.k = n.mac(parts...)
	n.v = n.mac()
}

// mac is of v and what follows it.
func (n *nonces) mac(parts ...[]byte) []byte {
	h := hmac.New(sha256.New, n.k)
	h.Write(n.v)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// next returns a number from 1 to one less than the order. How often it tries depends on numbers that are thrown away.
func (n *nonces) next() *edwards25519.Scalar {
	for {
		if n.used {
			n.mix([]byte{0})
		}
		n.v, n.used = n.mac(), true
		if k, ok := inRange(leftmost([32]byte(n.v))); ok {
			return k
		}
	}
}

// leftmost returns as many of a hash's first bits as the order has, as a number, big endian.
func leftmost(sum [32]byte) [32]byte {
	const shift = 8*len(sum) - orderBits
	var out [32]byte
	carry := byte(0)
	for i, b := range sum {
		out[i] = b>>shift | carry
		carry = b << (8 - shift)
	}
	return out
}

// reduced returns a number, big endian, modulo the order.
func reduced(number [32]byte) *edwards25519.Scalar {
	little := reversed(number[:])
	var wide [64]byte
	copy(wide[:], little[:])
	s, err := new(edwards25519.Scalar).SetUniformBytes(wide[:])
	if err != nil {
		panic("the length of a wide scalar changed: " + err.Error())
	}
	return s
}

// inRange returns a number, big endian, if it is at least one and less than the order.
func inRange(number [32]byte) (*edwards25519.Scalar, bool) {
	little := reversed(number[:])
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(little[:])
	return s, err == nil && s.Equal(edwards25519.NewScalar()) == 0
}

// firstCoordinate returns that of p, modulo the order.
func firstCoordinate(p *edwards25519.Point) *edwards25519.Scalar {
	x, _, z, _ := p.ExtendedCoordinates()
	return reduced(reversed(x.Multiply(x, z.Invert(z)).Bytes()))
}

// reversed turns 32 bytes from little to big endian, and back.
func reversed(b []byte) [32]byte {
	out := [32]byte(b)
	slices.Reverse(out[:])
	return out
}
