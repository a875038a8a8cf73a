package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

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

// buildAgent compiles arch-node-agent, once for all scripts.
var buildAgent = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "arch-agent-*")
	if err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir, "../arch-node-agent")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile arch-node-agent: %w\n%s", err, out)
	}
	return filepath.Join(dir, "arch-node-agent"), nil
})

// cmdAgent starts arch-node-agent itself, which fetches nothing, with its state in DIR, the trust root and the policy that lie there as
// trust.yaml and policy.yaml, and further flags, and makes it the one that commands ask. Over TCP, at $NODE_URL, everybody may read. It ends with the script.
func cmdAgent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: agent DIR [FLAG...]")
	}
	program, err := buildAgent()
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	run, err := os.MkdirTemp("", "arch-agent-*") // $WORK may be too long for a socket
	ts.Check(err)
	socket := filepath.Join(run, "socket")
	notes, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(run, "notify"), Net: "unixgram"})
	ts.Check(err)
	log, err := os.Create(filepath.Join(run, "log"))
	ts.Check(err)
	defer log.Close()
	c := exec.Command(program, append([]string{
		"--socket", socket, "--listen", "127.0.0.1:0", "--read", "--state", filepath.Join(dir, "state"), "--trust", filepath.Join(dir, "trust.yaml"),
		"--policy", filepath.Join(dir, "policy.yaml"), "--driver", "namespace", "--offline",
	}, args[1:]...)...)
	c.Dir = ts.MkAbs(".")
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(run, "notify"))
	c.Stdout, c.Stderr = log, log
	ts.Check(c.Start())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Wait()
		notes.Close() // nobody tells anything any more
	}()
	ts.Defer(func() {
		c.Process.Signal(os.Interrupt)
		err := <-ended
		text, _ := os.ReadFile(log.Name())
		os.RemoveAll(run)
		if err != nil {
			ts.Fatalf("arch-node-agent: %v\n%s", err, text)
		}
	})
	note := make([]byte, 4096)
	for ready := false; !ready; {
		n, err := notes.Read(note)
		if err != nil {
			text, _ := os.ReadFile(log.Name())
			ts.Fatalf("arch-node-agent did not start:\n%s", text)
		}
		ready = strings.Contains(string(note[:n]), "READY=1")
	}
	text, err := os.ReadFile(log.Name()) // it says where it listens before it says that it is ready
	ts.Check(err)
	_, address, ok := strings.Cut(string(text), "msg=listening address=127.")
	if !ok {
		ts.Fatalf("arch-node-agent does not say where it listens:\n%s", text)
	}
	address, _, _ = strings.Cut(address, "\n")
	ts.Setenv("ARCH_AGENT", socket)
	ts.Setenv("NODE_URL", "http://127."+address)
}
