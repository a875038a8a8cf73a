package notekey_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/notekey"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

func generate(t testing.TB, name string, seed byte) *notekey.Keys {
	t.Helper()
	k, err := notekey.Generate(name, bytes.NewReader(bytes.Repeat([]byte{seed}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What the keys sign, the libraries of the specification's authors verify by the printed names.
func TestKeys(t *testing.T) {
	k := generate(t, "node.example/ledger", 7)
	c := ledger.EmptyTree("node.example/ledger")
	signers, err := k.LogSigners()
	if err != nil {
		t.Fatal(err)
	}
	cosigners, err := k.WitnessSigners()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: c.String()}, append(signers, cosigners[0])...)
	if err != nil {
		t.Fatal(err)
	}
	var verifiers []note.Verifier
	ed, err := note.NewVerifier(k.LogVKeys()[0])
	if err != nil {
		t.Fatal(err)
	}
	verifiers = append(verifiers, ed)
	for _, vkey := range k.WitnessVKeys() {
		v, err := fnote.NewVerifierForCosignatureV1(vkey)
		if err != nil {
			t.Fatal(err)
		}
		verifiers = append(verifiers, v)
	}
	n, err := note.Open(signed, note.VerifierList(verifiers...))
	if err != nil || len(n.Sigs) != 3 || len(n.UnverifiedSigs) != 0 {
		t.Errorf("%+v, %v", n, err)
	}
	p, err := ledger.ParsePolicy(k.LogPolicy())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Open(signed); err != nil {
		t.Error(err)
	}
}

func TestGenerateRefuses(t *testing.T) {
	for _, name := range []string{"", "a b", "a+b", "a\n", "a\x00", "\xff", strings.Repeat("a", 256)} {
		if _, err := notekey.Generate(name, bytes.NewReader(make([]byte, 64))); err == nil {
			t.Errorf("keys were made for %q", name)
		}
	}
	if _, err := notekey.Generate("a", bytes.NewReader(make([]byte, 63))); err == nil {
		t.Error("keys were made of too little randomness")
	}
}

func TestFile(t *testing.T) {
	k := generate(t, "node.example/ledger", 7)
	path := filepath.Join(t.TempDir(), "key")
	if err := k.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	back, err := notekey.Load(path)
	if err != nil || string(back.LogPolicy()) != string(k.LogPolicy()) {
		t.Errorf("%v, %v", back, err)
	}
	if err := generate(t, "x", 1).WriteFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key file was overwritten: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := notekey.Load(path); err == nil || !strings.Contains(err.Error(), "mode 0644") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if _, err := notekey.Load(bad); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

// text returns what a key file holds.
func text(t testing.TB, k *notekey.Keys) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := k.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A key file in which any character changed is refused, and no message holds what was in it.
func TestParseRefuses(t *testing.T) {
	good := text(t, generate(t, "n", 7))
	secret := strings.Fields(string(good[bytes.IndexByte(good, '\n'):]))[0]
	for i := bytes.IndexByte(good, '\n') + 1; i < len(good)-1; i++ {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		_, err := notekey.Parse(bad)
		if err == nil {
			t.Fatalf("byte %d changed, and it was read", i)
		}
		if strings.Contains(err.Error(), secret[len(secret)-20:]) {
			t.Fatalf("%v holds the key", err)
		}
	}
	other := bytes.Split(text(t, generate(t, "m", 7)), []byte("\n"))
	lines := bytes.Split(good, []byte("\n"))
	mixed := bytes.Join([][]byte{lines[1], other[2]}, []byte("\n"))
	if _, err := notekey.Parse(mixed); err == nil || !strings.Contains(err.Error(), "two names") {
		t.Errorf("keys of two names: %v", err)
	}
}

// However keys are printed, only their name shows.
func TestKeysAreNotPrinted(t *testing.T) {
	k := generate(t, "n", 'S')
	data, err := json.Marshal(map[string]any{"k": k, "v": *k})
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %q %x %d %v", k, k, k, k, k, k, k, *k) + string(data) + k.LogValue().String()
	for _, part := range []string{"SSSS", "5353", "83 83", "U1NT"} {
		if strings.Contains(shown, part) {
			t.Errorf("%s shows the key", shown)
		}
	}
	if !strings.Contains(shown, "private keys of n") {
		t.Error(shown)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(text(f, generate(f, "n", 7)))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := notekey.Parse(data)
		if err != nil {
			return
		}
		if back, err := notekey.Parse(text(t, k)); err != nil || string(back.LogPolicy()) != string(k.LogPolicy()) {
			t.Error(err)
		}
	})
}
