package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest"
	"arch.network/runner"
	"arch.network/runner/program"
	"arch.network/runner/wasm"
)

// probeArgument makes of this program the one that doctor runs in confinement.
const probeArgument = "arch-doctor-probe"

// The lives of the probe.
const (
	probeLook  = "look"  // do what a hostile job would do, and tell what came of it
	probeEat   = "eat"   // use memory without end
	probeSleep = "sleep" // never end
)

// probeMain runs the probe if args, which are os.Args, say so.
func probeMain(args []string) (handled bool, code int) {
	if len(args) != 3 || args[1] != probeArgument {
		return false, 0
	}
	switch args[2] {
	case probeLook:
		if err := json.NewEncoder(os.Stdout).Encode(look()); err != nil {
			return true, 1
		}
	case probeEat:
		eat()
	case probeSleep:
		time.Sleep(time.Hour)
	}
	return true, 0
}

// sight is what the probe could do. An empty text says that it could.
type sight struct {
	Hidden     string            `json:"hidden"`     // why it cannot see the host's files
	ReadOnly   string            `json:"readOnly"`   // why it cannot write to its root
	Interfaces []string          `json:"interfaces"` // that are up
	Dial       string            `json:"dial"`       // why it cannot reach an address
	Calls      map[string]string `json:"calls"`      // why it cannot make a system call, by name
	Status     map[string]string `json:"status"`     // fields of /proc/self/status: proc_pid_status(5)
	Processes  int               `json:"processes"`  // that it sees
}

// look tries.
func look() sight {
	s := sight{Calls: map[string]string{}, Status: map[string]string{}}
	if _, err := os.ReadFile("/etc/passwd"); err != nil {
		s.Hidden = err.Error()
	}
	if err := os.WriteFile("/arch-doctor", nil, 0o600); err != nil {
		s.ReadOnly = err.Error()
	}
	all, _ := net.Interfaces() // none is fine
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 {
			s.Interfaces = append(s.Interfaces, i.Name)
		}
	}
	// 192.0.2.0/24 is for documentation (RFC 5737): nobody is there.
	conn, err := net.DialTimeout("tcp", "192.0.2.1:25", time.Second)
	if err != nil {
		s.Dial = err.Error()
	} else {
		conn.Close()
	}
	for name, call := range map[string]func() unix.Errno{
		"mount":          func() unix.Errno { return errnoOf(unix.Mount("none", "/tmp", "tmpfs", 0, "")) },
		"unshare":        func() unix.Errno { return errnoOf(unix.Unshare(unix.CLONE_NEWUSER)) },
		"ptrace":         func() unix.Errno { return errnoOf(unix.PtraceAttach(1)) },
		"bpf":            func() unix.Errno { return try(unix.SYS_BPF, 0, 0, 0) },
		"io_uring_setup": func() unix.Errno { return try(unix.SYS_IO_URING_SETUP, 1, 0, 0) },
		"keyctl":         func() unix.Errno { return try(unix.SYS_KEYCTL, 0, 0, 0) },
		"userfaultfd":    func() unix.Errno { return try(unix.SYS_USERFAULTFD, 0, 0, 0) },
	} {
		if errno := call(); errno != 0 {
			s.Calls[name] = errno.Error()
		}
	}
	s.status()
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") == "" {
			s.Processes++
		}
	}
	return s
}

func errnoOf(err error) unix.Errno {
	errno, _ := errors.AsType[unix.Errno](err)
	return errno
}

func try(number, a, b, c uintptr) unix.Errno {
	_, _, errno := unix.RawSyscall(number, a, b, c)
	return errno
}

func (s *sight) status() {
	data, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "CapEff", "CapBnd", "NoNewPrivs", "Seccomp":
			s.Status[name] = strings.TrimSpace(value)
		}
	}
}

// eat touches ever more memory.
func eat() {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
		runtime.KeepAlive(all)
	}
}

// probe runs the probe under a driver.
type probe struct {
	app    *app
	driver driver

	// opened and looked are made by the first check that needs them.
	opened func() (runner.Runner, error)
	looked func() (looked, error)
}

