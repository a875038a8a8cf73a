package nix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"arch.network/attest/digest/nar"
	"arch.network/tests/guest"
)

// testNode starts the example's node, as Nix renders its units and with the programs that Nix built, under a real systemd.
func testNode(t *testing.T, m *machine, bin string) {
	systemd := m.run(t, m.nix("eval", "--json", ".#nixosConfigurations.example.config.systemd", "--apply", "s: { inherit (s) services sockets slices; }")...)
	dir := t.TempDir()
	write(t, filepath.Join(dir, exampleFile), []byte(systemd), 0o644)
	files := []string{filepath.Join(dir, exampleFile)}
	for _, name := range []string{"wordcount.yaml", "wordcount.wasm", "text"} {
		files = append(files, filepath.Join(root, "tests/examples/jobs", name))
	}
	for _, name := range programs {
		files = append(files, filepath.Join(bin, name))
	}
	guest.Run(t, guest.Config{Mode: guest.Namespaces, Pattern: "^TestFlake$", Files: files, Static: true})
}

// exampleFile holds what Nix evaluated, in the guest.
const exampleFile = "example.json"

// The users of the guest, by number, and the group that operates the node: settings.operatorGroups of the example.
const (
	archagent = 4711
	olga      = 4712 // an operator
	viktor    = 4713 // who is not
	wheel     = 4720
)

// insideNode is what runs in the guest. Its parts are steps of one life, in order.
func insideNode(t *testing.T) {
	n := &exampleNode{}
	for _, step := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"it starts", n.starts},
		{"its services are hardened", n.hardened},
		{"its agent cannot write the policy", n.policyIsOutOfReach},
		{"a module", n.runsModule},
		{"a program", n.runsProgram},
		{"a refusal", n.refuses},
		{"a stranger", n.keepsStrangersOut},
		{"cancel", n.cancels},
		{"the agent is killed", func(t *testing.T) {
			n.survives(t, "arch-node-agent", false, func(t *testing.T) { n.kill(t, "arch-node-agent") })
		}},
		{"the broker is killed", func(t *testing.T) {
			n.survives(t, "arch-runnerd", true, func(t *testing.T) { n.kill(t, "arch-runnerd") })
		}},
		{"the broker is restarted", func(t *testing.T) {
			n.survives(t, "restarted", true, func(t *testing.T) { systemctl(t, "restart", "arch-runnerd.service") })
		}},
		{"the agent is stopped", func(t *testing.T) { n.survives(t, "stopped", false, n.stopAgent) }},
		{"the ledger", n.proves},
		{"the watchdog", n.isWatched},
		{"nothing is left", n.leavesNothing},
	} {
		if !t.Run(step.name, step.do) {
			t.Logf("agent:\n%s\nbroker:\n%s", journal("arch-node-agent", 60), journal("arch-runnerd", 60))
			return
		}
	}
}

// exampleNode is the node of nix/example.nix.
type exampleNode struct {
	mounts, processes []string // that were there before
}

// journal returns the last lines that are about a unit.
func journal(unit string, n int) []byte {
	out, _ := exec.Command("journalctl", "-u", unit, "-o", "cat", "-n", fmt.Sprint(n), "--no-pager").CombinedOutput()
	return out
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func show(t *testing.T, unit, property string) string {
	t.Helper()
	return systemctl(t, "show", "--value", "-p", property, unit)
}

// home of a user.
func home(uid uint32) string {
	if uid == 0 {
		return "/root"
	}
	return fmt.Sprintf("/home/%d", uid)
}

// as prepares arch as a user calls it.
func as(t *testing.T, uid uint32, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), filepath.Join(guest.InsideDir, "arch"), args...)
	cmd.Dir = home(uid)
	cmd.Env = []string{"HOME=" + home(uid), "PATH=" + os.Getenv("PATH")}
	groups := map[uint32][]uint32{olga: {wheel}}[uid]
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	}
	return cmd
}

