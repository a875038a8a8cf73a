package witness_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/witness"

	"golang.org/x/mod/sumdb/tlog"
)

// answering is a network whose only server gives one answer.
type answering struct {
	status int
	kind   string // of the content
	body   []byte
}

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: a.status, Header: http.Header{"Content-Type": {a.kind}}, Body: io.NopCloser(bytes.NewReader(a.body)),
		Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}, nil
}

// cosigning is a log of three entries, a policy that has the witness w for it, and the line with which w cosigns.
func cosigning(t testing.TB) (*memoryLog, *ledger.Policy, []byte) {
	t.Helper()
	l, w := newMemoryLog(t, "log.example", "a", "b", "c"), keys(t, "witness.example")
	signers, err := w.WitnessSigners()
	if err != nil {
		t.Fatal(err)
	}
	root, err := tlog.TreeHash(3, l)
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := bytes.Cut(sign(t, ledger.Checkpoint{Origin: l.keys.Name(), Size: 3, Root: root}, signers[0]), []byte("\n\n"))
	var lines []string
	for _, v := range l.keys.LogVKeys() {
		lines = append(lines, "log "+v)
	}
	return l, policyOf(t, append(lines, "witness w "+w.WitnessVKeys()[0]+" http://witness.example", "quorum w")...), line
}

// A witness makes others work for it no longer than for the lines that an honest one needs.
func TestAnswerIsBounded(t *testing.T) {
	l, policy, line := cosigning(t)
	signed := l.checkpoint(t, 3)
	for _, tt := range []struct {
		name     string
		useless  int
		cosigned bool
	}{{"a few useless lines", 8, true}, {"many useless lines", 1000, false}} {
		body := append(bytes.Repeat([]byte("— x aaaaaaaa\n"), tt.useless), line...)
		client := witness.NewClient(policy, &http.Client{Transport: answering{200, "text/plain", body}})
		prove := func(context.Context, int64) ([]tlog.Hash, error) { return nil, nil }
		_, answers, err := client.Ask(t.Context(), signed, prove, nil)
		if err != nil || len(answers) != 1 || (answers[0].Err == nil) != tt.cosigned {
			t.Errorf("%s: %v, %v", tt.name, answers, err)
		}
	}
}

// FuzzAnswer: whatever a witness answers, what comes of it is the checkpoint that was sent, with no signature but those that the
// policy's key made. $LINE stands for the line of its cosignature, which no fuzzer
// guesses.
func FuzzAnswer(f *testing.F) {
	l, policy, line := cosigning(f)
	signed := l.checkpoint(f, 3)
	const size = "text/x.tlog.size"
	f.Add(200, "text/plain", []byte("$LINE"))
	f.Add(200, "text/plain", []byte("— x y\n$LINE$LINE"))
	f.Add(200, "text/plain", []byte("\n$LINE"))
	f.Add(200, "text/plain", bytes.TrimSuffix(line, []byte("\n")))
	f.Add(409, size, []byte("2\n"))
	f.Add(409, size+"; charset=utf-8", []byte("4\n"))
	f.Add(409, size, []byte("-1\n"))
	f.Add(409, "text/plain", []byte("2\n"))
	f.Add(403, "", []byte("no"))
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte) {
		body = bytes.ReplaceAll(body, []byte("$LINE"), line)
		client := witness.NewClient(policy, &http.Client{
			Transport:     answering{status, kind, body},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		})
		prove := func(_ context.Context, old int64) ([]tlog.Hash, error) { return l.proof(t, old, 3), nil }
		out, answers, err := client.Ask(t.Context(), signed, prove, nil)
		if err != nil || len(answers) != 1 {
			t.Fatalf("%v, %v", answers, err)
		}
		if !bytes.HasPrefix(out, signed) {
			t.Fatalf("the checkpoint became %q", out)
		}
		with, err := policy.Read(out)
		if err != nil {
			t.Fatalf("the checkpoint cannot be read any more: %v", err)
		}
		if given := slices.Contains(with.Witnesses, "w"); given != (answers[0].Err == nil) {
			t.Errorf("cosigned: %v; the answer is %v", given, answers[0].Err)
		}
		if more := out[len(signed):]; len(more) > 0 && !bytes.Equal(more, line) {
			t.Errorf("%q came along", more)
		}
	})
}

// FuzzMemory: whatever the file says that remembers the witnesses, they are those of the policy, and an asker that starts from it can
// go on.
func FuzzMemory(f *testing.F) {
	n, w := keys(f, "log.example"), keys(f, "witness.example")
	var lines []string
	for _, v := range n.LogVKeys() {
		lines = append(lines, "log "+v)
	}
	policy := policyOf(f, append(lines, "witness w "+w.WitnessVKeys()[0]+" http://witness.example", "quorum w")...)
	f.Add([]byte(`[{"name":"w","size":3,"at":"2030-03-17T17:46:40Z","failures":2,"error":"x","again":"2030-03-17T17:46:40Z"}]`))
	f.Add([]byte(`[{"name":"w","size":-3},{"name":"w","size":4},{"name":"v","size":1}]`))
	f.Add([]byte(`[{"name":"w","failures":9223372036854775807}]`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "witnesses")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := witness.NewAsker(witness.AskerOptions{Policy: policy, Log: noLog{}, Dir: t.TempDir(), State: file})
		if err != nil {
			return
		}
		states, cosigned := a.Witnesses()
		if len(states) != 1 || states[0].Name != "w" || states[0].Failures != 0 || states[0].Size < 0 || !states[0].Again.IsZero() || cosigned != 0 {
			t.Errorf("%+v, %d", states, cosigned)
		}
		if err := a.Round(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// noLog is a log without a checkpoint.
type noLog struct{}

func (noLog) Prover(context.Context) (*ledger.Signed, *ledger.Prover, error) {
	return nil, nil, fs.ErrNotExist
}
