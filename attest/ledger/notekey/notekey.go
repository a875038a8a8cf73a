// Package notekey holds the private keys with which a log signs its checkpoints and a witness cosigns those of others: always a pair, Ed25519
// and ML-DSA-44, under one name (C2SP signed-note, tlog-cosignature). They are other keys than those that sign documents, so that neither can be
// made to sign for the other.
//
// It promises that printing a Keys in any way shows its name only. It never overwrites a key file, and never reads one that others may.
package notekey

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"unicode"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"

	"filippo.io/mldsa"
	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// The signature types of C2SP signed-note that are used here.
const (
	typeEd25519     = 0x01
	typeCosignature = 0x04
	typeMLDSA44     = 0x06
)

const (
	seedSize   = 32 // bytes of both private keys (RFC 8032, FIPS 204)
	maxKeyFile = 4 << 10
)

// Keys is the pair of private keys of a log or of a witness.
type Keys struct {
	name string
	seed func() [2][]byte // of Ed25519 and of ML-DSA-44; a closure, because no printer looks into one
}

// Generate makes the keys for a name, an origin of a log or the name of a witness, such as "node7.example.org/ledger", from random.
func Generate(name string, random io.Reader) (*Keys, error) {
	var seeds [2][]byte
	for i := range seeds {
		seeds[i] = make([]byte, seedSize)
		if _, err := io.ReadFull(random, seeds[i]); err != nil {
			return nil, fmt.Errorf("generate keys of %q: read randomness: %w", name, err)
		}
	}
	return newKeys(name, seeds)
}

func newKeys(name string, seeds [2][]byte) (*Keys, error) {
	bad := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == '+' }
	if name == "" || len(name) > ledger.MaxOrigin || strings.ToValidUTF8(name, "") != name || strings.ContainsFunc(name, bad) {
		return nil, fmt.Errorf("make keys of %q: a name has 1 to %d bytes, without spaces and plus signs", name, ledger.MaxOrigin)
	}
	return &Keys{name: name, seed: func() [2][]byte { return seeds }}, nil
}

// Name returns the name.
func (k *Keys) Name() string { return k.name }

// LogSigners returns what signs the checkpoints of the log that has this name as its origin: Ed25519 and then ML-DSA-44.
func (k *Keys) LogSigners() ([]note.Signer, error) {
	ed, err := note.NewSigner(k.secret(typeEd25519))
	if err != nil {
		return nil, err
	}
	pq, err := fnote.NewMLDSASigner(k.secret(typeMLDSA44))
	if err != nil {
		return nil, err
	}
	return []note.Signer{ed, pq}, nil
}

// WitnessSigners returns what cosigns the checkpoints of other logs, with the time.
func (k *Keys) WitnessSigners() ([]note.Signer, error) {
	ed, err := fnote.NewSignerForCosignatureV1(k.secret(typeEd25519))
	if err != nil {
		return nil, err
	}
	pq, err := fnote.NewMLDSASigner(k.secret(typeMLDSA44))
	if err != nil {
		return nil, err
	}
	return []note.Signer{ed, pq}, nil
}

// LogVKeys returns the verifier keys of the log: NAME+HASH+BASE64.
func (k *Keys) LogVKeys() []string {
	return []string{k.vkey(typeEd25519), k.vkey(typeMLDSA44)}
}

// WitnessVKeys returns the verifier keys of the witness.
func (k *Keys) WitnessVKeys() []string {
	return []string{k.vkey(typeCosignature), k.vkey(typeMLDSA44)}
}

// LogPolicy returns a policy that knows the log and asks for no witness, in the form that ledger.ParsePolicy reads.
func (k *Keys) LogPolicy() []byte {
	var b bytes.Buffer
	for _, v := range k.LogVKeys() {
		fmt.Fprintf(&b, "log %s\n", v)
	}
	b.WriteString("quorum none\n")
	return b.Bytes()
}

func (k *Keys) vkey(kind byte) string {
	public := append([]byte{kind}, k.public(kind)...)
	return fmt.Sprintf("%s+%08x+%s", k.name, keyHash(k.name, public), base64.StdEncoding.EncodeToString(public))
}

func (k *Keys) public(kind byte) []byte {
	seeds := k.seed()
	if kind == typeMLDSA44 {
		private, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), seeds[1])
		if err != nil {
			panic(err) // every 32 bytes are a key
		}
		return private.PublicKey().Bytes()
	}
	return ed25519.NewKeyFromSeed(seeds[0]).Public().(ed25519.PublicKey)
}