// run has a user call arch, and returns what it printed.
func run(t *testing.T, uid uint32, args ...string) string {
	t.Helper()
	out, text, status := try(t, uid, args...)
	if status != 0 {
		t.Fatalf("arch %q: exit status %d\n%s%s", args, status, out, text)
	}
	return out
}

// try is run with any exit status.
func try(t *testing.T, uid uint32, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, text bytes.Buffer
	cmd := as(t, uid, args...)
	cmd.Stdout, cmd.Stderr = &out, &text
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("arch %q: %v", args, err)
	}
	return out.String(), text.String(), cmd.ProcessState.ExitCode()
}

// document writes a document into a user's home.
func document(t *testing.T, uid uint32, name, text string) string {
	t.Helper()
	path := filepath.Join(home(uid), name)
	write(t, path, []byte(text), 0o644)
	if err := os.Chown(path, int(uid), int(uid)); err != nil {
		t.Fatal(err)
	}
	return path
}

// starts puts in place what the example takes for granted, and starts it as a machine that boots does.
func (n *exampleNode) starts(t *testing.T) {
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, id := range map[string]int{"archagent": archagent, "olga": olga, "viktor": viktor, "wheel": wheel} {
			if file == "/etc/group" {
				data = fmt.Appendf(data, "%s:x:%d:\n", name, id)
			} else if id != wheel {
				data = fmt.Appendf(data, "%s:x:%d:%d::%s:/bin/sh\n", name, id, id, home(uint32(id)))
			}
		}
		write(t, file, data, 0o644)
	}
	for _, uid := range []int{olga, viktor} {
		if err := errors.Join(os.MkdirAll(home(uint32(uid)), 0o755), os.Chown(home(uint32(uid)), uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
	n.trust(t)
	n.installUnits(t)
	n.mounts, n.processes = mounts(t), processes(t)
	systemctl(t, "daemon-reload")
	systemctl(t, "start", "arch-runnerd.socket", "arch-node-agent.socket")
	// Nothing else is started: a user's first question does that.
	if out := run(t, olga, "node", "status"); !strings.Contains(out, "policy   house version 1") {
		t.Errorf("status:\n%s", out)
	}
	if got := show(t, "arch-node-agent", "ActiveState"); got != "active" {
		t.Errorf("the agent is %s", got)
	}
}

// trust has the operator make a key, a trust root and a policy, and root install them.
func (n *exampleNode) trust(t *testing.T) {
	run(t, olga, "key", "new")
	run(t, olga, "trust", "add", filepath.Join(home(olga), ".config/arch/key"), "--name", "olga", "--role", "job,policy")
	policy := document(t, olga, "policy.yaml", fmt.Sprintf(`apiVersion: arch.network/v1
kind: Policy
metadata: {name: house, expires: %q}
spec:
  version: 1
  issuers: [{role: job}]
  runtimes: [wasm, nix]
  capabilities: {allow: ["clock:real", "randomness:real", "read:%s"]}
`, later(), gate))
	run(t, olga, "sign", policy)
	for from, to := range map[string]string{policy: "/etc/arch/policy.yaml", filepath.Join(home(olga), ".config/arch/trust.yaml"): "/etc/arch/trust.yaml"} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, to, data, 0o644)
	}
	if err := os.MkdirAll("/run/keys", 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(guest.InsideDir, "arch"), "key", "new", "/run/keys/arch-node-agent").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.MkdirAll(gate, 0o755); err != nil {
		t.Fatal(err)
	}
}

