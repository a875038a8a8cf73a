package identity

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/google/go-cmp/cmp"
)

func passphrase(p string) func(context.Context, string) (string, error) {
	return func(context.Context, string) (string, error) { return p, nil }
}

const cheap = 10 // scrypt work factor for tests

// TestFileFormat pins version 1 of the format.
func TestFileFormat(t *testing.T) {
	want := `# This is a private key: whoever has it can sign as its owner.
# public key: did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG
ARCH-SECRET-KEY-1 ed25519 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAF0OOD9
`
	if diff := cmp.Diff(want, string(mustKey(t, Ed25519, 1).encodeText())); diff != "" {
		t.Errorf("key file (-want +got):\n%s", diff)
	}
}

func TestKeyFileRoundTrip(t *testing.T) {
	ageKey, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	ageFile := filepath.Join(t.TempDir(), "age.txt")
	if err := os.WriteFile(ageFile, []byte("# remark\n"+ageKey.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		write WriteOptions
		load  LoadOptions
		plain bool
	}{
		{"plain", WriteOptions{}, LoadOptions{}, true},
		{"passphrase", WriteOptions{Passphrase: "correct horse", WorkFactor: cheap}, LoadOptions{Passphrase: passphrase("correct horse")}, false},
		{"recipient", WriteOptions{Recipients: []string{ageKey.Recipient().String()}}, LoadOptions{AgeIdentities: ageFile}, false},
		{"recipient and a useless passphrase", WriteOptions{Recipients: []string{ageKey.Recipient().String()}}, LoadOptions{AgeIdentities: ageFile, Passphrase: passphrase("x")}, false},
	} {
		for _, alg := range algorithms {
			t.Run(c.name+" "+string(alg), func(t *testing.T) {
				k := mustKey(t, alg, 6)
				path := filepath.Join(t.TempDir(), "new", "dir", "key")
				if err := k.WriteFile(path, c.write); err != nil {
					t.Fatal(err)
				}
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode() != 0o600 {
					t.Errorf("mode %v", info.Mode())
				}
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if plain := bytes.Contains(content, []byte(keyFileMagic)); plain != c.plain {
					t.Errorf("plain text: %v", plain)
				}
				c.load.Public = k.Public()
				s, err := Load(t.Context(), path, c.load)
				if err != nil {
					t.Fatal(err)
				}
				if err := k.Public().Verify([]byte("m"), mustSign(t, s, []byte("m"))); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff([]string{"key"}, names(t, filepath.Dir(path))); diff != "" {
					t.Errorf("files (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteFileNeverOverwrites(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(path string) error
	}{
		{"file", func(p string) error { return os.WriteFile(p, []byte("precious"), 0o644) }},
		{"dangling link", func(p string) error { return os.Symlink("nowhere", p) }},
		{"directory", func(p string) error { return os.Mkdir(p, 0o755) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "key")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			err := mustKey(t, Ed25519, 1).WriteFile(path, WriteOptions{})
			if !errors.Is(err, fs.ErrExist) {
				t.Fatalf("error %v", err)
			}
			if hint := err.(*KeyFileError).Hint(); !strings.Contains(hint, "never overwritten") {
				t.Errorf("hint %q", hint)
			}
			if diff := cmp.Diff([]string{"key"}, names(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if data, err := os.ReadFile(path); err == nil && string(data) != "precious" {
				t.Errorf("content %q", data)
			}
		})
	}
}

func TestWriteFileOptions(t *testing.T) {
	for _, c := range []struct {
		name string
		opts WriteOptions
		want string
	}{
		{"both", WriteOptions{Passphrase: "a", Recipients: []string{"age1x"}}, "encrypt to a passphrase or to recipients, not both"},
		{"bad recipient", WriteOptions{Recipients: []string{"age1x"}}, "malformed recipient"},
	} {
		dir := t.TempDir()
		err := mustKey(t, Ed25519, 1).WriteFile(filepath.Join(dir, "key"), c.opts)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if left := names(t, dir); left != nil {
			t.Errorf("%s: left %v", c.name, left)
		}
	}
}

// TestLoadRefuses also searches every error for the secret.
func TestLoadRefuses(t *testing.T) {
	k, err := newKey(Ed25519, []byte("\x81\x92\xa3\xb4\xc5\xd6\xe7\xf8\x19\x2a\x3b\x4c\x5d\x6e\x7f\x80\x91\xa2\xb3\xc4\xd5\xe6\xf7\x08\x29\x3a\x4b\x5c\x6d\x7e\x8f\x90"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(k.encodeText())
	line := text[strings.Index(text, keyFileMagic):]
	b64 := strings.Fields(line)[2]
	encrypted, err := k.encodeFile(WriteOptions{Passphrase: "right", WorkFactor: cheap})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, content string
		mode          fs.FileMode
		opts          LoadOptions
		want          string
	}{
		{"readable by the group", text, 0o640, LoadOptions{}, "its mode 0640 lets others read or write it"},
		{"writable by others", text, 0o602, LoadOptions{}, "its mode 0602 lets others read or write it"},
		{"empty", "", 0o600, LoadOptions{}, "no line begins with ARCH-SECRET-KEY-1"},
		{"remarks only", "# " + line, 0o600, LoadOptions{}, "no line begins with ARCH-SECRET-KEY-1"},
		{"two keys", line + line, 0o600, LoadOptions{}, "line 2: a second key; a file holds one"},
		{"damaged", strings.Replace(line, b64[:4], "AAAA", 1), 0o600, LoadOptions{}, "line 1: the checksum of the key does not match; it was damaged or mistyped"},
		{"other algorithm", strings.Replace(line, "ed25519", "ml-dsa-65", 1), 0o600, LoadOptions{}, "line 1: the checksum of the key does not match; it was damaged or mistyped"},
		{"algorithm without file", strings.Replace(line, "ed25519", "openpgp", 1), 0o600, LoadOptions{}, "line 1: its algorithm is none of ed25519, ecdsa-p256 and ml-dsa-65"},
		{"short", strings.Replace(line, b64, b64[:44], 1), 0o600, LoadOptions{}, "line 1: the key is not the base64 of 36 bytes"},
		{"not base64", strings.Replace(line, b64, b64[:47]+"*", 1), 0o600, LoadOptions{}, "line 1: the key is not the base64 of 36 bytes"},
		{"key in a broken line", "ARCH-SECRET-KEY-1" + b64, 0o600, LoadOptions{}, `line 1: it is not "ARCH-SECRET-KEY-1", an algorithm and the key`},
		{"bare secret", b64, 0o600, LoadOptions{}, `line 1: it is not "ARCH-SECRET-KEY-1", an algorithm and the key`},
		{"key as algorithm", "ARCH-SECRET-KEY-1 " + b64 + " x", 0o600, LoadOptions{}, "line 1: its algorithm is none of ed25519, ecdsa-p256 and ml-dsa-65"},
		{"too large", text + strings.Repeat("#\n", maxKeyFile), 0o600, LoadOptions{}, "more than 16384 bytes"},
		{
			"another key than expected", text, 0o600,
			LoadOptions{Public: mustKey(t, Ed25519, 1).Public()},
			"it is the key of " + k.Public().Short() + ", not of " + mustKey(t, Ed25519, 1).Public().Short(),
		},
		{"no one to ask", string(encrypted), 0o644, LoadOptions{}, "it is encrypted with a passphrase, and there is no one to ask for it"},
		{"wrong passphrase", string(encrypted), 0o644, LoadOptions{Passphrase: passphrase("wrong")}, "decrypt: neither the passphrase nor the age identities given open it"},
		{"damaged age file", string(encrypted[:len(encrypted)-80]), 0o644, LoadOptions{Passphrase: passphrase("right")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			s, err := Load(t.Context(), path, c.opts)
			if err == nil {
				t.Fatalf("loaded %v", s)
			}
			e := err.(*KeyFileError)
			if diff := cmp.Diff(c.want, e.Err.Error()); c.want != "" && diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if leaks(k.secret(), err.Error()+e.Hint()) || strings.Contains(err.Error(), b64[:16]) {
				t.Errorf("the error holds the key: %v", err)
			}
		})
	}
}

func TestLoadSources(t *testing.T) {
	dir := t.TempDir()
	k := mustKey(t, Ed25519, 1)
	if err := os.WriteFile(filepath.Join(dir, "signing-key"), k.encodeText(), 0o440); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, source, dir, want string }{
		{"credential", "credential:signing-key", dir, ""},
		{"credential outside", "credential:../x", dir, `read key credential:../x: "../x" is no name of a credential`},
		{"credential without name", "credential:", dir, `read key credential:: "" is no name of a credential`},
		{"no directory", "credential:signing-key", "", "read key credential:signing-key: no credentials directory"},
		{"relative directory", "credential:signing-key", "creds", "read key credential:signing-key: no credentials directory"},
		{"missing", filepath.Join(dir, "none"), "", "read key " + dir + "/none: open " + dir + "/none: no such file or directory"},
		{"directory", dir, "", "read key " + dir + ": it is not a regular file"},
		{"fifo", fifo, "", "read key " + fifo + ": it is not a regular file"},
		{"no command", "exec: ", "", `read key exec: : no command after "exec:"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("CREDENTIALS_DIRECTORY", c.dir)
			s, err := Load(t.Context(), c.source, LoadOptions{})
			got := ""
			if err != nil {
				got = err.Error()
			} else if !s.Public().Equal(k.Public()) {
				t.Errorf("another key: %v", s)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadRefusesAnothersFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cannot run here: giving a file to another user takes root")
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := mustKey(t, Ed25519, 1).WriteFile(path, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 12345, 12345); err != nil {
		t.Skip("cannot run here: ", err)
	}
	_, err := Load(t.Context(), path, LoadOptions{})
	if err == nil || !strings.Contains(err.Error(), "it belongs to user 12345") {
		t.Errorf("error %v", err)
	}
}

// TestEncryptedFileMayAskForTooMuch gives a file whose scrypt cost would take gigabytes.
func TestEncryptedFileMayAskForTooMuch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := mustKey(t, Ed25519, 1).WriteFile(path, WriteOptions{Passphrase: "p", WorkFactor: cheap}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(armor.NewReader(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	header, rest, _ := bytes.Cut(raw, []byte("\n---"))
	header = bytes.Replace(header, []byte(" 10\n"), []byte(" 30\n"), 1)
	if err := os.WriteFile(path, append(append(header, "\n---"...), rest...), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Load(t.Context(), path, LoadOptions{Passphrase: passphrase("p")})
	if err == nil || !strings.Contains(err.Error(), "work factor") {
		t.Errorf("error %v", err)
	}
}

func FuzzKeyFile(f *testing.F) {
	for _, alg := range algorithms {
		f.Add(mustKey(f, alg, 3).encodeText())
	}
	f.Add([]byte("ARCH-SECRET-KEY-1 ed25519 "))
	f.Add([]byte("# only a remark"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > maxKeyFile {
			return
		}
		k, err := parseText(text)
		if err != nil {
			if len(err.Error()) > 200 {
				t.Fatalf("error of %d bytes", len(err.Error()))
			}
			return
		}
		again, err := parseText(k.encodeText())
		if err != nil || !again.Public().Equal(k.Public()) {
			t.Fatalf("written and read again: %v", err)
		}
	})
}
