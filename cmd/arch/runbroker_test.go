package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/runner"
	"arch.network/runner/broker"
	"arch.network/runner/checkpoint"
	"arch.network/runner/namespace"
	"arch.network/runner/wasm"
)

// startBroker serves a broker, which confines by namespaces, and trusts what it is given.
func startBroker(t *testing.T, worker, root, policy string) {
	t.Helper()
	dir := t.TempDir()
	driver, err := namespace.New(namespace.Options{Executable: worker})
	if err != nil {
		t.Fatal(err)
	}
	modules, err := wasm.New(wasm.Options{Driver: driver, Worker: worker})
	if err != nil {
		t.Fatal(err)
	}
	server, err := broker.New(t.Context(), broker.Options{
		Runner: modules,
		Checkpoint: func(ctx context.Context, spec runner.Spec, o checkpoint.Options) (runner.Result, *checkpoint.Checkpoint, error) {
			return checkpoint.Run(ctx, modules, spec, o)
		},
		Files: broker.Files{TrustRoot: root, Policy: policy}, State: filepath.Join(dir, "state"), Users: []uint32{uint32(os.Getuid())},
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	listener, err := broker.Listen(socket, os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("broker: %v", err)
		}
		server.Close()
		modules.Close()
	})
	t.Setenv("ARCH_BROKER", socket)
}

const brokerPolicy = `apiVersion: arch.network/v1
kind: Policy
metadata: {name: node, expires: "2999-01-01T00:00:00Z"}
spec:
  version: 1
  issuers: [{role: job}]
  runtimes: [wasm]
  capabilities: {allow: [checkpoint]}
  resources: {job: {memory: 1Gi}, timeout: 1h}
`

// TestRunByBroker has a broker run what was signed, and refuse what was not.
func TestRunByBroker(t *testing.T) {
	worker := buildWorker(t)
	jobs, err := filepath.Abs("../../tests/examples/jobs")
	if err != nil {
		t.Fatal(err)
	}
	ownHome(t)
	t.Setenv("ARCH_WORKER", worker)
	for _, name := range []string{"wordcount.yaml", "wordcount.wasm", "text"} {
		data, err := os.ReadFile(filepath.Join(jobs, name))
		if err == nil {
			err = os.WriteFile(name, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("policy.yaml", []byte(brokerPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	firstOut(t, "key", "new", "alice.key")
	firstOut(t, "key", "new", "eve.key")
	firstOut(t, "trust", "add", "alice.key", "--name", "alice", "--role", "job,policy", "--trust", "root.yaml")
	firstOut(t, "sign", "--key", "alice.key", "policy.yaml")
	firstOut(t, "sign", "--key", "alice.key", "--out", "job.yaml", "wordcount.yaml")
	firstOut(t, "sign", "--key", "eve.key", "--out", "eve.yaml", "wordcount.yaml")
	root, err := filepath.Abs("root.yaml")
	if err != nil {
		t.Fatal(err)
	}
	startBroker(t, worker, root, filepath.Join(filepath.Dir(root), "policy.yaml"))

	status, out, errout := arch(t, nil, "run", "--json", "--driver", "broker", "--attest", "job.yaml")
	if status != exitOK {
		t.Fatalf("exit status %d\n%s%s", status, out, errout)
	}
	var byBroker runResult
	if err := json.Unmarshal([]byte(out), &byBroker); err != nil {
		t.Fatal(err)
	}
	if byBroker.AllowedBy != "by the broker, under policy node" || !strings.Contains(errout, `30 words, 25 different`) {
		t.Errorf("allowed %s; stderr %s", byBroker.AllowedBy, errout)
	}
	if data, err := os.ReadFile("outputs/counts"); err != nil || !strings.HasPrefix(string(data), "4 and\n") {
		t.Errorf("counts: %q, %v", data, err)
	}

	// What the broker got is what anybody gets.
	var own runResult
	if err := json.Unmarshal([]byte(firstOut(t, "run", "--json", "--driver", "namespace", "--out", "own", "job.yaml")), &own); err != nil {
		t.Fatal(err)
	}
	if own.Result == nil || byBroker.Result == nil || *own.Result != *byBroker.Result {
		t.Errorf("two results: %v by the broker, %v by ourselves", byBroker.Result, own.Result)
	}

	stopByBroker(t)

	for _, tt := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"not to be stopped", []string{"--checkpoint", "state", "job.yaml"}, exitUsage, "by the broker only those that are checkpointable"},
		{"nobody signed it", []string{"wordcount.yaml"}, exitVerification, "the broker refuses"},
		{"somebody else signed it", []string{"eve.yaml"}, exitVerification, "the broker refuses"},
		{"what would be run is not known here", []string{"--explain", "job.yaml"}, exitUsage, "by its own policy"},
	} {
		status, _, errout := arch(t, nil, append([]string{"run", "--driver", "broker", "--out", "refused"}, tt.args...)...)
		if status != tt.status || !strings.Contains(errout, tt.want) || !strings.Contains(errout, "hint: ") {
			t.Errorf("%s: exit status %d, want %d\n%s", tt.name, status, tt.status, errout)
		}
	}
	if _, err := os.Stat("refused"); err == nil {
		t.Error("a refused job left a directory")
	}
	t.Setenv("ARCH_BROKER", filepath.Join(filepath.Dir(root), "nowhere"))
	if status, _, errout := arch(t, nil, "run", "--driver", "broker", "job.yaml"); status != exitError || !strings.Contains(errout, "nowhere") {
		t.Errorf("without a broker: exit status %d\n%s", status, errout)
	}
}

// stopByBroker has the broker stop a job twice, and bring it to its end.
func stopByBroker(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile("wordcount.yaml")
	if err == nil {
		data = bytes.Replace(data, []byte("  runtime: wasm"), []byte("  runtime: wasm\n  checkpointable: true"), 1)
		err = os.WriteFile("stoppable.yaml", data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	firstOut(t, "sign", "--key", "alice.key", "stoppable.yaml")
	run := func(args ...string) (int, string) {
		status, out, errout := arch(t, nil, append([]string{"run", "--out", "stopped", "--checkpoint", "state"}, args...)...)
		return status, out + errout
	}
	for _, at := range []string{"50000", "100000"} {
		if status, errout := run("--driver", "broker", "--stop-at", at, "stoppable.yaml"); status != exitInterrupted || !strings.Contains(errout, "the checkpoint is in state") {
			t.Fatalf("stop at %s: exit status %d\n%s", at, status, errout)
		}
	}
	if status, errout := run("--driver", "namespace", "stoppable.yaml"); status != exitError || !strings.Contains(errout, "by the broker, which keeps it") {
		t.Errorf("without the broker: exit status %d\n%s", status, errout)
	}
	if status, errout := run("--driver", "broker", "stoppable.yaml"); status != exitOK || !strings.Contains(errout, `30 words, 25 different`) {
		t.Errorf("to the end: exit status %d\n%s", status, errout)
	}
	if data, err := os.ReadFile("stopped/counts"); err != nil || !strings.HasPrefix(string(data), "4 and\n") {
		t.Errorf("counts: %q, %v", data, err)
	}
	if _, err := os.Stat("state"); err == nil {
		t.Error("a job that came to its end left its checkpoint")
	}
}
