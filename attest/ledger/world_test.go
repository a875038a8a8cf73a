package ledger_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"arch.network/attest/ledger"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// flatLog is a log as golang.org/x/mod keeps one: all hashes in one list. Tiles are made from it as C2SP tlog-tiles says.
type flatLog struct {
	entries [][]byte
	hashes  []tlog.Hash
}

func newLog(t testing.TB, size int) *flatLog {
	t.Helper()
	l := &flatLog{}
	for i := range size {
		entry := fmt.Appendf(nil, "entry %d", i)
		more, err := tlog.StoredHashes(int64(i), entry, l)
		if err != nil {
			t.Fatal(err)
		}
		l.entries, l.hashes = append(l.entries, entry), append(l.hashes, more...)
	}
	return l
}

// ReadHashes implements tlog.HashReader.
func (l *flatLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *flatLog) checkpoint(t testing.TB, size int) ledger.Checkpoint {
	t.Helper()
	root, err := tlog.TreeHash(int64(size), l)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.Checkpoint{Origin: "log.example/test", Size: int64(size), Root: root}
}

// tiles returns a TileReader of the log, which passes each tile through change.
func (l *flatLog) tiles(change func(path string, data []byte) []byte) tileFunc {
	return func(path string) ([]byte, error) {
		tile, _, err := ledger.ParsePath(path)
		if err != nil || tile == nil {
			return nil, fmt.Errorf("%q is no tile: %v", path, err)
		}
		var data []byte
		for i := range int64(tile.Width) {
			at := tlog.StoredHashIndex(tile.Level*8, tile.Number*256+i)
			if at >= int64(len(l.hashes)) {
				return nil, os.ErrNotExist
			}
			data = append(data, l.hashes[at][:]...)
		}
		if change != nil {
			data = change(path, data)
		}
		return data, nil
	}
}

type tileFunc func(path string) ([]byte, error)

func (f tileFunc) ReadTile(_ context.Context, path string) ([]byte, error) { return f(path) }

// signer is a key of a log or a witness.
type signer struct {
	note.Signer
	vkey string
}

// ed25519Key makes the key of a log from one byte.
func ed25519Key(t testing.TB, name string, seed byte) signer {
	t.Helper()
	skey, vkey := ed25519Keys(t, name, seed)
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, vkey}
}

func ed25519Keys(t testing.TB, name string, seed byte) (skey, vkey string) {
	t.Helper()
	private := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize)))
	vkey, err := note.NewEd25519VerifierKey(name, private.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.Split(vkey, "+")[1]
	return "PRIVATE+KEY+" + name + "+" + hash + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, private.Seed()...)), vkey
}

// witnessKey makes the Ed25519 key of a witness from one byte.
func witnessKey(t testing.TB, name string, seed byte) signer {
	t.Helper()
	skey, vkey := ed25519Keys(t, name, seed)
	s, err := fnote.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, vkey}
}

// mldsaKey makes an ML-DSA-44 key.
func mldsaKey(t testing.TB, name string) signer {
	t.Helper()
	skey, vkey, err := fnote.GenerateMLDSAKey(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := fnote.NewMLDSASigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, vkey}
}

func sign(t testing.TB, c ledger.Checkpoint, by ...signer) []byte {
	t.Helper()
	return signText(t, c.String(), by...)
}

func signText(t testing.TB, text string, by ...signer) []byte {
	t.Helper()
	var signers []note.Signer
	for _, s := range by {
		signers = append(signers, s)
	}
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func policy(t testing.TB, lines ...string) *ledger.Policy {
	t.Helper()
	p, err := ledger.ParsePolicy([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
