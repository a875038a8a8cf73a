package control_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"arch.network/agent"
	"arch.network/agent/control/logview"
	"arch.network/attest/digest"
	"arch.network/attest/ledger"
)

type ctx = context.Context

// testLog is a small log in memory, signed and in tiles like a real one, and a Recorder into it.
type testLog struct {
	signer   note.Signer
	verifier string

	mu      sync.Mutex // guards both below
	entries [][]byte
	hashes  []tlog.Hash
}

func newTestLog(t testing.TB) *testLog {
	t.Helper()
	secret, public, err := note.GenerateKey(rand.Reader, "node.test/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return &testLog{signer: signer, verifier: public}
}

// policy is what trusts the log.
func (l *testLog) policy(t testing.TB) *ledger.Policy {
	t.Helper()
	p, err := ledger.ParsePolicy([]byte("log " + l.verifier + "\nquorum none\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (l *testLog) view(t testing.TB) *logview.Log { return logview.New(l, l.policy(t)) }

// Record implements agent.Recorder.
func (l *testLog) Record(_ context.Context, d agent.Decision) (agent.Entry, error) {
	data, err := json.Marshal(d)
	if err != nil {
		return agent.Entry{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := int64(len(l.entries))
	more, err := tlog.StoredHashes(n, data, l)
	if err != nil {
		return agent.Entry{}, err
	}
	l.entries, l.hashes = append(l.entries, data), append(l.hashes, more...)
	return agent.Entry{Index: n, Sequence: n + 1, ID: digest.Of(data)}, nil
}

// ReadHashes implements tlog.HashReader.
func (l *testLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

// ReadTile implements ledger.TileReader.
func (l *testLog) ReadTile(_ context.Context, path string) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if path == "checkpoint" {
		root, err := tlog.TreeHash(int64(len(l.entries)), l)
		if err != nil {
			return nil, err
		}
		return note.Sign(&note.Note{Text: ledger.Checkpoint{Origin: "node.test/log", Size: int64(len(l.entries)), Root: root}.String()}, l.signer)
	}
	tile, bundle, err := ledger.ParsePath(path)
	if err != nil {
		return nil, err
	}
	if bundle != nil {
		var data []byte
		for _, e := range l.entries[bundle.Number*256:][:bundle.Width] {
			if data, err = ledger.AppendEntry(data, e); err != nil {
				return nil, err
			}
		}
		return data, nil
	}
	return tlog.ReadTileData(tlog.Tile{H: 8, L: tile.Level, N: tile.Number, W: tile.Width}, l)
}

// ServeHTTP serves the tiles.
func (l *testLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := l.ReadTile(r.Context(), strings.TrimPrefix(r.URL.Path, "/"))
	if errors.Is(err, fs.ErrNotExist) || err != nil {
		http.NotFound(w, r)
		return
	}
	w.Write(data)
}
