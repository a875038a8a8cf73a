package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// Prefixes of sources that are not file paths.
const (
	credentialPrefix = "credential:"
	execPrefix       = "exec:"
)

// LoadOptions say what Load may ask and expect.
type LoadOptions struct {
	// Passphrase is asked for the passphrase of a key file encrypted with one. Nil: such a file is refused.
	Passphrase func(ctx context.Context, source string) (string, error)
	// AgeIdentities is the path of an age identity file, for a key file encrypted to a recipient. Empty: such a file is refused.
	AgeIdentities string
	// CredentialsDirectory is where "credential:NAME" looks. Empty: $CREDENTIALS_DIRECTORY, which systemd sets.
	CredentialsDirectory string
	// Public is the key that the source must hold. Zero: any; an external signer is then asked for it.
	Public PublicKey
	// Timeout bounds each run of an external signer. Zero: two minutes, since a person may have to touch a token.
	Timeout time.Duration
	// Stderr takes what an external signer writes there. Nil: it is discarded.
	Stderr io.Writer
}

// Load returns the signer that source names:
//
//   - "credential:NAME": the file NAME in the credentials directory of the systemd unit;
//   - "exec:COMMAND": an external signer, see External;
//   - anything else is the path of a key file. A plain one must belong to the caller or to root and give no
//     right to anyone else; an encrypted one may.
//
// Sources hold what Key.WriteFile writes, plain or age-encrypted. Symbolic links are followed.
func Load(ctx context.Context, source string, opts LoadOptions) (Signer, error) {
	signer, err := load(ctx, source, opts)
	if err == nil && !opts.Public.IsZero() && !signer.Public().Equal(opts.Public) {
		err = fmt.Errorf("it is the key of %s, not of %s", signer.Public().Short(), opts.Public.Short())
	}
	if err == nil {
		return signer, nil
	}
	if e, ok := errors.AsType[*KeyFileError](err); ok {
		return nil, e
	}
	return nil, &KeyFileError{Op: "read", Source: source, Err: err, hint: loadHint(err)}
}

func loadHint(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "arch key new makes a key"
	}
	return ""
}

func load(ctx context.Context, source string, opts LoadOptions) (Signer, error) {
	if command, ok := strings.CutPrefix(source, execPrefix); ok {
		return newExternal(ctx, command, opts)
	}
	if name, ok := strings.CutPrefix(source, credentialPrefix); ok {
		path, err := credentialPath(name, opts.CredentialsDirectory)
		if err != nil {
			return nil, err
		}
		// No check of its mode: systemd guards the directory, and gives the file to the unit's user by an ACL.
		data, _, err := readKeyFile(path)
		if err != nil {
			return nil, err
		}
		return parseKeyFile(ctx, source, data, opts)
	}
	data, info, err := readKeyFile(source)
	if err != nil {
		return nil, err
	}
	if !isAge(data) {
		if err := checkPrivate(source, info); err != nil {
			return nil, err
		}
	}
	return parseKeyFile(ctx, source, data, opts)
}

// credentialPath finds a systemd credential (systemd.exec(5), LoadCredential=).
func credentialPath(name, dir string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("%q is no name of a credential", shorten(name))
	}
	if dir == "" {
		dir = os.Getenv("CREDENTIALS_DIRECTORY")
	}
	if !filepath.IsAbs(dir) {
		return "", &KeyFileError{
			Op: "read", Source: credentialPrefix + name, Err: errors.New("no credentials directory"),
			hint: "systemd sets $CREDENTIALS_DIRECTORY for a unit with LoadCredential= or LoadCredentialEncrypted=",
		}
	}
	return filepath.Join(dir, name), nil
}

// readKeyFile reads a regular file; it does not wait for a FIFO.
func readKeyFile(path string) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("it is not a regular file")
	}
	data, err := readBounded(f, maxKeyFile)
	return data, info, err
}

