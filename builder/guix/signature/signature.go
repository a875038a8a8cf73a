// Package signature verifies and makes the signatures of Guix: those that `guix publish` puts into a narinfo and `guix archive --export`
// behind a store item. It reads and writes the keys and the access control list that they are judged by.
//
// They are not the signatures of RFC 8032, but ECDSA over the curve of Ed25519 with the nonces of RFC 6979, as libgcrypt makes them
// under (flags rfc6979), and as S-expressions:
//
//	(signature
//	  (data (flags rfc6979) (hash sha256 #32 BYTES#))
//	  (sig-val (ecdsa (r #…#) (s #…#)))
//	  (public-key (ecc (curve Ed25519) (q #32 BYTES#))))
//
// It promises that exactly this form is accepted, that nothing passes which no given key signed, and that the same key and bytes give the
// same signature, byte for byte libgcrypt's. RSA, which Guix used before 2015, is refused by name.
//
// It never reads a file and never says what signed bytes mean. In a narinfo only what stands before the signature is signed (Narinfo): since
// Guix 1.2 the lines URL, Compression and FileSize stand behind it, and are anybody's.
package signature

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"arch.network/builder/guix/sexp"
)

// maxLine bounds the value of a narinfo's signature, in bytes. Guix's have about 700.
const maxLine = 8 << 10

// Signature is what a key says of bytes. That it was read says nothing: Verify does.
type Signature struct {
	Key  PublicKey // that claims to have made it
	Hash [32]byte  // SHA-256 of what it claims to be over
	R, S [32]byte  // big endian
}

// An UntrustedError says that a signature may be right, but is by none of the keys that count.
type UntrustedError struct{ Key PublicKey }

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("no trusted key made it, but %X", e.Key[:])
}

// Hint says how to trust the key.
func (e *UntrustedError) Hint() string {
	return "if this server shall be trusted, get its key by a way that you trust and add it with `guix archive --authorize`"
}

// Parse reads a signature's S-expression.
func Parse(text string) (Signature, error) {
	e, err := sexp.Parse(text)
	if err != nil {
		return Signature{}, err
	}
	parts, ok := e.Named("signature")
	if !ok || len(parts) != 3 {
		return Signature{}, errors.New("it is no signature of data, value and key")
	}
	var s Signature
	if s.Hash, err = parseData(parts[0]); err != nil {
		return Signature{}, err
	}
	value, ok := parts[1].Named("sig-val")
	if !ok || len(value) != 1 {
		return Signature{}, errors.New("it has no one value")
	}
	if _, ok := value[0].Named("rsa"); ok {
		return Signature{}, errors.New("it is of the kind RSA, which is not read here")
	}
	numbers, ok := value[0].Named("ecdsa")
	if !ok || len(numbers) != 2 {
		return Signature{}, errors.New("it is not of the kind ECDSA")
	}
	if s.R, err = parseNumber(numbers[0], "r"); err != nil {
		return Signature{}, err
	}
	if s.S, err = parseNumber(numbers[1], "s"); err != nil {
		return Signature{}, err
	}
	s.Key, err = publicKey(parts[2])
	return s, err
}

// parseData reads (data (flags rfc6979) (hash sha256 #…#)).
func parseData(e sexp.Expression) (sum [32]byte, err error) {
	data, ok := e.Named("data")
	if !ok || len(data) != 2 {
		return sum, errors.New("it does not say what it is over")
	}
	if flags, ok := data[0].Value("flags"); !ok || flags != "rfc6979" {
		return sum, errors.New("it is not made with the flag rfc6979")
	}
	hash, ok := data[1].Named("hash")
	if !ok || len(hash) != 2 || hash[0].Atom != "sha256" || len(hash[1].Atom) != len(sum) {
		return sum, errors.New("it is not over a SHA-256 hash")
	}
	copy(sum[:], hash[1].Atom)
	return sum, nil
}

