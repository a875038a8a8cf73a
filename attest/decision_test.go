package attest_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"

	"github.com/google/go-cmp/cmp"
)

func decisionKey(t testing.TB, alg identity.Algorithm, seed byte) *identity.Key {
	t.Helper()
	key, err := identity.Generate(alg, bytes.NewReader(bytes.Repeat([]byte{seed}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func decision() attest.Decision {
	return attest.Decision{
		Node: "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", Sequence: 7, Previous: digest.Of([]byte("6")),
		At: "2026-05-01T12:00:00.123456Z", Kind: "admission", Verdict: "refused", By: "uid:1000",
		Summary: "Job wordcount was refused: it asks for a connection that the policy does not allow.",
		Reasons: []attest.DecisionReason{{
			Field: "spec.capabilities.net[0]", Msg: `capability "egress:25" is not allowed by the local policy`,
			Cure: `add "egress:25" to capabilities.allow in the policy file`,
		}},
		Policy:      digest.Of([]byte("policy")),
		Evidence:    []attest.ResourceDescriptor{{Name: "policy.yaml", Digest: map[string]string{"sha256": digest.Of([]byte("policy.yaml")).Hex()}}},
		Commitments: map[string]digest.SHA256{"address": digest.Of([]byte("a salt and an address"))},
		Before: []attest.EarlierDecision{{
			Kind: "proposal", Verdict: "received", By: "uid:1000", Summary: "Job wordcount was handed in.",
			Evidence: []attest.ResourceDescriptor{attest.Document("wordcount", digest.Of([]byte("job")))},
		}},
	}
}

func decisionSubject() attest.ResourceDescriptor {
	return attest.Document("wordcount", digest.Of([]byte("job")))
}

func newDecision(t testing.TB, d attest.Decision, subjects ...attest.ResourceDescriptor) *attest.Statement {
	t.Helper()
	s, err := attest.NewDecision(d, subjects...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDecision(t *testing.T) {
	s := newDecision(t, decision(), decisionSubject())
	got, err := s.Decision()
	if err != nil {
		t.Fatal(err)
	}
	want := decision()
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	encoded, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	direct, err := attest.EncodeDecision(decision(), decisionSubject())
	if diff := cmp.Diff(string(encoded), string(direct)); diff != "" || err != nil {
		t.Errorf("%v (-statement +direct)\n%s", err, diff)
	}
	at := time.Date(2026, 5, 1, 14, 0, 0, 123456789, time.FixedZone("", 7200))
	if got := attest.FormatDecisionTime(at); got != want.At {
		t.Errorf("time %s", got)
	}
}

// However much a policy has to say, what comes out fits into an entry of the log, signed by both kinds of key; and what is left out is counted.
func TestDecisionFits(t *testing.T) {
	for _, tt := range []struct {
		name string
		text string
		n    int
	}{
		{"short", "x", 3},
		{"many", "x", 5000},
		{"long", strings.Repeat("ä", 5000), 64},
		{"escaped", strings.Repeat("\x01", 1024), 64},
		{"no UTF-8", strings.Repeat("\xff", 1024), 64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := decision()
			d.Summary = strings.ReplaceAll(tt.text, "\n", "")
			d.Reasons = nil
			for i := range tt.n {
				d.Reasons = append(d.Reasons, attest.DecisionReason{Field: fmt.Sprint("f", i), Msg: tt.text, Cure: tt.text})
			}
			s := newDecision(t, d, decisionSubject())
			env, err := s.Sign(t.Context(), decisionKey(t, identity.Ed25519, 1), decisionKey(t, identity.MLDSA65, 1))
			if err != nil {
				t.Fatal(err)
			}
			if n := len(env.Marshal()); n > 65535 {
				t.Errorf("the entry has %d bytes", n)
			}
			got, err := s.Decision()
			if err != nil {
				t.Fatal(err)
			}
			last := got.Reasons[len(got.Reasons)-1].Msg
			var left int
			if _, err := fmt.Sscanf(last, "%d more reasons are left out", &left); err == nil {
				left--
			}
			if len(got.Reasons)+left != tt.n {
				t.Errorf("%d of %d reasons, and the last says %q", len(got.Reasons), tt.n, last)
			}
		})
	}
}

func TestDecisionRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*attest.Decision)
		want   string
	}{
		{"no node", func(d *attest.Decision) { d.Node = "" }, "no name of a key"},
		{"no sequence", func(d *attest.Decision) { d.Sequence = 0 }, "sequence 0"},
		{"a first with one before it", func(d *attest.Decision) { d.Sequence = 1 }, "only the first"},
		{"a later without one before it", func(d *attest.Decision) { d.Previous = digest.SHA256{} }, "only the first"},
		{"local time", func(d *attest.Decision) { d.At = "2026-05-01T12:00:00.123456+02:00" }, "microseconds"},
		{"whole seconds", func(d *attest.Decision) { d.At = "2026-05-01T12:00:00Z" }, "microseconds"},
		{"an unknown kind", func(d *attest.Decision) { d.Kind = "guess" }, "unknown kind"},
		{"a verdict of two words", func(d *attest.Decision) { d.Verdict = "not now" }, "one lower-case word"},
		{"by somebody", func(d *attest.Decision) { d.By = "root" }, "neither"},
		{"by ip:host", func(d *attest.Decision) { d.By = "ip:localhost" }, "neither"},
		{"by ip:01.2.3.4", func(d *attest.Decision) { d.By = "ip:01.2.3.4" }, "neither"},
		{"by uid:01", func(d *attest.Decision) { d.By = "uid:01" }, "neither"},
		{"no summary", func(d *attest.Decision) { d.Summary = "" }, "summary"},
		{"two lines", func(d *attest.Decision) { d.Summary = "a\nb" }, "summary"},
		{"a reason without words", func(d *attest.Decision) { d.Reasons[0].Msg = "" }, "reasons[0]"},
		{"evidence without a digest", func(d *attest.Decision) { d.Evidence[0].Digest = nil }, "sha256"},
		{"evidence carried along", func(d *attest.Decision) { d.Evidence[0].Content = []byte("x") }, "carried along"},
		{"an empty commitment", func(d *attest.Decision) { d.Commitments["x"] = digest.SHA256{} }, "commitment"},
		{"an unknown kind before it", func(d *attest.Decision) { d.Before[0].Kind = "guess" }, "before[0]: decision has the unknown kind"},
		{"one before it by somebody", func(d *attest.Decision) { d.Before[0].By = "root" }, "before[0]"},
		{"too many before it", func(d *attest.Decision) { d.Before = slices.Repeat(d.Before, attest.MaxBefore+1) }, "5 before it"},
		{"too much evidence before it", func(d *attest.Decision) {
			d.Before[0].Evidence = slices.Repeat(d.Before[0].Evidence, attest.MaxBeforeEvidence+1)
		}, "before[0] has over 8"},
		{"evidence before it without a digest", func(d *attest.Decision) { d.Before[0].Evidence[0].Digest = nil }, "sha256"},
		{"evidence without end", func(d *attest.Decision) {
			d.Evidence = slices.Repeat([]attest.ResourceDescriptor{{
				URI: strings.Repeat("x", 4096), Digest: map[string]string{"sha256": digest.Of(nil).Hex()},
			}}, 60)
		}, "name evidence by digest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := decision()
			tt.change(&d)
			if _, err := attest.NewDecision(d, decisionSubject()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	if _, err := attest.NewDecision(decision()); err == nil {
		t.Error("a decision about nothing was made")
	}
}

// entries makes a chain of n decisions.
func entries(t testing.TB, key *identity.Key, n int) [][]byte {
	t.Helper()
	var list [][]byte
	var previous digest.SHA256
	for i := range n {
		d := decision()
		d.Node, d.Sequence, d.Previous = dsse.KeyID(key.Public()), int64(i+1), previous
		env, err := newDecision(t, d, decisionSubject()).Sign(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		previous = env.ID()
		list = append(list, env.Marshal())
	}
	return list
}

func TestReadRecord(t *testing.T) {
	key, other, pq := decisionKey(t, identity.Ed25519, 1), decisionKey(t, identity.Ed25519, 2), decisionKey(t, identity.MLDSA65, 3)
	entry := entries(t, key, 1)[0]
	for _, keys := range [][]identity.PublicKey{nil, {key.Public()}, {other.Public(), key.Public()}} {
		if r, err := attest.ReadRecord(entry, keys...); err != nil || r.Sequence != 1 || len(r.Subject) != 1 {
			t.Errorf("%v, %v", r, err)
		}
	}
	if _, err := attest.ReadRecord(entries(t, pq, 1)[0], pq.Public()); err != nil {
		t.Error(err)
	}
	forged, err := dsse.Parse(entry)
	if err != nil {
		t.Fatal(err)
	}
	forged.Signatures = nil
	if err := forged.Add(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		entry []byte
		keys  []identity.PublicKey
		want  string
	}{
		{"of another node", entry, []identity.PublicKey{other.Public()}, "no known node"},
		{"signed by another", forged.Marshal(), nil, "did not sign it"},
		{"signed by another known node", forged.Marshal(), []identity.PublicKey{key.Public(), other.Public()}, "did not sign it"},
		{"another spelling", append(slices.Clone(entry), ' '), nil, "one form"},
		{"nothing", nil, nil, ""},
	} {
		if _, err := attest.ReadRecord(tt.entry, tt.keys...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	for i := range entry { // whatever byte changes, it is not the same decision any more
		bad := slices.Clone(entry)
		bad[i] ^= 1
		if r, err := attest.ReadRecord(bad, key.Public()); err == nil {
			t.Fatalf("byte %d changed, and %v was read", i, r)
		}
	}
}

func TestChain(t *testing.T) {
	key := decisionKey(t, identity.Ed25519, 1)
	var records []*attest.Record
	for _, e := range entries(t, key, 6) {
		r, err := attest.ReadRecord(e, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	otherwise := *records[3]
	otherwise.Previous = digest.Of(nil)
	pick := func(order ...int) (list []*attest.Record) {
		for _, i := range order {
			list = append(list, records[i-1])
		}
		return list
	}
	for _, tt := range []struct {
		name string
		list []*attest.Record
		want string
	}{
		{"none", nil, ""},
		{"in order", pick(1, 2, 3, 4, 5, 6), ""},
		{"reordered", pick(3, 1, 2, 6, 5, 4), ""},
		{"one left out", pick(1, 2, 4, 5), "decision 3: it is missing"},
		{"the first left out", pick(2, 3), "decision 1: it is missing"},
		{"one twice", pick(1, 2, 2), "decision 2: the sequence occurs twice"},
		{"one twice and early", pick(1, 3, 3), "decision 3: the sequence occurs twice"},
		{"another past", append(pick(1, 2, 3), &otherwise), "decision 4: it follows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c attest.Chain
			var err error
			for _, r := range tt.list {
				if err = c.Add(r); err != nil {
					break
				}
			}
			var n int64
			if err == nil {
				n, _, err = c.End()
			}
			if tt.want == "" && (err != nil || n != int64(len(tt.list))) {
				t.Errorf("%d of %d, %v", n, len(tt.list), err)
			}
			if _, ok := errors.AsType[*attest.ChainError](err); tt.want != "" && (!ok || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestCommit(t *testing.T) {
	c, err := attest.Commit(bytes.NewReader(bytes.Repeat([]byte{7}, 32)), []byte("10.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	if !c.Opens([]byte("10.0.0.1")) || c.Opens([]byte("10.0.0.2")) || c.Sum != digest.Of(append(bytes.Repeat([]byte{7}, 32), "10.0.0.1"...)) {
		t.Errorf("%+v", c)
	}
	if _, err := attest.Commit(bytes.NewReader(nil), nil); err == nil {
		t.Error("a commitment was made without randomness")
	}
}

func FuzzReadRecord(f *testing.F) {
	key := decisionKey(f, identity.Ed25519, 1)
	for _, e := range entries(f, key, 2) {
		f.Add(e)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		r, err := attest.ReadRecord(entry)
		if err != nil {
			return
		}
		s, err := attest.NewDecision(r.Decision, r.Subject...)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := s.ID(); err != nil || id != r.ID {
			t.Errorf("read as %v, which is %s and not %s: %v", r, id, r.ID, err)
		}
	})
}
