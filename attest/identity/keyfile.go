package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"arch.network/attest/ledger/durable"
)

// The key file, version 1, is UTF-8 text. Empty lines and lines that begin with "#" are remarks. Exactly one line is left:
//
//	ARCH-SECRET-KEY-1 ALGORITHM BASE64
//
// ALGORITHM is ed25519, ecdsa-p256 or ml-dsa-65. BASE64 (standard alphabet, 48 characters) holds the 32 bytes of the
// key (see secretSize) and a checksum, the first 4 bytes of SHA-256 of "ARCH-SECRET-KEY-1 ALGORITHM " and these 32 bytes:
// without it a mistyped key would be a valid key of somebody new.
//
// An encrypted key file is this text as an age file (age-encryption.org/v1), binary or armoured.
const (
	keyFileMagic = "ARCH-SECRET-KEY-1"
	checksumSize = 4

	// maxKeyFile is the size in bytes of the largest key file we read, encrypted or not.
	maxKeyFile = 16 << 10
)

// KeyFileError says why a private key cannot be read from, or written to, a source. It never holds any of the key.
type KeyFileError struct {
	Op     string // "read" or "write"
	Source string // as given to Load or WriteFile
	Err    error
	hint   string
}

func (e *KeyFileError) Error() string { return fmt.Sprintf("%s key %s: %v", e.Op, e.Source, e.Err) }

// Unwrap returns the cause.
func (e *KeyFileError) Unwrap() error { return e.Err }

// Hint returns the way out, or "".
func (e *KeyFileError) Hint() string { return e.hint }

// WriteOptions say how WriteFile protects a key. The zero value writes plain text that only its owner may read.
type WriteOptions struct {
	// Passphrase encrypts the file with age's scrypt recipient. Empty: no passphrase.
	Passphrase string
	// WorkFactor is log2 of scrypt's cost for Passphrase. Zero: age's default, which takes about a second.
	WorkFactor int
	// Recipients encrypt the file to age public keys ("age1…"). Passphrase and Recipients exclude each other.
	Recipients []string
}

// WriteFile writes the key to a new file with mode 0600, and whatever directories it lacks with 0700. A file that
// exists is never replaced: the error then is fs.ErrExist. The file appears complete or not at all.
func (k *Key) WriteFile(path string, opts WriteOptions) error {
	content, err := k.encodeFile(opts)
	if err == nil {
		err = writeNew(path, content)
	}
	if err == nil {
		return nil
	}
	e := &KeyFileError{Op: "write", Source: path, Err: err}
	if errors.Is(err, fs.ErrExist) {
		e.hint = "a key file is never overwritten; choose another path, or move the old one away"
	}
	return e
}

// encodeFile returns the content of the key's file.
func (k *Key) encodeFile(opts WriteOptions) ([]byte, error) {
	text := k.encodeText()
	recipients, err := opts.recipients()
	if err != nil || len(recipients) == 0 {
		return text, err
	}
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, recipients...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := a.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (o WriteOptions) recipients() ([]age.Recipient, error) {
	switch {
	case o.Passphrase == "" && len(o.Recipients) == 0:
		return nil, nil
	case o.Passphrase != "" && len(o.Recipients) > 0:
		return nil, errors.New("encrypt to a passphrase or to recipients, not both")
	case o.Passphrase != "":
		r, err := age.NewScryptRecipient(o.Passphrase)
		if err != nil {
			return nil, err
		}
		if o.WorkFactor != 0 {
			r.SetWorkFactor(o.WorkFactor)
		}
		return []age.Recipient{r}, nil
	}
	return age.ParseRecipients(strings.NewReader(strings.Join(o.Recipients, "\n")))
}

// encodeText returns the plain form of the key file.
func (k *Key) encodeText() []byte {
	alg, secret := k.public.Algorithm(), k.secret()
	data := append(append([]byte(nil), secret...), keyChecksum(alg, secret)...)
	var b bytes.Buffer
	fmt.Fprintf(&b, "# This is a private key: whoever has it can sign as its owner.\n# public key: %s\n", k.public)
	fmt.Fprintf(&b, "%s %s %s\n", keyFileMagic, alg, base64.StdEncoding.EncodeToString(data))
	return b.Bytes()
}

func keyChecksum(alg Algorithm, secret []byte) []byte {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s ", keyFileMagic, alg)
	h.Write(secret)
	return h.Sum(nil)[:checksumSize]
}

// parseText reads the plain form. Its errors name lines, never what is in them.
func parseText(text []byte) (*Key, error) {
	var key *Key
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if key != nil {
			return nil, fmt.Errorf("line %d: a second key; a file holds one", n)
		}
		var err error
		if key, err = parseKeyLine(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if key == nil {
		return nil, fmt.Errorf("no line begins with %s", keyFileMagic)
	}
	return key, nil
}

func parseKeyLine(line []byte) (*Key, error) {
	f := strings.Split(string(line), " ")
	if len(f) != 3 || f[0] != keyFileMagic {
		return nil, fmt.Errorf("it is not %q, an algorithm and the key", keyFileMagic)
	}
	alg := Algorithm(f[1])
	if alg != Ed25519 && alg != ECDSAP256 && alg != MLDSA65 {
		return nil, fmt.Errorf("its algorithm is none of %s, %s and %s", Ed25519, ECDSAP256, MLDSA65)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(f[2])
	if err != nil || len(data) != secretSize+checksumSize {
		return nil, fmt.Errorf("the key is not the base64 of %d bytes", secretSize+checksumSize)
	}
	secret, sum := data[:secretSize:secretSize], data[secretSize:]
	if !bytes.Equal(sum, keyChecksum(alg, secret)) {
		return nil, errors.New("the checksum of the key does not match; it was damaged or mistyped")
	}
	return newKey(alg, secret)
}

// writeNew creates path with the content, atomically and durably.
func writeNew(path string, content []byte) error {
	if err := durable.MakeDir(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.CreateFile(path, content, 0o600)
}

// readBounded reads all of r, which must not be longer than most bytes.
func readBounded(r io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("more than %d bytes", most)
	}
	return data, nil
}