// looked is one run of probeLook.
type looked struct {
	sight
	result runner.Result
}

func newProbe(ctx context.Context, a *app, d driver) *probe {
	p := &probe{app: a, driver: d}
	p.opened = sync.OnceValues(func() (runner.Runner, error) {
		r, _, err := d.open(ctx) // for the rest of the process's life
		return r, err
	})
	p.looked = sync.OnceValues(func() (looked, error) { return p.look(ctx) })
	return p
}

// probeLimits are tight, so that whatever escapes them stays small.
const (
	probeMemory    = 256 << 20
	probeProcesses = 64
	probeWall      = 20 * time.Second
)

func (p *probe) run(ctx context.Context, life string, change func(*runner.Spec)) (runner.Result, []byte, error) {
	r, err := p.opened()
	if err != nil {
		return runner.Result{}, nil, err
	}
	self, err := probeProgram()
	if err != nil {
		return runner.Result{}, nil, err
	}
	var out bytes.Buffer
	spec := runner.Spec{
		Commands: []runner.Command{{Argv: []string{"/arch", probeArgument, life}, Env: append(self.Env, "GOMAXPROCS=1")}},
		Mounts: append([]runner.Mount{
			{Kind: runner.Bind, Source: self.Path, Target: "/arch"}, {Kind: runner.Tmpfs, Target: "/tmp", Size: 1 << 20},
		}, self.Mounts...),
		Limits: runner.Limits{Wall: probeWall, Memory: probeMemory, Processes: probeProcesses, CPU: 1000, Log: 1 << 20, Scratch: 1 << 20},
		Stdout: &out, Stderr: &out,
	}
	if change != nil {
		change(&spec)
	}
	res, err := r.Run(ctx, spec)
	return res, out.Bytes(), err
}

// probeProgram is the program to run inside, with what it needs there.
func probeProgram() (program.Program, error) {
	if w := ownWorker(); w != "" {
		return program.Program{Path: w}, nil
	}
	return program.Self()
}

func (p *probe) look(ctx context.Context) (looked, error) {
	res, out, err := p.run(ctx, probeLook, nil)
	if err != nil {
		return looked{}, err
	}
	l := looked{result: res}
	if !res.OK() {
		return l, fmt.Errorf("the program that was tried ended with %s %d %s: %.200q", res.Reason, res.Exit, res.Detail, out)
	}
	return l, json.Unmarshal(out, &l.sight)
}

// confinementChecks try what a hostile job would do.
func confinementChecks(a *app, d driver) []doctorCheck {
	p := newProbe(context.Background(), a, d)
	return []doctorCheck{
		{"confinement", true, p.confinement, "in a container, allow user namespaces and an unmasked /proc; elsewhere: sysctl user.max_user_namespaces=10000, kernel.unprivileged_userns_clone=1"},
		{"files hidden", true, p.files, "use the driver that this machine supports: arch doctor --driver namespace"},
		{"processes hidden", true, p.processes, "use a kernel with process namespaces (CONFIG_PID_NS)"},
		{"no network", true, p.network, "use a kernel with network namespaces (CONFIG_NET_NS)"},
		{"system calls", true, p.calls, "use a kernel with CONFIG_SECCOMP_FILTER"},
		{"no privileges", true, p.privileges, "report this: it must hold everywhere"},
		{"memory limit", true, p.memory, "give this process a control group with the memory controller"},
		{"time limit", true, p.time, "report this: it must hold everywhere"},
		{"cgroup limits", false, p.groups, "have limits kept by the kernel: run as root, under systemd with Delegate=yes, or by the broker arch-runnerd"},
		{"CPU limit", false, p.cpu, "have the cpu controller delegated, as for cgroup limits; without it a job with resources.cpu runs unlimited, and its receipt says so"},
		{"egress gateway", false, p.egress, "jobs with capabilities.net are refused without it"},
		{"module engine", true, p.engine, "allow executable memory: MemoryDenyWriteExecute= of a unit forbids it; or run modules with --interpret"},
		{"module gas", true, p.gas, "report this: the count must be the same everywhere"},
	}
}

