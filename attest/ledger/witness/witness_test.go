package witness_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/ledger/witness"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func keys(t testing.TB, name string) *notekey.Keys {
	t.Helper()
	k, err := notekey.Generate(name, bytes.NewReader(bytes.Repeat([]byte(name), 64)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// memoryLog is a log in memory whose checkpoints are signed as a writer does.
type memoryLog struct {
	keys   *notekey.Keys
	hashes []tlog.Hash
}

func newMemoryLog(t testing.TB, name string, entries ...string) *memoryLog {
	t.Helper()
	l := &memoryLog{keys: keys(t, name)}
	for i, e := range entries {
		more, err := tlog.StoredHashes(int64(i), []byte(e), l)
		if err != nil {
			t.Fatal(err)
		}
		l.hashes = append(l.hashes, more...)
	}
	return l
}

// ReadHashes implements tlog.HashReader.
func (l *memoryLog) ReadHashes(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *memoryLog) checkpoint(t testing.TB, size int64) []byte {
	t.Helper()
	root, err := tlog.TreeHash(size, l)
	if err != nil {
		t.Fatal(err)
	}
	signers, err := l.keys.LogSigners()
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, ledger.Checkpoint{Origin: l.keys.Name(), Size: size, Root: root}, signers...)
}

func sign(t testing.TB, c ledger.Checkpoint, signers ...note.Signer) []byte {
	t.Helper()
	out, err := note.Sign(&note.Note{Text: c.String()}, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (l *memoryLog) proof(t testing.TB, from, to int64) []tlog.Hash {
	t.Helper()
	if from == 0 || from == to {
		return nil
	}
	p, err := tlog.ProveTree(to, from, l)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func body(old any, proof []tlog.Hash, checkpoint []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "old %v\n", old)
	for _, h := range proof {
		fmt.Fprintln(&b, h)
	}
	return b.String() + "\n" + string(checkpoint)
}

func policyOf(t testing.TB, text ...string) *ledger.Policy {
	t.Helper()
	p, err := ledger.ParsePolicy([]byte(strings.Join(text, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func serve(t testing.TB, opts witness.Options) (*witness.Server, string) {
	t.Helper()
	s, err := witness.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, h.URL
}

// Every answer that the protocol has, in the order in which a log could provoke them.
func TestAddCheckpoint(t *testing.T) {
	l := newMemoryLog(t, "log.example", "a", "b", "c", "d", "e")
	fork := newMemoryLog(t, "log.example", "a", "b", "x", "d", "e", "f")
	stranger := newMemoryLog(t, "other.example", "a")
	forged := *l
	forged.keys = stranger.keys
	signers, err := l.keys.LogSigners()
	if err != nil {
		t.Fatal(err)
	}
	root, err := tlog.TreeHash(3, l)
	if err != nil {
		t.Fatal(err)
	}
	half := sign(t, ledger.Checkpoint{Origin: "log.example", Size: 3, Root: root}, signers[0])
	badProof := l.proof(t, 3, 5)
	badProof[0][0] ^= 1

	dir := t.TempDir()
	s, url := serve(t, witness.Options{Dir: dir, Keys: keys(t, "w.example"), Policy: policyOf(t, string(l.keys.LogPolicy()))})
	for _, tt := range []struct {
		name, body string
		status     int
		size       string // in the answer
	}{
		{"nothing", "", 400, ""},
		{"no old size", "\n\n" + string(l.checkpoint(t, 3)), 400, ""},
		{"a negative old size", body(-1, nil, l.checkpoint(t, 3)), 400, ""},
		{"an old size in another spelling", body("03", nil, l.checkpoint(t, 3)), 400, ""},
		{"a proof that is none", "old 0\nxyz\n\n" + string(l.checkpoint(t, 3)), 400, ""},
		{"an endless proof", body(0, make([]tlog.Hash, 64), l.checkpoint(t, 3)), 400, ""},
		{"too large", body(0, nil, l.checkpoint(t, 3)) + strings.Repeat("x", 1<<20), 400, ""},
		{"an unknown log", body(0, nil, stranger.checkpoint(t, 1)), 404, ""},
		{"not signed by the log", body(0, nil, bytes.Replace(l.checkpoint(t, 3), []byte("\n3\n"), []byte("\n4\n"), 1)), 403, ""},
		{"signed with one of its two keys", body(0, nil, half), 403, ""},
		{"an old size over the checkpoint's", body(4, nil, l.checkpoint(t, 3)), 400, ""},
		{"an old size that is not", body(2, l.proof(t, 2, 3), l.checkpoint(t, 3)), 409, "0\n"},
		{"a proof where none is needed", body(0, make([]tlog.Hash, 1), l.checkpoint(t, 3)), 422, ""},
		{"the first", body(0, nil, l.checkpoint(t, 3)), 200, ""},
		{"the same again", body(3, nil, l.checkpoint(t, 3)), 200, ""},
		{"from nothing again", body(0, nil, l.checkpoint(t, 5)), 409, "3\n"},
		{"a fork of this size", body(3, nil, fork.checkpoint(t, 3)), 409, ""},
		{"the same fork again", body(3, nil, fork.checkpoint(t, 3)), 409, ""},
		{"a longer fork", body(3, fork.proof(t, 3, 6), fork.checkpoint(t, 6)), 422, ""},
		{"a wrong proof", body(3, badProof, l.checkpoint(t, 5)), 422, ""},
		{"the next", body(3, l.proof(t, 3, 5), l.checkpoint(t, 5)), 200, ""},
		{"an older one", body(3, nil, l.checkpoint(t, 3)), 409, "5\n"},
	} {
		resp, err := http.Post(url+witness.AddPath, "", strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		kind := resp.Header.Get("Content-Type")
		switch {
		case err != nil || resp.StatusCode != tt.status:
			t.Errorf("%s: status %d, want %d: %s", tt.name, resp.StatusCode, tt.status, answer)
		case (tt.size != "") != (kind == "text/x.tlog.size") || tt.size != "" && string(answer) != tt.size:
			t.Errorf("%s: %q of type %s", tt.name, answer, kind)
		case tt.status == 200 && strings.Count(string(answer), "— w.example ") != 2:
			t.Errorf("%s: %q", tt.name, answer)
		}
	}
	forks, err := s.Forks("log.example")
	if err != nil || len(forks) != 1 {
		t.Fatalf("%d forks are kept, %v", len(forks), err)
	}
	p := policyOf(t, string(l.keys.LogPolicy()))
	first, err1 := p.Open(forks[0].First)
	second, err2 := p.Open(forks[0].Second)
	if err1 != nil || err2 != nil || first.Size != second.Size || first.Root == second.Root {
		t.Errorf("the evidence convicts nobody: %v, %v, %v, %v", first, second, err1, err2)
	}
	for _, req := range []struct {
		method, path string
		status       int
	}{{"GET", witness.AddPath, 405}, {"POST", "/", 404}} {
		r, err := http.NewRequest(req.method, url+req.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != req.status {
			t.Errorf("%s %s: %d", req.method, req.path, resp.StatusCode)
		}
	}
}

// A witness remembers across a restart, refuses to go on from a damaged state, and gives no cosignature that it cannot keep.
func TestServerRemembers(t *testing.T) {
	l := newMemoryLog(t, "log.example", "a", "b", "c")
	opts := witness.Options{Dir: filepath.Join(t.TempDir(), "w"), Keys: keys(t, "w.example"), Policy: policyOf(t, string(l.keys.LogPolicy()))}
	post := func(s *witness.Server, text string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("POST", witness.AddPath, strings.NewReader(text)))
		return w
	}
	s, err := witness.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := witness.NewServer(opts); !errors.As(err, new(*durable.InUseError)) {
		t.Errorf("a second witness has the same states: %v", err)
	}
	if w := post(s, body(0, nil, l.checkpoint(t, 2))); w.Code != 200 {
		t.Fatal(w)
	}
	s.Close()
	if s, err = witness.NewServer(opts); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if w := post(s, body(0, nil, l.checkpoint(t, 2))); w.Code != 409 || w.Body.String() != "2\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	files, err := filepath.Glob(filepath.Join(opts.Dir, "[0-9a-f]*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 20); err != nil {
		t.Fatal(err)
	}
	if w := post(s, body(2, l.proof(t, 2, 3), l.checkpoint(t, 3))); w.Code != 500 {
		t.Errorf("a damaged state: %d %q", w.Code, w.Body)
	}
	if err := os.RemoveAll(opts.Dir); err != nil { // so that nothing can be written
		t.Fatal(err)
	}
	if w := post(s, body(0, nil, l.checkpoint(t, 3))); w.Code != 500 || strings.Contains(w.Body.String(), "—") {
		t.Errorf("a state that cannot be kept: %d %q", w.Code, w.Body)
	}
}
