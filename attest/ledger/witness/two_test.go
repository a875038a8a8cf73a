package witness_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/ledger/sequencer"
	"arch.network/attest/ledger/tilehttp"
	"arch.network/attest/ledger/witness"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
)

// node is a log that is published, and a witness of others.
type node struct {
	keys    *notekey.Keys
	opts    sequencer.Options
	log     *sequencer.Log
	witness *witness.Server
	url     string
}

// newNode starts a node that witnesses the logs of others.
func newNode(t *testing.T, name string, others ...string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{keys: keys(t, name)}
	n.opts = sequencer.Options{Dir: filepath.Join(dir, "log"), Signed: filepath.Join(dir, "signed"), Keys: n.keys}
	n.open(t)
	var policy []string
	for _, other := range others {
		for _, v := range keys(t, other).LogVKeys() {
			policy = append(policy, "log "+v)
		}
	}
	var err error
	n.witness, err = witness.NewServer(witness.Options{Dir: filepath.Join(dir, "witness"), Keys: n.keys, Policy: policyOf(t, append(policy, "quorum none")...)})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(witness.AddPath, n.witness)
	mux.Handle("/", tilehttp.NewServer(ledger.Dir(n.opts.Dir)))
	s := httptest.NewServer(mux)
	n.url = s.URL
	t.Cleanup(func() { s.Close(); n.witness.Close() })
	return n
}

func (n *node) open(t *testing.T) {
	t.Helper()
	var err error
	if n.log, err = sequencer.Open(t.Context(), n.opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.log.Close(context.Background()) })
}