func (k *Keys) secret(kind byte) string {
	seeds := k.seed()
	secret := seeds[0]
	if kind == typeMLDSA44 {
		secret = seeds[1]
	}
	hash := keyHash(k.name, append([]byte{kind}, k.public(kind)...))
	return fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", k.name, hash, base64.StdEncoding.EncodeToString(append([]byte{kind}, secret...)))
}

// keyHash returns the key ID of C2SP signed-note.
func keyHash(name string, public []byte) []byte {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write(public)
	return h.Sum(nil)[:4]
}

// Parse reads the text of a key file: two lines as golang.org/x/mod/sumdb/note writes private keys, Ed25519 and then ML-DSA-44, of one name.
// Lines that begin with "#" are remarks. Errors never hold any of the keys.
func Parse(text []byte) (*Keys, error) {
	var lines []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	if len(lines) != 2 {
		return nil, errors.New("read keys: want two lines, an Ed25519 and an ML-DSA-44 key")
	}
	var seeds [2][]byte
	var names [2]string
	for i, kind := range []byte{typeEd25519, typeMLDSA44} {
		rest, ok := strings.CutPrefix(lines[i], "PRIVATE+KEY+")
		name, rest, ok2 := strings.Cut(rest, "+")
		_, encoded, ok3 := strings.Cut(rest, "+")
		data, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if !ok || !ok2 || !ok3 || err != nil || len(data) != 1+seedSize || data[0] != kind {
			return nil, fmt.Errorf("read keys: key %d is not PRIVATE+KEY+NAME+HASH+KEY of type %#02x", i+1, kind)
		}
		names[i], seeds[i] = name, data[1:]
	}
	if names[0] != names[1] {
		return nil, fmt.Errorf("read keys: they have two names, %q and %q", names[0], names[1])
	}
	k, err := newKeys(names[0], seeds)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	for i, kind := range []byte{typeEd25519, typeMLDSA44} {
		if k.secret(kind) != lines[i] { // the hash is the checksum
			return nil, fmt.Errorf("read keys: key %d is damaged: its hash is of another key", i+1)
		}
	}
	return k, nil
}

// FileError says why a key file cannot be read or written.
type FileError struct {
	Path string
	Err  error
	hint string
}

func (e *FileError) Error() string { return fmt.Sprintf("keys in %s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// Hint returns the way out, or "".
func (e *FileError) Hint() string { return e.hint }

// Load reads a key file that only its owner may read.
func Load(path string) (*Keys, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, &FileError{Path: path, Err: err, hint: "arch ledger keys --new FILE --name ORIGIN makes keys"}
	case !info.Mode().IsRegular():
		return nil, &FileError{Path: path, Err: errors.New("it is not a regular file")}
	case info.Mode().Perm()&0o077 != 0:
		return nil, &FileError{Path: path, Err: fmt.Errorf("its mode %04o lets others read or write it", info.Mode().Perm()), hint: "chmod 600 " + path}
	}
	data, err := durable.ReadFile(path, maxKeyFile)
	if err != nil {
		return nil, &FileError{Path: path, Err: err}
	}
	k, err := Parse(data)
	if err != nil {
		return nil, &FileError{Path: path, Err: err}
	}
	return k, nil
}

// WriteFile writes the keys to a new file with mode 0600. A file that exists is never replaced: the error then is fs.ErrExist.
func (k *Keys) WriteFile(path string) error {
	text := fmt.Sprintf("# These are private keys: whoever has them can sign as %s.\n%s\n%s\n", k.name, k.secret(typeEd25519), k.secret(typeMLDSA44))
	err := durable.CreateFile(path, []byte(text), 0o600)
	if err == nil {
		return nil
	}
	e := &FileError{Path: path, Err: err}
	if errors.Is(err, fs.ErrExist) {
		e.hint = "a key file is never overwritten; choose another path, or move the old one away"
	}
	return e
}

// String names the keys.
func (k Keys) String() string { return "private keys of " + k.name }

// GoString names the keys.
func (k Keys) GoString() string { return k.String() }

// Format names the keys, whatever the verb.
func (k Keys) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// LogValue names the keys.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText names the keys, for any encoder that asks.
func (k Keys) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
