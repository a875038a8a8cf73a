package nodetest_test

import (
	"errors"
	"testing"

	"arch.network/agent"
	"arch.network/agent/nodetest"
	"arch.network/attest/manifest"
)

func TestMemory(t *testing.T) {
	nodetest.Test(t, func(t *testing.T) nodetest.Subject {
		m := nodetest.New(nodetest.Options{Execute: nodetest.Play})
		go m.Run(t.Context())
		return nodetest.Subject{Node: m, By: "uid:0", Envelope: func(t *testing.T, name string, does nodetest.Does) []byte {
			return nodetest.Sign(t, nodetest.Document(t, name, does))
		}}
	})
}

func TestFullQueue(t *testing.T) {
	m := nodetest.New(nodetest.Options{Queue: 1})
	for i := range 2 {
		_, err := m.Submit(t.Context(), nodetest.Sign(t, nodetest.Document(t, "waits", nodetest.Does{})), "uid:0")
		if _, full := errors.AsType[*agent.FullError](err); full != (i == 1) {
			t.Errorf("job %d: %v", i, err)
		}
	}
}

func TestLagged(t *testing.T) {
	m := nodetest.New(nodetest.Options{Events: 3, Judge: func(*manifest.Job) []agent.Reason { return []agent.Reason{{Msg: "no"}} }})
	for range 3 { // two events each
		if _, err := m.Submit(t.Context(), nodetest.Sign(t, nodetest.Document(t, "refused", nodetest.Does{})), "uid:0"); err != nil {
			t.Fatal(err)
		}
	}
	for _, after := range []int64{0, 2, 100} {
		for _, err := range m.Events(t.Context(), after) {
			if lagged, ok := errors.AsType[*agent.LaggedError](err); !ok || lagged.Next != 4 {
				t.Errorf("after %d: %v, want that 4 is the oldest", after, err)
			}
			break
		}
	}
}