// checkPrivate refuses a plain key file that others could have read or written.
func checkPrivate(path string, info fs.FileInfo) error {
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return &KeyFileError{
			Op: "read", Source: path, Err: fmt.Errorf("its mode %04o lets others read or write it", perm),
			hint: "chmod 600 " + path + ", and make a new key if someone else may have seen this one",
		}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return &KeyFileError{
			Op: "read", Source: path, Err: fmt.Errorf("it belongs to user %d", st.Uid),
			hint: "a key file belongs to whoever uses it, or to root",
		}
	}
	return nil
}

const agePrefix = "age-encryption.org/v1\n"

func isAge(data []byte) bool {
	return bytes.HasPrefix(data, []byte(agePrefix)) || bytes.HasPrefix(bytes.TrimSpace(data), []byte(armor.Header))
}

// parseKeyFile decrypts if it must, and parses.
func parseKeyFile(ctx context.Context, source string, data []byte, opts LoadOptions) (*Key, error) {
	if !isAge(data) {
		return parseText(data)
	}
	var in io.Reader = bytes.NewReader(data)
	if !bytes.HasPrefix(data, []byte(agePrefix)) {
		in = armor.NewReader(in)
	}
	identities, err := opts.ageIdentities(ctx, source)
	if err != nil {
		return nil, err
	}
	plain, err := age.Decrypt(in, identities...)
	if err != nil {
		return nil, decryptError(source, err)
	}
	text, err := readBounded(plain, maxKeyFile)
	if err != nil {
		return nil, errors.New("the encrypted file is damaged")
	}
	return parseText(text)
}

// ageIdentities returns everything we could decrypt with. The passphrase is only asked for if the file has one.
func (o LoadOptions) ageIdentities(ctx context.Context, source string) ([]age.Identity, error) {
	identities := []age.Identity{&passphraseIdentity{ctx, source, o.Passphrase}}
	if o.AgeIdentities == "" {
		return identities, nil
	}
	data, info, err := readKeyFile(o.AgeIdentities)
	if err == nil {
		err = checkPrivate(o.AgeIdentities, info)
	}
	if err != nil {
		return nil, fmt.Errorf("age identities: %w", err)
	}
	more, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("age identities: %s is not an age identity file", o.AgeIdentities) // the cause may quote a key
	}
	return append(identities, more...), nil
}

// passphraseIdentity asks for the passphrase when there is something it opens.
type passphraseIdentity struct {
	ctx    context.Context
	source string
	ask    func(ctx context.Context, source string) (string, error)
}

// maxWorkFactor bounds what a file can make us compute and allocate: 2^20 takes a gigabyte and a few seconds.
const maxWorkFactor = 20

var errNoPassphrase = errors.New("it is encrypted with a passphrase, and there is no one to ask for it")

// Unwrap implements age.Identity.
func (i *passphraseIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 || stanzas[0].Type != "scrypt" {
		return nil, age.ErrIncorrectIdentity
	}
	if i.ask == nil {
		return nil, errNoPassphrase
	}
	passphrase, err := i.ask(i.ctx, i.source)
	if err != nil {
		return nil, fmt.Errorf("ask for the passphrase: %w", err)
	}
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, errors.New("the passphrase is empty")
	}
	id.SetMaxWorkFactor(maxWorkFactor)
	return id.Unwrap(stanzas)
}

func decryptError(source string, err error) error {
	e := &KeyFileError{Op: "read", Source: source, Err: fmt.Errorf("decrypt: %w", err)}
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		e.Err = errors.New("decrypt: neither the passphrase nor the age identities given open it")
		e.hint = "give the age identity file that it is encrypted to, or the right passphrase"
	}
	if errors.Is(err, errNoPassphrase) {
		e.Err = errNoPassphrase
		e.hint = "run on a terminal, or encrypt the key to an age identity or as a systemd credential"
	}
	return e
}
