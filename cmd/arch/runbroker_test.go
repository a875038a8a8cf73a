package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/runner/broker"
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
		Runner: modules, Files: broker.Files{TrustRoot: root, Policy: policy}, State: filepath.Join(dir, "state"), Users: []uint32{uint32(os.Getuid())},
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

	for _, tt := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
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