// parseNumber reads (NAME #…#), a number from one to less than the order.
func parseNumber(e sexp.Expression, name string) (number [32]byte, err error) {
	raw, ok := e.Value(name)
	if number, err = padded(raw); !ok || err != nil {
		return number, fmt.Errorf("%s is no number of at most %d bytes", name, len(number))
	}
	if _, ok := inRange(number); !ok {
		return number, fmt.Errorf("%s is out of range", name)
	}
	return number, nil
}

// padded is a number of at most 32 bytes, big endian, where leading zeros may be left out.
func padded(raw string) (number [32]byte, err error) {
	if len(raw) > len(number) {
		return number, fmt.Errorf("it has %d bytes, more than %d", len(raw), len(number))
	}
	copy(number[len(number)-len(raw):], raw)
	return number, nil
}

// String returns the signature's S-expression as libgcrypt writes it.
func (s Signature) String() string {
	return sexp.List("signature",
		sexp.List("data",
			sexp.List("flags", sexp.Atom("rfc6979")),
			sexp.List("hash", sexp.Atom("sha256"), sexp.Atom(string(s.Hash[:])))),
		sexp.List("sig-val", sexp.List("ecdsa", number("r", s.R), number("s", s.S))),
		s.Key.expression()).Advanced()
}

// number is one of libgcrypt's: without leading zeros, but with one where the first bit is set.
func number(name string, value [32]byte) sexp.Expression {
	raw := bytes.TrimLeft(value[:], "\x00")
	if len(raw) > 0 && raw[0]&0x80 != 0 {
		raw = append([]byte{0}, raw...)
	}
	return sexp.List(name, sexp.Atom(string(raw)))
}

// ParseLine reads the value of a narinfo's field Signature, "1;HOST;BASE64". The host is of no consequence.
func ParseLine(value string) (Signature, error) {
	if len(value) > maxLine {
		return Signature{}, fmt.Errorf("it has %d bytes, more than %d", len(value), maxLine)
	}
	parts := strings.Split(value, ";")
	if len(parts) != 3 || parts[0] != "1" {
		return Signature{}, errors.New("it is not 1;HOST;BASE64")
	}
	text, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || base64.StdEncoding.EncodeToString(text) != parts[2] { // the decoder skips newlines
		return Signature{}, errors.New("it is not 1;HOST;BASE64")
	}
	return Parse(string(text))
}

// Line returns the value of a narinfo's field Signature. The host is for people; it must hold no semicolon and no line break.
func (s Signature) Line(host string) string {
	return "1;" + host + ";" + base64.StdEncoding.EncodeToString([]byte(s.String()))
}

// separator is what stands between what a narinfo signs and the signature.
const separator = "\nSignature: "

// Narinfo splits a narinfo into what its signature is over and the signature. What is behind it is not signed, and not returned.
func Narinfo(narinfo []byte) (signed []byte, s Signature, err error) {
	i := bytes.Index(narinfo, []byte(separator))
	if i < 0 || bytes.Count(narinfo, []byte(separator)) != 1 {
		return nil, Signature{}, errors.New("it has not exactly one signature")
	}
	line, _, _ := bytes.Cut(narinfo[i+len(separator):], []byte("\n"))
	s, err = ParseLine(string(line))
	return narinfo[:i+1], s, err
}

// Verify reports whether one of the keys signed these bytes: *UntrustedError, or what else is wrong.
func (s Signature) Verify(keys Keys, signed []byte) error {
	return s.VerifyHash(keys, sha256.Sum256(signed))
}

// VerifyHash is Verify for bytes whose SHA-256 hash is known.
func (s Signature) VerifyHash(keys Keys, sum [32]byte) error {
	switch {
	case s.Hash != sum:
		return errors.New("it is over something else")
	case !keys[s.Key]:
		return &UntrustedError{s.Key}
	case !s.valid():
		return errors.New("it is wrong")
	}
	return nil
}