func (p *probe) confinement(context.Context) (string, error) {
	l, err := p.looked()
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("driver %s ran a program in %s: %s", p.driver.name, took(l.result.Wall), strings.Join(l.result.Confinement.Enforced, ", "))
	var missing []string
	for _, m := range attest.Weaknesses(l.result.Confinement.Missing) {
		if !strings.HasPrefix(m, "cpu:") { // is a check of its own
			missing = append(missing, m)
		}
	}
	if len(missing) > 0 {
		return text, fmt.Errorf("missing: %s", strings.Join(missing, "; "))
	}
	return text, nil
}

func (p *probe) files(context.Context) (string, error) {
	l, err := p.looked()
	switch {
	case err != nil:
		return "", err
	case l.Hidden == "":
		return "", errors.New("the program read the host's /etc/passwd")
	case l.ReadOnly == "":
		return "", errors.New("the program wrote to its root directory")
	}
	return l.Hidden + "; " + l.ReadOnly, nil
}

func (p *probe) processes(context.Context) (string, error) {
	l, err := p.looked()
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("the program sees %s in /proc", count(l.Processes, "process", "processes"))
	if l.Processes == 0 || l.Processes > 8 {
		return seen, errors.New("those cannot all be its own")
	}
	return seen, nil
}

func (p *probe) network(context.Context) (string, error) {
	l, err := p.looked()
	switch {
	case err != nil:
		return "", err
	case l.Dial == "":
		return "", errors.New("the program made a connection")
	case len(l.Interfaces) > 0:
		return "", fmt.Errorf("interfaces are up: %s", strings.Join(l.Interfaces, ", "))
	}
	return "no interface is up; " + l.Dial, nil
}

func (p *probe) calls(context.Context) (string, error) {
	l, err := p.looked()
	if err != nil {
		return "", err
	}
	var refused []string
	for _, name := range []string{"bpf", "io_uring_setup", "keyctl", "mount", "ptrace", "unshare", "userfaultfd"} {
		if l.Calls[name] == "" {
			return "", fmt.Errorf("the program could call %s", name)
		}
		refused = append(refused, name)
	}
	if l.Status["Seccomp"] != "2" {
		return "", fmt.Errorf("no filter is in force: Seccomp is %q", l.Status["Seccomp"])
	}
	return "refused: " + strings.Join(refused, ", "), nil
}

func (p *probe) privileges(context.Context) (string, error) {
	l, err := p.looked()
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("CapEff %s, CapBnd %s, NoNewPrivs %s", l.Status["CapEff"], l.Status["CapBnd"], l.Status["NoNewPrivs"])
	if strings.Trim(l.Status["CapEff"], "0") != "" || l.Status["CapEff"] == "" || l.Status["NoNewPrivs"] != "1" {
		return seen, errors.New("the program has capabilities, or could get some")
	}
	return seen, nil
}

func (p *probe) memory(ctx context.Context) (string, error) {
	res, _, err := p.run(ctx, probeEat, func(s *runner.Spec) { s.Limits.Memory = 64 << 20 })
	switch {
	case err != nil:
		return "", err
	case res.Reason != runner.ReasonOutOfMemory:
		return "", fmt.Errorf("a program that eats memory ended with %q: %s", res.Reason, res.Detail)
	}
	return fmt.Sprintf("a program that eats memory was stopped at %s of 64.0 MiB after %s (%s)", size(res.MemoryPeak), took(res.Wall), enforcedBy(res, "memory")), nil
}

// enforcedBy returns what keeps a limit, as the record says.
func enforcedBy(res runner.Result, limit string) string {
	for _, e := range res.Confinement.Enforced {
		if by, ok := strings.CutPrefix(e, limit+":"); ok {
			return by
		}
	}
	return "nothing"
}

