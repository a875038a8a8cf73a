package main

import (
	"context"
	"net"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"arch.network/agent"
	"arch.network/agent/control"
	"arch.network/agent/nodetest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

// cmdNode starts a node that lives in memory, with a real control API, and makes it the one that commands ask. Over TCP it lets everybody
// read, and knows every signature. Its address there is $NODE_URL. Jobs do what nodetest.Document says of their arguments; those called
// refused-… are refused.
func cmdNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: node")
	}
	dir, err := os.MkdirTemp("", "arch-node-*") // $WORK may be too long for a socket
	ts.Check(err)
	socket := filepath.Join(dir, "socket")
	local, err := net.Listen("unix", socket)
	ts.Check(err)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	m := nodetest.New(nodetest.Options{
		Execute: nodetest.Play, Slots: 2,
		Judge: func(j *manifest.Job) []agent.Reason {
			if name := j.Metadata.Name; len(name) > 8 && name[:8] == "refused-" {
				return []agent.Reason{{Field: "spec.capabilities.net[0]", Msg: "egress:25 is not allowed", Cure: "add egress:25 to capabilities.allow"}}
			}
			return nil
		},
		Director: func(env *dsse.Envelope) bool { return len(env.Signatures) > 0 },
		Status: agent.Status{
			Node: "did:key:z6MkNode\x1b]0;owned\x07", Version: "1", Capacity: agent.Resources{CPU: 2000, Memory: 4 << 30},
			Policy:   agent.PolicyStatus{Name: "house", Version: 3, ID: [32]byte{1}},
			Problems: []agent.Problem{{Code: "clock", Text: "the clock is off by 3 s", Cure: "start a time service"}},
		},
	})
	server := control.New(control.Options{Node: m, Reading: true, Known: func(*dsse.Envelope) error { return nil }})
	ctx, stop := context.WithCancel(context.Background())
	ran, served := make(chan struct{}), make(chan error, 1)
	go func() {
		m.Run(ctx)
		close(ran)
	}()
	go func() { served <- server.Serve(ctx, local, tcp) }()
	ts.Defer(func() {
		stop()
		<-ran
		ts.Check(<-served)
		os.RemoveAll(dir)
	})
	ts.Setenv("ARCH_AGENT", socket)
	ts.Setenv("NODE_URL", "http://"+tcp.Addr().String())
}
