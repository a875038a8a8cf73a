package dsse_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"arch.network/attest/identity"
)

// newKey returns the key of an algorithm whose 32 secret bytes are all n.
func newKey(t testing.TB, alg identity.Algorithm, n byte) *identity.Key {
	t.Helper()
	k, err := identity.Generate(alg, bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newKeys returns Ed25519 keys number 1 to n.
func newKeys(t testing.TB, n int) []*identity.Key {
	t.Helper()
	keys := make([]*identity.Key, n)
	for i := range keys {
		keys[i] = newKey(t, identity.Ed25519, byte(i+1))
	}
	return keys
}

func public(keys ...*identity.Key) []identity.PublicKey {
	out := make([]identity.PublicKey, len(keys))
	for i, k := range keys {
		out[i] = k.Public()
	}
	return out
}

// ids names keys for a comparison.
func ids(keys []identity.PublicKey) []string {
	out := []string{}
	for _, k := range keys {
		out = append(out, k.ID().String())
	}
	return out
}

// oddSigner signs for a key, but not as it should.
type oddSigner struct {
	*identity.Key
	sig []byte
	err error
}

func (s oddSigner) Sign(context.Context, []byte) ([]byte, error) { return s.sig, s.err }

var errDevice = errors.New("device is gone")

func bytesOf(b []byte) io.Reader { return bytes.NewReader(b) }

// replaceBase64 puts something that is not base64 in the place of a marked signature.
func replaceBase64(s string) string {
	return strings.ReplaceAll(s, base64.StdEncoding.EncodeToString([]byte("REPLACED")), "not base64!")
}