func (p *probe) time(ctx context.Context) (string, error) {
	res, _, err := p.run(ctx, probeSleep, func(s *runner.Spec) { s.Limits.Wall = 200 * time.Millisecond })
	switch {
	case err != nil:
		return "", err
	case res.Reason != runner.ReasonTimeout:
		return "", fmt.Errorf("a program that never ends ended with %q", res.Reason)
	}
	return fmt.Sprintf("a program that never ends was stopped after %s", took(res.Wall)), nil
}

func (p *probe) groups(context.Context) (string, error) {
	l, err := p.looked()
	if err != nil {
		return "", err
	}
	memory, processes := enforcedBy(l.result, "memory"), enforcedBy(l.result, "processes")
	seen := fmt.Sprintf("memory is limited by %s, processes by %s", memory, processes)
	if !strings.HasPrefix(memory, "cgroup") || !strings.HasPrefix(processes, "cgroup") {
		return seen, errors.New("by counting, which is slower to notice")
	}
	return seen, nil
}

func (p *probe) cpu(context.Context) (string, error) {
	l, err := p.looked()
	if err != nil {
		return "", err
	}
	if by := enforcedBy(l.result, "cpu"); by != "nothing" {
		return "limited by " + by, nil
	}
	return "", errors.New("no controller limits processor time")
}

func (p *probe) egress(ctx context.Context) (string, error) {
	res, out, err := p.run(ctx, probeLook, func(s *runner.Spec) {
		s.Network.Egress = []runner.Egress{{Protocol: "tcp", Port: 443}}
	})
	if err != nil {
		return "", err
	}
	var s sight
	if !res.OK() || json.Unmarshal(out, &s) != nil {
		return "", fmt.Errorf("the program that was tried ended with %s %d %s", res.Reason, res.Exit, res.Detail)
	}
	if s.Dial == "" {
		return "", errors.New("with port 443 allowed, the program reached port 25")
	}
	return "with port 443 allowed, port 25 is refused: " + s.Dial, nil
}

// smallModule exports a function _start that does next to nothing: a type, a function, a memory of a page, an export, a body.
var smallModule = slices.Concat(
	[]byte("\x00asm\x01\x00\x00\x00"), []byte("\x01\x04\x01\x60\x00\x00"), []byte("\x03\x02\x01\x00"), []byte("\x05\x03\x01\x00\x01"),
	[]byte("\x07\x0a\x01\x06_start\x00\x00"), []byte("\x0a\x07\x01\x05\x00\x41\x01\x1a\x0b"),
)

// module runs a module that does nothing.
func (p *probe) module(ctx context.Context, interpret bool) (runner.Result, error) {
	r, err := p.opened()
	if err != nil {
		return runner.Result{}, err
	}
	m, err := wasm.New(wasm.Options{Driver: r, Worker: ownWorker()})
	if err != nil {
		return runner.Result{}, err
	}
	defer m.Close()
	start := time.Unix(0, 0)
	res, err := m.Run(ctx, runner.Spec{
		Module: &runner.Module{Path: "/module.wasm", Args: []string{"empty"}, Clock: &start, Seed: new([32]byte), Interpret: interpret},
		Mounts: []runner.Mount{{Kind: runner.Data, Content: smallModule, Target: "/module.wasm"}},
		Limits: runner.Limits{Wall: probeWall, Memory: 512 << 20, Processes: probeProcesses},
	})
	if err == nil && !res.OK() {
		err = fmt.Errorf("a module that does nothing ended with %s %d %s", res.Reason, res.Exit, res.Detail)
	}
	return res, err
}

func (p *probe) engine(ctx context.Context) (string, error) {
	res, err := p.module(ctx, false)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("a module that does nothing ran in %s: %s", took(res.Wall), res.Engine), nil
}

func (p *probe) gas(ctx context.Context) (string, error) {
	compiled, err := p.module(ctx, false)
	if err != nil {
		return "", err
	}
	interpreted, err := p.module(ctx, true)
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("%d by the compiler, %d by the interpreter", compiled.Gas, interpreted.Gas)
	if compiled.Gas != interpreted.Gas {
		return seen, errors.New("the two differ")
	}
	return seen, nil
}
