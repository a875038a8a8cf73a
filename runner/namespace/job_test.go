package namespace_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/runnertest"
)

// talking confines the probe, which waits for "bye", and calls look while it does.
func talking(t *testing.T, look func()) runner.Spec {
	t.Helper()
	return runner.Spec{
		Commands: []runner.Command{{Argv: []string{"probe", "talk"}, Env: []string{"PATH=/bin"}}},
		Mounts:   []runner.Mount{{Kind: runner.Bind, Source: runnertest.Probe(t), Target: "/bin/probe"}},
		Exchange: func(conn *os.File) error {
			in := bufio.NewReader(conn)
			for _, word := range []string{"hello", "bye"} {
				if _, err := fmt.Fprintln(conn, word); err != nil {
					return err
				}
				if _, err := in.ReadString('\n'); err != nil {
					return err
				}
				if word == "hello" {
					look()
				}
			}
			return nil
		},
	}
}

// TestNetworkGatewayKilled kills the gateway in the middle: the job goes on without a way out, and the record says so.
func TestNetworkGatewayKilled(t *testing.T) {
	r := driver(namespace.Options{})(t)
	spec := talking(t, func() {
		killed := 0
		for _, pid := range childrenOf(t, os.Getpid()) {
			name, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			if err == nil && bytes.HasPrefix(name, []byte("arch-egress-gateway")) {
				syscall.Kill(atoi(t, pid), syscall.SIGKILL)
				killed++
			}
		}
		if killed != 1 {
			t.Errorf("%d gateways were killed", killed)
		}
	})
	spec.Network.Egress = []runner.Egress{{Protocol: "tcp", Port: 443}}
	result, err := r.Run(t.Context(), spec)
	if err != nil || !result.OK() {
		t.Fatalf("got %+v, %v", result, err)
	}
	lost := func(s string) bool { return strings.HasPrefix(s, "network-accounting: ") }
	if !slices.ContainsFunc(result.Confinement.Missing, lost) {
		t.Errorf("missing: %q", result.Confinement.Missing)
	}
}

func TestControlGroupsHaveTheName(t *testing.T) {
	r := driver(namespace.Options{})(t)
	var groups []string
	spec := talking(t, func() { groups = groupsOf(os.Getpid()) })
	spec.Name, spec.Limits.Memory = "job-of-a-name", 1<<30
	result, err := r.Run(t.Context(), spec)
	if err != nil || !result.OK() {
		t.Fatalf("got %+v, %v", result, err)
	}
	if !slices.ContainsFunc(result.Confinement.Enforced, func(s string) bool { return strings.HasPrefix(s, "memory:cgroup") }) {
		t.Skip("cannot run here: no control group may be made")
	}
	for _, g := range groups {
		if name := filepath.Base(g); !strings.HasPrefix(name, "arch-"+strconv.Itoa(os.Getpid())+"-") || !strings.HasSuffix(name, "-job-of-a-name") {
			t.Errorf("got group %s", g)
		}
	}
	if len(groups) == 0 {
		t.Error("there was no group")
	}
}
