package witness_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/witness"
)

// asked is a node whose log is to be cosigned by any of some witnesses, at a time that the test sets.
type asked struct {
	*node
	opts witness.AskerOptions
	now  time.Time
}

// newAsked names witnesses w0, w1, …: each with its first key only.
func newAsked(t *testing.T, n *node, quorum string, witnesses ...*node) *asked {
	t.Helper()
	var lines []string
	for _, v := range n.keys.LogVKeys() {
		lines = append(lines, "log "+v)
	}
	them := "group them " + quorum
	for i, w := range witnesses {
		lines = append(lines, fmt.Sprintf("witness w%d %s %s", i, w.keys.WitnessVKeys()[0], w.url))
		them = fmt.Sprintf("%s w%d", them, i)
	}
	a := &asked{node: n, now: time.Unix(1_900_000_000, 0).UTC()}
	a.opts = witness.AskerOptions{
		Policy: policyOf(t, append(lines, them, "quorum them")...),
		Log:    n.log, Dir: n.opts.Dir, State: filepath.Join(t.TempDir(), "witnesses"), Every: time.Second, Now: func() time.Time { return a.now },
	}
	return a
}

func (a *asked) asker(t *testing.T) *witness.Asker {
	t.Helper()
	k, err := witness.NewAsker(a.opts)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// publish appends entries and waits until a checkpoint covers them.
func (a *asked) publish(t *testing.T, count int, what string) {
	t.Helper()
	if _, err := a.log.Proof(t.Context(), a.append(t, count, what)); err != nil {
		t.Fatal(err)
	}
}

func (a *asked) round(t *testing.T, k *witness.Asker) (states []witness.State, cosigned int64) {
	t.Helper()
	if err := k.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k.Witnesses()
}

// liar is a witness that answers as a test says.
func liar(t *testing.T, name string, answer http.HandlerFunc) *node {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return &node{keys: keys(t, name), url: s.URL}
}

// A log is cosigned as it grows; what is kept survives, and one witness that is away, lies or knows another history never stops the rest.
func TestAsker(t *testing.T) {
	n, good := newNode(t, "a.example/ledger", "z.example/ledger"), newNode(t, "b.example/ledger", "a.example/ledger")
	stranger := newNode(t, "c.example/ledger", "elsewhere.example/ledger")
	lies := liar(t, "liar.example", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "— liar.example aaaaaaaaaaaa") })
	var asks atomic.Int64
	requests := func() int { return int(asks.Load()) }
	away := liar(t, "away.example", func(w http.ResponseWriter, _ *http.Request) {
		asks.Add(1)
		panic(http.ErrAbortHandler)
	})
	moved := liar(t, "moved.example", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, good.url+r.URL.Path, http.StatusTemporaryRedirect)
	})
	ahead := liar(t, "ahead.example", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintln(w, 99)
	})
	a := newAsked(t, n, "1", good, stranger, lies, away, moved, ahead)
	k := a.asker(t)
	if states, cosigned := a.round(t, k); cosigned != 0 || states[0].Failures != 0 || requests() != 0 {
		t.Errorf("of an empty log: %+v", states)
	}

	a.publish(t, 3, "first")
	states, cosigned := a.round(t, k)
	want := []witness.State{
		{Name: "w0", Size: 3, At: a.now}, {Name: "w1", Failures: 1}, {Name: "w2", Failures: 1}, {Name: "w3", Failures: 1}, {Name: "w4", Failures: 1}, {Name: "w5", Failures: 1},
	}
	for i := range want[1:] {
		want[i+1].Again = a.now.Add(2 * time.Second)
	}
	ignore := cmpopts.IgnoreFields(witness.State{}, "Error", "Cure")
	hidden := cmpopts.IgnoreUnexported(witness.State{})
	if diff := cmp.Diff(want, states, ignore, hidden); diff != "" || cosigned != 3 {
		t.Errorf("%d entries are cosigned (-want +got):\n%s", cosigned, diff)
	}
	for i, say := range []string{"", "status 404", "no line of its answer", "EOF", "status 307", "99 entries"} {
		if !strings.Contains(states[i].Error, say) || (i == 1 || i == 5) != (states[i].Cure != "") && i != 4 {
			t.Errorf("%s: %q, cure %q", states[i].Name, states[i].Error, states[i].Cure)
		}
	}
	// Whoever reads the log where it lies, or from a server, gets the cosignatures with the newest checkpoint.
	note, err := ledger.Dir(n.opts.Dir).ReadCheckpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if signed, err := a.opts.Policy.Open(note); err != nil || !slices.Equal(signed.Witnesses, []string{"w0"}) {
		t.Errorf("the checkpoint that is published: %v, %v", signed, err)
	}

	// Nothing new: nobody who has cosigned is asked, and those in vain not before their time, which doubles.
	for _, step := range []struct {
		after    time.Duration
		requests int
	}{{time.Second, 1}, {time.Second, 2}, {2 * time.Second, 2}, {2 * time.Second, 3}, {24 * time.Hour, 4}} {
		a.now = a.now.Add(step.after)
		states, cosigned = a.round(t, k)
		if requests() != step.requests || cosigned != 3 || states[0].At.Equal(a.now) {
			t.Errorf("after %v: %d requests, want %d; %+v", step.after, requests(), step.requests, states[0])
		}
	}

	// It goes on in another process, and with the log.
	k = a.asker(t)
	if states, cosigned := k.Witnesses(); cosigned != 3 || states[0].Size != 3 || states[0].At.IsZero() {
		t.Errorf("after a restart: %d, %+v", cosigned, states)
	}
	a.publish(t, 2, "second")
	if states, cosigned := a.round(t, k); cosigned != 5 || states[0].Size != 5 || !states[0].At.Equal(a.now) {
		t.Errorf("%d, %+v", cosigned, states)
	}
}

