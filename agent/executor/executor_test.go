package executor_test

import (
	"io"
	"testing"

	"arch.network/agent"
	"arch.network/attest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"

	"github.com/google/go-cmp/cmp"
)

// TestLife takes a real module through its whole life: signed by a quorum, judged by a policy, confined by namespaces, its result signed and in
// the ledger, and everything kept.
func TestLife(t *testing.T) {
	n := newNode(t, setup{})
	envelope := n.example("wordcount")
	j := n.submit(envelope)
	if len(j.Signers) != 2 {
		t.Fatalf("got %+v", j)
	}
	j = n.await(j.ID, agent.Archived)
	var states []agent.State
	for _, s := range j.Steps {
		states = append(states, s.State)
		if tr, _ := agent.Step(agent.Running, s.State); (s.Entry == nil) != (s.State == agent.Validating) {
			t.Errorf("step to %s: entry %v, want one of kind %q", s.State, s.Entry, tr.Entry)
		}
	}
	want := []agent.State{agent.Proposed, agent.Verified, agent.Placed, agent.Running, agent.Validating, agent.Anchored, agent.Archived}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Fatalf("%s\nsteps (-want +got)\n%s", j.Summary, diff)
	}
	wantVerdicts := []string{"proposal received", "admission accepted", "placement here", "start started", "result holds", "archive kept"}
	if diff := cmp.Diff(wantVerdicts, n.journal.verdicts(j.ID)); diff != "" {
		t.Errorf("ledger (-want +got)\n%s", diff)
	}
	if len(j.Attempts) != 1 || j.Attempts[0].Gas == 0 || j.Attempts[0].Reason != "exit" || j.Attempts[0].Run.IsZero() {
		t.Errorf("attempts %+v", j.Attempts)
	}
	r, err := n.OutputNAR(t.Context(), j.ID, "counts")
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != j.Outputs[0].Size || len(data) == 0 {
		t.Errorf("output has %d bytes, want %d: %v", len(data), j.Outputs[0].Size, err)
	}
	checkReceipts(t, n, j)
	again := n.submit(envelope)
	if again.ID != j.ID || again.State != agent.Archived {
		t.Errorf("handed in again: %s", again.State)
	}
}

// checkReceipts wants both statements of a job to be signed by the node and to belong together.
func checkReceipts(t *testing.T, n *node, j agent.Job) {
	t.Helper()
	var result *attest.JobResult
	for _, id := range []struct {
		name string
		id   [32]byte
	}{{"result", j.Result}, {"run", j.Attempts[len(j.Attempts)-1].Run}} {
		data, err := n.Statement(t.Context(), id.id)
		if err != nil || data == nil {
			t.Fatalf("%s: %v", id.name, err)
		}
		env, err := dsse.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		if len(env.Verified([]identity.PublicKey{key("node").Public()})) != 1 {
			t.Errorf("%s is not signed by the node", id.name)
		}
		s, err := attest.ParseStatement(env.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if id.name == "result" {
			if result, err = s.JobResult(); err != nil || result.JobID != j.ID {
				t.Errorf("result of %s: %v", result.JobID, err)
			}
			continue
		}
		run, err := s.JobRun()
		if err != nil || run.JobID != j.ID || run.Result != j.Result {
			t.Errorf("run of %s with result %s, want %s: %v", run.JobID, run.Result, j.Result, err)
		}
	}
}