// installUnits writes what Nix evaluated, and puts the programs where the units look for them.
func (n *exampleNode) installUnits(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(guest.InsideDir, exampleFile))
	if err != nil {
		t.Fatal(err)
	}
	var example evaluated
	if err := json.Unmarshal(data, &example); err != nil {
		t.Fatal(err)
	}
	unit := func(name string, sections map[string]map[string]any) {
		var text strings.Builder
		for section, properties := range sections {
			fmt.Fprintf(&text, "[%s]\n%s\n", section, strings.Join(lines(properties), "\n"))
		}
		write(t, "/run/systemd/system/"+name, []byte(text.String()), 0o644)
	}
	for name, s := range example.Services {
		unit(name+".service", map[string]map[string]any{"Unit": s.UnitConfig, "Service": s.ServiceConfig})
		program, _, _ := strings.Cut(fmt.Sprint(s.ServiceConfig["ExecStart"]), " ")
		if !strings.HasPrefix(program, "/nix/store/") {
			t.Fatalf("%s is started from %s", name, program)
		}
		install(t, filepath.Join(guest.InsideDir, filepath.Base(program)), program)
		if reload, ok := s.ServiceConfig["ExecReload"]; ok {
			program, _, _ := strings.Cut(fmt.Sprint(reload), " ")
			install(t, busybox, program)
		}
	}
	for name, s := range example.Sockets {
		unit(name+".socket", map[string]map[string]any{"Unit": s.UnitConfig, "Socket": s.SocketConfig})
	}
	for name, s := range example.Slices {
		unit(name+".slice", map[string]map[string]any{"Slice": s.SliceConfig})
	}
	install(t, busybox, storePath+"/bin/busybox")
}

const busybox = "/bin/busybox"

func install(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, data, 0o755)
}

// hardened asks systemd how exposed the running services are.
func (n *exampleNode) hardened(t *testing.T) {
	systemctl(t, "start", "arch-runnerd.service")
	for _, unit := range []string{"arch-node-agent.service", "arch-runnerd.service"} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--no-pager", "--threshold=15", unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
		_, last, _ := strings.Cut(string(out), "→")
		t.Logf("%s", strings.TrimSpace(last))
	}
	pid := show(t, "arch-node-agent", "MainPID")
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(status)) {
		k, v, _ := strings.Cut(line, ":")
		got[k] = strings.Join(strings.Fields(v), " ")
	}
	for name, want := range map[string]string{
		"Uid": "4711 4711 4711 4711", "NoNewPrivs": "1", "Seccomp": "2", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapBnd": "0000000000000000",
	} {
		if got[name] != want {
			t.Errorf("the agent has %s: %s, want %s", name, got[name], want)
		}
	}
}

// policyIsOutOfReach tries to write the policy as the agent, and then with all of root's rights where the agent is.
func (n *exampleNode) policyIsOutOfReach(t *testing.T) {
	pid := show(t, "arch-node-agent", "MainPID")
	for _, tt := range []struct {
		who  []string
		file string
		want string
	}{
		{[]string{"-S", "4711", "-G", "4711"}, "/etc/arch/policy.yaml", "ermission denied"},
		{nil, "/etc/arch/policy.yaml", "Read-only file system"},
		{nil, "/etc/arch/trust.yaml", "Read-only file system"},
		{nil, "/etc/arch/new", "Read-only file system"},
	} {
		args := append([]string{"-t", pid, "-m"}, tt.who...)
		out, err := exec.CommandContext(t.Context(), "nsenter", append(args, "sh", "-c", "echo x >> "+tt.file)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%v: %s: %v, want %q\n%s", tt.who, tt.file, err, tt.want, out)
		}
	}
}

// storePath is an object of a store of the guest's, which has no daemon: its pin vouches for it.
const storePath = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-busybox-1"

// gate is a directory of the host's that a job may read: it waits there for a file.
const gate = "/srv/gate"

func later() string { return time.Now().AddDate(1, 0, 0).UTC().Format(time.RFC3339) }

// runsModule hands in a module with its input, which the node has not.
func (n *exampleNode) runsModule(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(guest.InsideDir, "wordcount.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.Replace(string(text), "name: wordcount", "name: wordcount\n  owner: user:olga\n  expires: \""+later()+"\"", 1)
	job := document(t, olga, "wordcount.yaml", doc)
	out := run(t, olga, "submit", "--wait", "--content", guest.InsideDir, job)
	if !strings.HasPrefix(out, "wordcount: archived") || !strings.Contains(out, "output   counts") {
		t.Errorf("submit:\n%s", out)
	}
	out = run(t, olga, "job", "show", "--json", "wordcount")
	var shown struct {
		Attempts []struct {
			Gas    uint64
			Driver string
		}
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Attempts) != 1 || shown.Attempts[0].Gas == 0 || shown.Attempts[0].Driver != "systemd-pool" {
		t.Errorf("%v\n%s", err, out)
	}
}

