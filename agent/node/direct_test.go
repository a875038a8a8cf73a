package node_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/agent"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

// TestDirectives obeys what a quorum ordered, once, and refuses everything else; all of it is in the ledger.
func TestDirectives(t *testing.T) {
	w := newWorld(t)
	n := w.start(t)
	self := dsse.KeyID(key("node").Public())
	number := 0
	order := func(action, target string, change func(*manifest.Directive), signers ...string) []byte {
		t.Helper()
		number++
		d := &manifest.Directive{
			APIVersion: manifest.APIVersion, Kind: "Directive", Metadata: manifest.Metadata{Name: "order", Expires: "2098-01-01T00:00:00Z"},
			Spec: manifest.DirectiveSpec{
				Class: manifest.ClassC, Action: action, Target: target, Reason: "it is tried", Nonce: fmt.Sprintf("nonce-%016d", number),
			},
		}
		if change != nil {
			change(d)
		}
		return w.sign(t, d, signers...)
	}
	none := digest.Of([]byte("no job")).String()
	for name, c := range map[string]struct {
		envelope []byte
		why      string
	}{
		"somebody else signed it": {order("drain", self, nil, "alice", "bob"), "the quorum of role governance has not signed it"},
		"nobody signed it":        {order("drain", self, nil), "the quorum of role governance has not signed it"},
		"another class":           {order("drain", self, func(d *manifest.Directive) { d.Spec.Class = manifest.ClassA }, "carol"), "it is of class A"},
		"it ended":                {order("drain", self, func(d *manifest.Directive) { d.Metadata.Expires = "2020-01-01T00:00:00Z" }, "carol"), "it ended on"},
		"it never ends":           {order("drain", self, func(d *manifest.Directive) { d.Metadata.Expires = "" }, "carol"), "obeyed twice"},
		"it has no nonce":         {order("drain", self, func(d *manifest.Directive) { d.Spec.Nonce = "" }, "carol"), "obeyed twice"},
		"it is for later":         {order("drain", self, func(d *manifest.Directive) { d.Spec.NotBefore = "2097-01-01T00:00:00Z" }, "carol"), "must not be obeyed before"},
		"it is for another node":  {order("drain", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", nil, "carol"), "this node is called"},
		"it is for every node":    {order("drain", "", nil, "carol"), "this node is called"},
		"there is no such act":    {order("explode", self, nil, "carol"), "knows no act"},
		"there is no such job":    {order("cancel", none, nil, "carol"), "knows no job"},
		"its target is no job":    {order("cancel", "wordcount", nil, "carol"), "no id of a job"},
		"its target is left out":  {order("release", "", nil, "carol"), "no id of a job"},
	} {
		t.Run(name, func(t *testing.T) {
			err := n.Direct(t.Context(), c.envelope, "ip:192.0.2.1")
			if _, denied := errors.AsType[*agent.DeniedError](err); !denied || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, envelope := range map[string][]byte{"no envelope": []byte("{}"), "a job": w.wordcount(t, "nonce-0000000000000001", "alice", "bob")} {
		if _, ok := errors.AsType[*agent.EnvelopeError](n.Direct(t.Context(), envelope, "ip:192.0.2.1")); !ok {
			t.Errorf("%s: it was taken", name)
		}
	}
	if s, err := n.Status(t.Context()); err != nil || s.Draining {
		t.Fatalf("%+v, %v", s, err)
	}

	drain := order("drain", self, nil, "carol")
	if err := n.Direct(t.Context(), drain, "ip:192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	if s, err := n.Status(t.Context()); err != nil || !s.Draining {
		t.Errorf("%+v, %v", s, err)
	}
	job, err := n.Submit(t.Context(), w.wordcount(t, "nonce-0000000000000002", "alice", "bob"), "ip:2001:db8::1")
	if err != nil || job.State != agent.Verified {
		t.Fatalf("%+v, %v", job, err)
	}
	if err := n.Direct(t.Context(), order("resume", self, nil, "carol"), "ip:192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	done := await(t, n, job)
	if err := n.Direct(t.Context(), order("cancel", done.ID.String(), nil, "carol"), "ip:192.0.2.1"); err == nil {
		t.Error("a job that has ended was cancelled")
	}
	// What was obeyed once is not obeyed again, not even by the node's next life.
	for range 2 {
		err := n.Direct(t.Context(), drain, "ip:192.0.2.1")
		if _, denied := errors.AsType[*agent.DeniedError](err); !denied || !strings.Contains(err.Error(), "obeyed before") {
			t.Errorf("again: %v", err)
		}
		w.stop()
		n = w.start(t)
	}
	w.stop()
	carol := dsse.KeyID(key("carol").Public())
	got := map[string]int{}
	for _, d := range w.decisions(t, n) {
		if d.Kind == string(agent.KindDirective) {
			got[d.Verdict+" by "+d.By]++
			if _, err := time.Parse(time.RFC3339Nano, d.At); err != nil || d.Summary == "" {
				t.Errorf("%+v", d)
			}
		}
	}
	want := map[string]int{"accepted by " + carol: 3, "refused by ip:192.0.2.1": 15, "failed by " + carol: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in the ledger (-want +got):\n%s", diff)
	}
}