func (n *node) append(t *testing.T, count int, what string) (last int64) {
	t.Helper()
	for i := range count {
		var err error
		if last, err = n.log.Append(t.Context(), fmt.Appendf(nil, "%s %d", what, i)); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// policy is how others see a's log, if w must have cosigned it with both of its keys.
func policy(t *testing.T, a, w *node) *ledger.Policy {
	t.Helper()
	var lines []string
	for _, v := range a.keys.LogVKeys() {
		lines = append(lines, "log "+v+" "+a.url)
	}
	for i, v := range w.keys.WitnessVKeys() {
		lines = append(lines, fmt.Sprintf("witness w%d %s %s", i, v, w.url))
	}
	return policyOf(t, append(lines, "group w all w0 w1", "quorum w")...)
}

// Two nodes witness each other's logs; what one has logged is proved to third parties by a file.
func TestTwoLedgers(t *testing.T) {
	a, b := newNode(t, "a.example/ledger", "b.example/ledger"), newNode(t, "b.example/ledger", "a.example/ledger")
	for _, pair := range [][2]*node{{a, b}, {b, a}} {
		from, by := pair[0], pair[1]
		p := policy(t, from, by)
		asks := witness.NewClient(p, http.DefaultClient)
		for round := range 3 { // it grows, and is cosigned again
			what := fmt.Sprint("round ", round)
			index := from.append(t, 3, what)
			pr, err := from.log.Proof(t.Context(), index)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pr.Verify(p, []byte(what+" 2")); !errors.As(err, new(*ledger.QuorumError)) {
				t.Errorf("without a witness: %v", err)
			}
			_, prover, err := from.log.Prover(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if pr.Note, err = asks.Cosign(t.Context(), pr.Note, prover.Consistency); err != nil {
				t.Fatal(err)
			}
			pr, err = ledger.ParseProof(pr.Marshal())
			if err != nil {
				t.Fatal(err)
			}
			signed, err := pr.Verify(p, []byte(what+" 2"))
			if err != nil || !slices.Equal(signed.Witnesses, []string{"w0", "w1"}) || time.Since(signed.Newest) > time.Hour {
				t.Errorf("%v, %v", signed, err)
			}
		}
	}
}

// A log that is restored from an old copy, with its record lost as well, is told by its witness; one that was forked is convicted.
func TestWitnessedFork(t *testing.T) {
	a, b := newNode(t, "a.example/ledger", "b.example/ledger"), newNode(t, "b.example/ledger", "a.example/ledger")
	p := policy(t, a, b)
	asks := witness.NewClient(p, http.DefaultClient)
	cosign := func() error {
		signed, prover, err := a.log.Prover(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = asks.Cosign(t.Context(), signed.Note, prover.Consistency)
		return err
	}
	publish := func(index int64) {
		if _, err := a.log.Proof(t.Context(), index); err != nil {
			t.Fatal(err)
		}
	}
	publish(a.append(t, 2, "a"))
	if err := a.log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(a.opts.Dir)); err != nil {
		t.Fatal(err)
	}
	a.open(t)
	publish(a.append(t, 2, "then"))
	if err := cosign(); err != nil {
		t.Fatal(err)
	}
	if err := a.log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(a.opts.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(a.opts.Dir, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(a.opts.Signed); err != nil {
		t.Fatal(err)
	}
	a.opts.Adopt = true
	a.open(t)
	if err := cosign(); !errors.As(err, new(*witness.AheadError)) {
		t.Errorf("an old copy: %v", err)
	}
	publish(a.append(t, 2, "otherwise"))
	if err := cosign(); err == nil || !strings.Contains(err.Error(), "409") {
		t.Errorf("a fork: %v", err)
	}
	forks, err := b.witness.Forks("a.example/ledger")
	if err != nil || len(forks) != 1 {
		t.Fatalf("%d, %v", len(forks), err)
	}
	publish(a.append(t, 1, "and on"))
	if err := cosign(); err == nil || !strings.Contains(err.Error(), "422") {
		t.Errorf("a longer fork: %v", err)
	}
}

// What answers is not a witness.
func TestCosignRefuses(t *testing.T) {
	a, b := newNode(t, "a.example/ledger", "b.example/ledger"), newNode(t, "b.example/ledger", "a.example/ledger")
	index := a.append(t, 3, "a")
	pr, err := a.log.Proof(t.Context(), index)
	if err != nil {
		t.Fatal(err)
	}
	_, prover, err := a.log.Prover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		want   string
	}{
		{"says nothing", func(http.ResponseWriter) {}, "no line of its answer"},
		{"invents a line", func(w http.ResponseWriter) { fmt.Fprintf(w, "— %s aaaaaaaaaaaa\n", b.keys.Name()) }, "no line of its answer"},
		{"says a size each time", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/x.tlog.size")
			w.WriteHeader(409)
			fmt.Fprintln(w, 2)
		}, "another size each time"},
		{"says no size", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/x.tlog.size")
			w.WriteHeader(409)
			fmt.Fprintln(w, "many")
		}, "is no size"},
		{"is broken", func(w http.ResponseWriter) { w.WriteHeader(500) }, "status 500"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tt.answer(w) }))
			defer s.Close()
			liar := &node{keys: b.keys, url: s.URL}
			_, err := witness.NewClient(policy(t, a, liar), http.DefaultClient).Cosign(t.Context(), pr.Note, prover.Consistency)
			if !errors.As(err, new(*ledger.QuorumError)) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// Tessera's own client reads our log over HTTP, and its proofs are ours.
func TestForeignClient(t *testing.T) {
	a := newNode(t, "a.example/ledger", "b.example/ledger")
	index := a.append(t, 3, "a")
	var futures []sequencer.Future
	for i := range 300 {
		f, err := a.log.Add(t.Context(), fmt.Append(nil, "more", i))
		if err != nil {
			t.Fatal(err)
		}
		futures = append(futures, f)
	}
	for _, f := range futures {
		if _, err := f.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.log.Proof(t.Context(), 302); err != nil {
		t.Fatal(err)
	}
	base, err := url.Parse(a.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	fetch, err := client.NewHTTPFetcher(base, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(a.keys.LogVKeys()[0])
	if err != nil {
		t.Fatal(err)
	}
	c, _, _, err := client.FetchCheckpoint(t.Context(), fetch.ReadCheckpoint, verifier, "a.example/ledger")
	if err != nil || c.Size != 303 {
		t.Fatal(c, err)
	}
	pb, err := client.NewProofBuilder(t.Context(), c.Size, fetch.ReadTile)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := pb.InclusionProof(t.Context(), uint64(index))
	if err != nil {
		t.Fatal(err)
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(index), c.Size, rfc6962.DefaultHasher.HashLeaf([]byte("a 2")), theirs, c.Hash); err != nil {
		t.Error(err)
	}
	remote, err := tilehttp.NewClient(a.url, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	report, err := ledger.Check(t.Context(), policyOf(t, string(a.keys.LogPolicy())), remote, nil)
	if err != nil || !report.OK() || report.Tree.Size != 303 {
		t.Errorf("%+v, %v", report, err)
	}
}