// A checkpoint that has the quorum is not replaced by a newer one that lacks it.
func TestAskerKeepsTheQuorum(t *testing.T) {
	n := newNode(t, "a.example/ledger", "z.example/ledger")
	one, two := newNode(t, "b.example/ledger", "a.example/ledger"), newNode(t, "c.example/ledger", "a.example/ledger")
	a := newAsked(t, n, "all", one, two)
	k := a.asker(t)
	a.publish(t, 1, "first")
	if _, cosigned := a.round(t, k); cosigned != 1 {
		t.Fatalf("%d entries are cosigned", cosigned)
	}
	two.witness.Close()
	if err := os.RemoveAll(filepath.Join(filepath.Dir(two.opts.Dir), "witness")); err != nil { // so that it can keep nothing
		t.Fatal(err)
	}
	a.publish(t, 1, "second")
	states, cosigned := a.round(t, k)
	if cosigned != 1 || states[0].Size != 2 || states[1].Size != 1 || states[1].Failures != 1 {
		t.Errorf("%d entries are cosigned: %+v", cosigned, states)
	}
	a.now = a.now.Add(time.Minute)
	if states, _ := a.round(t, k); states[0].At.Equal(a.now) || states[1].Failures != 2 {
		t.Errorf("who has cosigned is asked again, or who has not is not: %+v", states)
	}
	kept, err := ledger.Dir(n.opts.Dir).ReadCosigned()
	if err != nil {
		t.Fatal(err)
	}
	if signed, err := a.opts.Policy.Open(kept); err != nil || signed.Size != 1 {
		t.Errorf("what is kept: %v, %v", signed, err)
	}
	newest, err := ledger.Dir(n.opts.Dir).ReadCheckpoint(t.Context())
	if err != nil || bytes.Contains(newest, []byte("c.example")) || !strings.HasPrefix(string(newest), "a.example/ledger\n2\n") {
		t.Errorf("the newest checkpoint: %s, %v", newest, err)
	}
}

// A witness that has seen a fork says so, and goes on saying so.
func TestAskerForked(t *testing.T) {
	n, w := newNode(t, "a.example/ledger", "z.example/ledger"), newNode(t, "b.example/ledger", "a.example/ledger")
	a := newAsked(t, n, "any", w)
	a.publish(t, 2, "told")
	if _, cosigned := a.round(t, a.asker(t)); cosigned != 2 {
		t.Fatal("not cosigned")
	}
	other := newAsked(t, newNode(t, "a.example/ledger", "z.example/ledger"), "any", w) // the same keys, and another history
	other.publish(t, 3, "told otherwise")
	k := other.asker(t)
	states, cosigned := other.round(t, k)
	if cosigned != 0 || !strings.Contains(states[0].Error, "422") || !strings.Contains(states[0].Cure, "another history") {
		t.Errorf("%d, %+v", cosigned, states)
	}
}
