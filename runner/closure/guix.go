package closure

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"filippo.io/edwards25519"
)

// GuixKeys are the public keys of Guix substitute servers that are trusted.
//
// Their signatures are not those of RFC 8032, but ECDSA over the same curve, as libgcrypt makes them.
type GuixKeys map[[32]byte]bool

// ParseGuixKeys reads an access control list, /etc/guix/acl, or one public key as `guix archive --generate-key` writes it. Keys with
// another tag than (guix import) are left out.
func ParseGuixKeys(text string) (GuixKeys, error) {
	e, err := parseExpression(text)
	if err != nil {
		return nil, fmt.Errorf("read Guix keys: %w", err)
	}
	keys := GuixKeys{}
	if key, err := guixKey(e); err == nil {
		keys[key] = true
		return keys, nil
	}
	entries, ok := e.get("acl")
	if !ok {
		return nil, errors.New("read Guix keys: it is neither an access control list nor a public key")
	}
	for _, entry := range entries {
		parts, ok := entry.get("entry")
		if !ok || len(parts) != 2 {
			return nil, errors.New("read Guix keys: an entry is not a key and a tag")
		}
		if tag, ok := parts[1].get("tag", "guix"); !ok || len(tag) != 1 || tag[0].list != nil || tag[0].atom != "import" {
			continue
		}
		key, err := guixKey(parts[0])
		if err != nil {
			return nil, fmt.Errorf("read Guix keys: %w", err)
		}
		keys[key] = true
	}
	return keys, nil
}

// guixKey reads (public-key (ecc (curve Ed25519) (q #…#))).
func guixKey(e expression) (key [32]byte, err error) {
	curve, ok := e.value("public-key", "ecc", "curve")
	q, okQ := e.value("public-key", "ecc", "q")
	if !ok || !okQ || curve != "Ed25519" || len(q) != len(key) {
		return key, errors.New("it is no public key on the curve Ed25519")
	}
	copy(key[:], q)
	return key, nil
}

// Verify reads a narinfo of a Guix substitute server and returns what it says of the path, if one of the keys signed that. Only what
// stands before the signature is read.
func (k GuixKeys) Verify(narinfo []byte, path string) (Proof, error) {
	if len(narinfo) > maxNarinfo {
		return Proof{}, fmt.Errorf("read narinfo of %s: it has %d bytes, more than %d", path, len(narinfo), maxNarinfo)
	}
	signed, rest, ok := bytes.Cut(narinfo, []byte("\nSignature: "))
	if !ok || bytes.Contains(rest, []byte("\nSignature: ")) {
		return Proof{}, fmt.Errorf("read narinfo of %s: it has not exactly one signature", path)
	}
	signed = narinfo[:len(signed)+1] // with its last newline
	n, err := parseNarinfo(signed)
	if err != nil {
		return Proof{}, fmt.Errorf("read narinfo of %s: %w", path, err)
	}
	if n.path != path {
		return Proof{}, fmt.Errorf("read narinfo of %s: it is that of %.250q", path, n.path)
	}
	line, _, _ := strings.Cut(string(rest), "\n")
	if err := k.check(sha256.Sum256(signed), line); err != nil {
		return Proof{}, fmt.Errorf("signature on %s: %w", path, err)
	}
	return Proof{NAR: n.nar, References: n.references, Source: "signature of a Guix server"}, nil
}

// check verifies "1;HOST;BASE64", where the last part is (signature (data … (hash sha256 #…#)) (sig-val (ecdsa (r #…#) (s #…#))) (public-key …)).
func (k GuixKeys) check(sum [32]byte, line string) error {
	parts := strings.Split(line, ";")
	if len(parts) != 3 || parts[0] != "1" {
		return errors.New("it is not 1;HOST;BASE64")
	}
	text, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return errors.New("it is not 1;HOST;BASE64")
	}
	e, err := parseExpression(string(text))
	if err != nil {
		return err
	}
	top, ok := e.get("signature")
	if !ok {
		return errors.New("it is no signature")
	}
	hash, ok := e.get("signature", "data", "hash")
	if !ok || len(hash) != 2 || hash[0].atom != "sha256" || hash[1].atom != string(sum[:]) {
		return errors.New("it is over something else")
	}
	r, okR := e.value("signature", "sig-val", "ecdsa", "r")
	s, okS := e.value("signature", "sig-val", "ecdsa", "s")
	i := slices.IndexFunc(top, func(e expression) bool { _, ok := e.get("public-key"); return ok })
	if !okR || !okS || i < 0 {
		return errors.New("it is no signature")
	}
	key, err := guixKey(top[i])
	if err != nil {
		return err
	}
	if !k[key] {
		return errors.New("no trusted key made it")
	}
	return verifyECDSA(key, sum, []byte(r), []byte(s))
}

// order is that of the group of Ed25519: RFC 8032, section 5.1.
var order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

// verifyECDSA checks an ECDSA signature (FIPS 186-5, section 6.4.2) in the group of Ed25519, where the key is encoded as in RFC 8032 and
// the first coordinate is that of the Edwards curve.
func verifyECDSA(key, sum [32]byte, rBytes, sBytes []byte) error {
	wrong := errors.New("it is wrong")
	q, err := new(edwards25519.Point).SetBytes(key[:])
	if err != nil {
		return errors.New("the key is no point of the curve")
	}
	r, s := new(big.Int).SetBytes(rBytes), new(big.Int).SetBytes(sBytes)
	if len(rBytes) > 32 || len(sBytes) > 32 || r.Sign() == 0 || s.Sign() == 0 || r.Cmp(order) >= 0 || s.Cmp(order) >= 0 {
		return wrong
	}
	// The hash's leftmost bits, as many as the order has: 253.
	z := new(big.Int).SetBytes(sum[:])
	z.Rsh(z, uint(len(sum)*8-order.BitLen()))
	w := new(big.Int).ModInverse(s, order)
	u1, err1 := scalar(z.Mul(z, w))
	u2, err2 := scalar(new(big.Int).Mul(r, w))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	x := affineX(new(edwards25519.Point).VarTimeDoubleScalarBaseMult(u2, q, u1))
	if x.Mod(x, order).Cmp(r) != 0 {
		return wrong
	}
	return nil
}

// scalar reduces n.
func scalar(n *big.Int) (*edwards25519.Scalar, error) {
	b := new(big.Int).Mod(n, order).FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return edwards25519.NewScalar().SetCanonicalBytes(b)
}

// affineX returns the first coordinate of p.
func affineX(p *edwards25519.Point) *big.Int {
	x, _, z, _ := p.ExtendedCoordinates()
	b := x.Multiply(x, z.Invert(z)).Bytes()
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}