// program is a job that runs a script.
func (n *exampleNode) program(t *testing.T, name, script string) string {
	t.Helper()
	sum, _, err := nar.Hash(t.Context(), storePath, nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return document(t, olga, name+".yaml", fmt.Sprintf(`apiVersion: arch.network/v1
kind: Job
metadata: {name: %s, owner: "user:olga", expires: %q}
spec:
  image: %s#%s
  runtime: nix
  module: /bin/busybox
  args: [sh, -c, %q]
  capabilities: {fs: ["read:%s"]}
  determinism: {clock: real, randomness: real}
  resources: {memory: 64Mi, processes: 8}
  outputs: {result: store}
`, name, later(), storePath, sum.SRI(), script, gate))
}

// runsProgram has a program of the host's store run in a unit of its own.
func (n *exampleNode) runsProgram(t *testing.T) {
	out := run(t, olga, "submit", "--wait", n.program(t, "program", "echo hello; echo result > /outputs/result"))
	if !strings.HasPrefix(out, "program: archived") {
		t.Errorf("submit:\n%s", out)
	}
	if out := run(t, olga, "logs", "program"); out != "hello\n" {
		t.Errorf("it printed %q", out)
	}
	if out := run(t, olga, "why", "program"); !strings.Contains(out, "admission: accepted") {
		t.Errorf("why:\n%s", out)
	}
}

// refuses hands in what the policy does not allow.
func (n *exampleNode) refuses(t *testing.T) {
	path := n.program(t, "greedy", "true")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, bytes.Replace(data, []byte("read:"+gate), []byte("read:/etc"), 1), 0o644)
	if out, text, status := try(t, olga, "submit", "--wait", path); status != 3 {
		t.Errorf("exit status %d\n%s%s", status, out, text)
	}
	if out := run(t, olga, "why", "greedy"); !strings.Contains(out, "read:/etc") || !strings.Contains(out, "to change it") {
		t.Errorf("why:\n%s", out)
	}
}

// keepsStrangersOut has a user ask who operates nothing and is trusted in nothing, and asks over HTTP, where nobody is known.
func (n *exampleNode) keepsStrangersOut(t *testing.T) {
	run(t, viktor, "key", "new")
	job := document(t, viktor, "job.yaml", `apiVersion: arch.network/v1
kind: Job
metadata: {name: viktor, owner: "user:viktor"}
spec: {image: "https://example.org/x.wasm#sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", runtime: wasm}
`)
	for _, args := range [][]string{{"jobs"}, {"logs", "program"}, {"cancel", "program"}, {"submit", job}, {"node", "drain", "--reason", "malice"}} {
		for _, agent := range []string{"/run/arch-node-agent/socket", "http://127.0.0.1:7340"} {
			if out, text, status := try(t, viktor, append(args, "--agent", agent)...); status != 3 {
				t.Errorf("%q at %s: exit status %d\n%s%s", args, agent, status, out, text)
			}
		}
	}
	if _, _, status := try(t, viktor, "run", "--driver", "broker", job); status == 0 {
		t.Error("the broker works for anybody")
	}
}

// running hands in a program that prints a line and waits at the gate, and returns when it has printed it.
func (n *exampleNode) running(t *testing.T, name string) (job string) {
	t.Helper()
	job = n.program(t, name, "echo begun; until test -e "+gate+"/"+name+"; do /bin/busybox sleep 0.1; done; echo ended; echo result > /outputs/result")
	run(t, olga, "submit", job)
	logs := as(t, olga, "logs", "-f", name)
	pipe, err := logs.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := logs.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("begun\n"))
	_, err = io.ReadFull(pipe, line)
	logs.Process.Kill()
	logs.Wait()
	if err != nil || string(line) != "begun\n" {
		t.Fatalf("logs -f %s: %v, %q\n%s", name, err, line, run(t, olga, "why", name))
	}
	return job
}

