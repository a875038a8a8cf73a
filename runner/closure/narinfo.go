package closure

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"arch.network/attest/digest"
)

// Keys are the public keys of binary caches that are trusted, by name.
type Keys map[string]ed25519.PublicKey

// ParseKeys reads keys as nix.conf(5) has them in trusted-public-keys: "NAME:BASE64".
func ParseKeys(texts ...string) (Keys, error) {
	keys := Keys{}
	for _, text := range texts {
		name, raw, err := parseNamed(text, ed25519.PublicKeySize)
		if err != nil {
			return nil, fmt.Errorf("read cache key %.100q: %w", text, err)
		}
		if _, twice := keys[name]; twice {
			return nil, fmt.Errorf("read cache key %.100q: there are two keys of this name", text)
		}
		keys[name] = raw
	}
	return keys, nil
}

// parseNamed reads NAME:BASE64 of so many bytes.
func parseNamed(text string, size int) (string, []byte, error) {
	name, value, ok := strings.Cut(text, ":")
	raw, err := base64.StdEncoding.Strict().DecodeString(value)
	// The decoder skips newlines.
	if !ok || name == "" || err != nil || len(raw) != size || base64.StdEncoding.EncodeToString(raw) != value {
		return "", nil, fmt.Errorf("it is not NAME:BASE64 of %d bytes", size)
	}
	return name, raw, nil
}

// CacheKeys are Keys or GuixKeys: they tell what a narinfo says of a path, if one of them signed that.
type CacheKeys interface {
	Verify(narinfo []byte, path string) (Proof, error)
}

// Signed answers with what a binary cache says of a path, if one of the keys signed it.
type Signed struct {
	Keys CacheKeys
	// Open returns the file HASH.narinfo of a cache. That there is none is an error that wraps fs.ErrNotExist.
	Open func(ctx context.Context, name string) ([]byte, error)
}

// Verify is for Options.Verify. A signature by none of the keys is an error, and so is a wrong one.
func (s Signed) Verify(ctx context.Context, path string) (Proof, error) {
	_, hash, _, ok := splitPath(path)
	if !ok {
		return Proof{}, fmt.Errorf("%q is no store path", path)
	}
	data, err := s.Open(ctx, string(hash[:])+".narinfo")
	if errors.Is(err, fs.ErrNotExist) {
		return Proof{}, ErrUnknown
	}
	if err != nil {
		return Proof{}, err
	}
	return s.Keys.Verify(data, path)
}

// maxNarinfo bounds a narinfo, in bytes. One with 1,000 references has 60 KiB.
const maxNarinfo = 1 << 20

// Verify reads a narinfo (Nix: binary cache specification) and returns what it says of the path, if one of the keys signed that.
// What is not signed, such as where the NAR is, is not read.
func (k Keys) Verify(narinfo []byte, path string) (Proof, error) {
	n, err := parseNarinfo(narinfo)
	if err != nil {
		return Proof{}, fmt.Errorf("read narinfo of %s: %w", path, err)
	}
	if n.path != path {
		return Proof{}, fmt.Errorf("read narinfo of %s: it is that of %.250q", path, n.path)
	}
	for _, sig := range n.signatures {
		name, raw, err := parseNamed(sig, ed25519.SignatureSize)
		if err != nil {
			return Proof{}, fmt.Errorf("read narinfo of %s: signature %.150q: %w", path, sig, err)
		}
		key, ok := k[name]
		if !ok {
			continue
		}
		if !ed25519.Verify(key, []byte(n.fingerprint()), raw) {
			return Proof{}, fmt.Errorf("the signature of %q on %s is wrong", name, path)
		}
		return Proof{NAR: n.nar, References: n.references, Source: "signature of " + name}, nil
	}
	return Proof{}, fmt.Errorf("no trusted key signed %s", path)
}

// narinfo is what is signed of a narinfo, and the signatures.
type narinfo struct {
	path       string
	nar        digest.SHA256
	size       uint64
	references []string // whole paths, sorted
	signatures []string
}

// fingerprint is what is signed.
func (n narinfo) fingerprint() string {
	return fmt.Sprintf("1;%s;%s;%d;%s", n.path, n.nar.Nix32(), n.size, strings.Join(n.references, ","))
}

// parseNarinfo reads the lines "KEY: VALUE". Keys that are used must be there once.
func parseNarinfo(data []byte) (narinfo, error) {
	if len(data) > maxNarinfo {
		return narinfo{}, fmt.Errorf("it has %d bytes, more than %d", len(data), maxNarinfo)
	}
	fields, signatures := map[string]string{}, []string(nil)
	for line := range bytes.Lines(data) {
		key, value, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), ": ")
		if !ok {
			if key, ok = strings.CutSuffix(key, ":"); !ok { // "References:" of a path that has none
				return narinfo{}, fmt.Errorf("line %.100q is not KEY: VALUE", line)
			}
		}
		if key == "Sig" {
			signatures = append(signatures, value)
			continue
		}
		switch key {
		case "StorePath", "NarHash", "NarSize", "References":
		default:
			continue
		}
		if _, twice := fields[key]; twice {
			return narinfo{}, fmt.Errorf("%q is there twice", key)
		}
		fields[key] = value
	}
	n := narinfo{path: fields["StorePath"], signatures: signatures, references: []string{}}
	store, _, _, ok := splitPath(n.path)
	if !ok {
		return narinfo{}, fmt.Errorf("StorePath is %.250q", n.path)
	}
	var err error
	if n.nar, err = digest.Parse(fields["NarHash"]); err != nil {
		return narinfo{}, err
	}
	if n.size, err = strconv.ParseUint(fields["NarSize"], 10, 63); err != nil {
		return narinfo{}, fmt.Errorf("NarSize is %.50q", fields["NarSize"])
	}
	for name := range strings.FieldsSeq(fields["References"]) {
		ref := store + "/" + name
		if _, _, _, ok := splitPath(ref); !ok {
			return narinfo{}, fmt.Errorf("reference %.250q is no store path", name)
		}
		n.references = append(n.references, ref)
	}
	slices.Sort(n.references)
	return n, nil
}
