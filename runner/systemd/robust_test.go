package systemd_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"arch.network/runner"
	"arch.network/runner/runnertest"
	"arch.network/runner/systemd"
	"arch.network/tests/guest"
)

// testBrokenConnection loses the connection to systemd while units run.
func testBrokenConnection(t *testing.T, options systemd.Options) {
	r := driver(t, options)
	p, err := r.NewPool(t.Context(), systemd.PoolOptions{Class: class(t), Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	w, err := p.Take(t.Context(), runner.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	gate := newGate(t)
	spec := waitingJob(options.Executable, gate)
	var result runner.Result
	done := make(chan error)
	go func() {
		var err error
		result, err = r.Run(t.Context(), spec)
		done <- err
	}()
	pipe := openGate(t, gate) // the command has opened it as well
	if err := systemd.BreakConnection(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(pipe, "text")
	pipe.Close()
	if err := <-done; err != nil || !result.OK() {
		t.Errorf("got %+v, %v", result, err)
	}
	if err := systemd.BreakConnection(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if answer := say(t, w, "fail"); answer != "" {
		t.Errorf("answer %q", answer)
	}
	if result, err := w.Wait(t.Context()); err == nil { // systemd had nobody to keep it for
		t.Errorf("got %+v, %v", result, err)
	}
}

// testWithoutCapabilities runs some of the tests again in a service like the broker's: root's user id, and nothing else of root.
func testWithoutCapabilities(t *testing.T, options systemd.Options) {
	for name, private := range map[string]string{"bus": "", "private socket": "1"} {
		t.Run(name, func(t *testing.T) { withoutCapabilities(t, options, private) })
	}
}

func withoutCapabilities(t *testing.T, options systemd.Options, private string) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--quiet", "--wait", "--pipe", "--collect", "--unit=broker-like"}
	for _, p := range []string{
		"CapabilityBoundingSet=", "NoNewPrivileges=yes", "RestrictAddressFamilies=AF_UNIX", "PrivateNetwork=yes", "ProtectSystem=strict",
		"ReadWritePaths=/run/arch-jobs /tmp", "ProtectKernelTunables=yes", "ProtectProc=invisible", "PrivateDevices=yes", "UMask=0077",
	} {
		args = append(args, "--property="+p)
	}
	for _, kv := range []string{
		"ARCH_GUEST=" + string(guest.Inside()), privateVariable + "=" + private, binaryVariable + "=" + options.Executable,
		runnertest.ProbeVariable + "=" + os.Getenv(runnertest.ProbeVariable),
	} {
		args = append(args, "--setenv="+kv)
	}
	args = append(args, self, "-test.v", "-test.run=^TestSystemd$/^(probes|pool|contract)$/^(exit_status_is_reported|memory|one_job_each|outputs_arrive.*|cancelled_by.*|CPU_time)$")
	out, err := exec.CommandContext(t.Context(), "systemd-run", args...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestSystemd/contract/memory") {
		t.Errorf("%v\n%s", err, out)
	}
}

// testFailedStart asks for a unit whose name is taken, and for one whose program systemd cannot execute.
func testFailedStart(t *testing.T, options systemd.Options) {
	r := driver(t, options)
	gate := newGate(t)
	spec := waitingJob(options.Executable, gate)
	done := make(chan error)
	go func() {
		_, err := r.Run(t.Context(), spec)
		done <- err
	}()
	pipe := openGate(t, gate)
	if _, err := r.Run(t.Context(), spec); err == nil {
		t.Error("two executions have one name")
	}
	if _, err := io.WriteString(pipe, "text"); err != nil {
		t.Error(err)
	}
	pipe.Close()
	if err := <-done; err != nil {
		t.Errorf("the first of that name: %v", err)
	}
	for _, executable := range []string{"/nonexistent", "/etc/passwd", "/usr/bin/env"} {
		options.Executable = executable
		if _, err := systemd.New(t.Context(), options); err == nil {
			t.Errorf("%s is taken as the program of units", executable)
		}
	}
}