// cancels ends a program that runs.
func (n *exampleNode) cancels(t *testing.T) {
	job := n.running(t, "hangs")
	if units := jobUnits(t); !strings.Contains(units, "running") {
		t.Errorf("no unit runs: %q", units)
	}
	run(t, olga, "cancel", "hangs", "--reason", "it hangs")
	if out, text, status := try(t, olga, "submit", "--wait", job); status != 6 {
		t.Errorf("exit status %d\n%s%s", status, out, text)
	}
	if out := run(t, olga, "why", "hangs"); !strings.Contains(out, "it hangs") {
		t.Errorf("why:\n%s", out)
	}
	if units := jobUnits(t); units != "" {
		t.Errorf("its unit is left: %q", units)
	}
}

func jobUnits(t *testing.T) string {
	t.Helper()
	return systemctl(t, "list-units", "--plain", "--no-legend", "arch-job-*")
}

// survives has a program run while something happens to its node, and wants it to be found again, the result to be kept, and nothing to
// be run twice. broker says that it happens to the broker.
func (n *exampleNode) survives(t *testing.T, name string, broker bool, happens func(t *testing.T)) {
	job := n.running(t, name)
	before := jobUnits(t)
	if !strings.Contains(before, "running") {
		t.Fatalf("no unit runs: %q", before)
	}
	happens(t)
	if after := jobUnits(t); after != before {
		t.Errorf("units: before %q, after %q", before, after)
	}
	write(t, filepath.Join(gate, name), nil, 0o644)
	out, text, status := try(t, olga, "submit", "--wait", "--timeout", "3m", job)
	if status != 0 || !strings.HasPrefix(out, name+": archived") {
		t.Fatalf("exit status %d\n%s%s\n%s", status, out, text, run(t, olga, "why", name))
	}
	// What a program prints once its broker has ended is lost: runner/systemd, Running.Wait.
	if out := run(t, olga, "logs", name); out != "begun\nended\n" && (!broker || out != "begun\n") {
		t.Errorf("it printed %q", out)
	}
	out = run(t, olga, "job", "show", "--json", name)
	var shown struct{ Attempts []any }
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Attempts) != 1 {
		t.Errorf("it was run %d times: %v\n%s", len(shown.Attempts), err, out)
	}
}

// kill ends a service as a fault does, and waits until systemd has started it again.
func (n *exampleNode) kill(t *testing.T, unit string) {
	before := show(t, unit, "MainPID")
	systemctl(t, "kill", "--signal=KILL", "--kill-who=main", unit)
	n.restarted(t, unit, before)
}

// restarted waits until a service has another main process, and is ready.
func (n *exampleNode) restarted(t *testing.T, unit, pid string) {
	t.Helper()
	for {
		now, state := show(t, unit, "MainPID"), show(t, unit, "ActiveState")
		if state == "active" && now != pid && now != "0" {
			return
		}
		if state == "failed" {
			t.Fatalf("%s failed:\n%s", unit, journal(unit, 60))
		}
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// stopAgent stops the agent, and has a question start it again.
func (n *exampleNode) stopAgent(t *testing.T) {
	systemctl(t, "stop", "arch-node-agent.service")
	if got := show(t, "arch-node-agent.service", "Result"); got != "success" {
		t.Errorf("it ended with %s", got)
	}
	run(t, olga, "node", "status")
}

// proves recomputes the ledger, and proves what became of a job to somebody who has nothing but the proofs and the keys.
func (n *exampleNode) proves(t *testing.T) {
	const ledger = "/var/lib/arch-node-agent/ledger"
	run(t, 0, "ledger", "fsck", "--ledger", ledger)
	var job struct{ ID string }
	var node struct{ Node string }
	for what, args := range map[any][]string{&job: {"job", "show", "--json", "program"}, &node: {"node", "status", "--json"}} {
		if err := json.Unmarshal([]byte(run(t, olga, args...)), what); err != nil {
			t.Fatal(err)
		}
	}
	keys := document(t, viktor, "keys", run(t, 0, "ledger", "keys", "--ledger", ledger))
	run(t, 0, "ledger", "prove", job.ID, "--ledger", ledger, "--out", "/run/proofs")
	proofs, err := filepath.Glob("/run/proofs/*")
	if err != nil || len(proofs) < 3 { // an entry may hold several decisions
		t.Fatalf("%d decisions are proven: %v", len(proofs), err)
	}
	run(t, viktor, append([]string{"ledger", "verify", "--policy", keys, "--node", node.Node}, proofs...)...)
	data, err := os.ReadFile(proofs[0])
	if err != nil {
		t.Fatal(err)
	}
	changed := document(t, viktor, "changed.tlog-proof", strings.Replace(string(data), "\n\n", "\n\n ", 1))
	if out, text, status := try(t, viktor, "ledger", "verify", "--policy", keys, changed); status == 0 {
		t.Errorf("a proof that was changed holds:\n%s%s", out, text)
	}
}

// isWatched stops the agent's process without ending it. Its 30 seconds are too long for a test: here they are two.
func (n *exampleNode) isWatched(t *testing.T) {
	write(t, "/run/systemd/system/arch-node-agent.service.d/watchdog.conf", []byte("[Service]\nWatchdogSec=2s\n"), 0o644)
	systemctl(t, "daemon-reload")
	systemctl(t, "restart", "arch-node-agent.service")
	pid := show(t, "arch-node-agent", "MainPID")
	systemctl(t, "kill", "--signal=STOP", "--kill-who=main", "arch-node-agent.service")
	n.restarted(t, "arch-node-agent.service", pid)
	if out := journal("arch-node-agent", 1000); !bytes.Contains(out, []byte("Failed with result 'watchdog'")) {
		t.Errorf("systemd did not notice:\n%s", out)
	}
	run(t, olga, "node", "status")
}

// leavesNothing stops everything.
func (n *exampleNode) leavesNothing(t *testing.T) {
	systemctl(t, "stop", "arch-node-agent.socket", "arch-node-agent.service", "arch-runnerd.socket", "arch-runnerd.service")
	for _, unit := range []string{"arch-node-agent.service", "arch-runnerd.service"} {
		if got := show(t, unit, "Result"); got != "success" {
			t.Errorf("%s ended with %s", unit, got)
		}
	}
	if tasks := show(t, "arch-jobs.slice", "TasksCurrent"); tasks != "0" && tasks != "[not set]" {
		t.Errorf("%s processes are left in the slice of the jobs", tasks)
	}
	systemctl(t, "stop", "arch-jobs.slice") // it is the configuration's, and stays where it is not stopped
	if out := systemctl(t, "list-units", "--plain", "--no-legend", "arch-*"); out != "" {
		t.Errorf("units are left:\n%s", out)
	}
	for _, pattern := range []string{"/run/arch-jobs/*.sock", "/run/arch-node-agent/*", "/run/arch-runnerd/*", "/var/lib/arch-runnerd/content/*/.tmp-*", "/tmp/systemd-private-*arch-*"} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("files are left: %q", left)
		}
	}
	for what, lists := range map[string][2][]string{"mounts": {n.mounts, mounts(t)}, "processes": {n.processes, processes(t)}} {
		for _, now := range lists[1] {
			if !slices.Contains(lists[0], now) {
				t.Errorf("%s are left: %s", what, now)
			}
		}
	}
}

// mounts are those that everybody sees, by place.
func mounts(t *testing.T) (out []string) {
	t.Helper()
	data, err := os.ReadFile("/proc/1/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		out = append(out, strings.Fields(line)[4])
	}
	return out
}

// processes are those of the guest that have a program, by number and name; not this one and its children.
func processes(t *testing.T) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range all {
		exe, err := os.Readlink(link)
		if err == nil && (strings.Contains(exe, "arch") || strings.Contains(exe, "busybox")) && !strings.HasPrefix(exe, guest.InsideDir) {
			out = append(out, filepath.Dir(link)+" "+exe)
		}
	}
	return out
}
