package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/runner"
	"arch.network/runner/broker"
	"arch.network/runner/checkpoint"
	"arch.network/tests/guest"
	"arch.network/tests/wasmopt"
)

var (
	//go:embed testdata/hello.wasm
	hello []byte
	//go:embed testdata/spin.wasm
	spin []byte
)

// agent is the user id of the agent in the guest; what its number is does not matter.
const agent = 4711

// TestBroker runs the program under a real systemd, as its units say, and talks to it as the agent would.
func TestBroker(t *testing.T) {
	if guest.Inside() != "" {
		inside(t)
		return
	}
	dir := t.TempDir()
	binary, arch := filepath.Join(dir, "arch-runnerd"), filepath.Join(dir, "arch")
	for path, source := range map[string]string{binary: ".", arch: "../arch"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", path, source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	files := []string{binary, arch}
	files = append(files, prepare(t, dir)...)
	for _, mode := range []guest.Mode{guest.Namespaces, guest.UML} {
		t.Run(string(mode), func(t *testing.T) {
			guest.Run(t, guest.Config{Mode: mode, Pattern: "^TestBroker$", Files: append(files, "arch-runnerd.service", "arch-runnerd.socket"), Static: true})
		})
	}
}

// asAgent is set in the processes that run as the agent.
const asAgent = "ARCH_RUNNERD_TEST_AGENT"

func inside(t *testing.T) {
	if os.Getenv(asAgent) != "" {
		t.Run(os.Getenv(asAgent), agentTests[os.Getenv(asAgent)])
		return
	}
	install(t)
	t.Run("the unit is hardened", testScore)
	t.Run("it runs without capabilities", testCapabilities)
	names := []string{"a job", "a timeout"}
	if guest.Inside() == guest.UML { // some ten times slower: only what depends on the version of control groups
		for _, name := range names {
			t.Run(name, func(t *testing.T) { become(t, name) })
		}
		t.Run("it lives, with bounded memory", testAlive)
		t.Run("nothing is left", testLeft)
		return
	}
	for _, name := range append(names, "cancel", "hostile", "crowd", "checkpoint", "a closure", "a device", "arch run") {
		t.Run(name, func(t *testing.T) { become(t, name) })
	}
	t.Run("it lives, with bounded memory", testAlive)
	t.Run("a restart", testRestart)
	t.Run("root is no agent", func(t *testing.T) {
		_, err := (&broker.Client{}).Run(t.Context(), broker.Request{Envelope: []byte("{}")})
		wantCode(t, err, broker.CodePeer)
	})
	t.Run("an agent by number only", func(t *testing.T) {
		if out, err := asUser(t, agent+1, "hostile").CombinedOutput(); err == nil || !bytes.Contains(out, []byte("permission denied")) {
			t.Errorf("another user: %v\n%s", err, out)
		}
	})
	t.Run("nothing is left", testLeft)
}

// agentTests run as the agent, in a process of their own.
var agentTests = map[string]func(t *testing.T){
	"detach": testDetach, "attach": testAttach, "a job": testJob, "a timeout": testTimeout, "cancel": testCancel, "hostile": testHostile, "crowd": testCrowd,
	"checkpoint": testCheckpoint, "a closure": testClosure, "a device": testDevice, "arch run": testArchRun,
}

// become runs one of agentTests as the agent.
func become(t *testing.T, name string) {
	out, err := asUser(t, agent, name).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s\nbroker:\n%s", err, out, journal(t))
	} else {
		t.Logf("%s", out)
	}
}

func asUser(t *testing.T, uid uint32, name string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), guest.InsideDir+"/test", "-test.run=^TestBroker$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), asAgent+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

func journal(t *testing.T) []byte {
	t.Helper()
	out, _ := exec.Command("journalctl", "-u", "arch-runnerd.service", "-o", "cat", "-n", "60", "--no-pager").CombinedOutput()
	return out
}

// install puts the program, its units, and what it trusts in place, and starts the socket only: a connection starts the rest.
func install(t *testing.T) {
	t.Helper()
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("archagent:x:%d:%d::/:/usr/sbin/nologin\n", agent, agent)
	root, policy := trustRoot(t), housePolicy()
	binary, err := os.ReadFile(guest.InsideDir + "/arch-runnerd")
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{
		"/etc/passwd":           append(passwd, line...),
		"/etc/arch/trust.yaml":  envelope(t, root, "carol"),
		"/etc/arch/policy.yaml": envelope(t, policy, "carol"),
		"/usr/bin/arch-runnerd": binary,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	installContent(t)
	for _, unit := range []string{"arch-runnerd.service", "arch-runnerd.socket"} {
		data, err := os.ReadFile(filepath.Join(guest.InsideDir, unit))
		if err == nil {
			err = os.WriteFile("/run/systemd/system/"+unit, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	systemctl(t, "daemon-reload")
	systemctl(t, "start", "arch-runnerd.socket")
	if out, err := exec.Command("/usr/bin/arch-runnerd", "--check-config").CombinedOutput(); err != nil || !strings.Contains(string(out), "policy house version 1 is good") {
		t.Fatalf("check-config: %v\n%s", err, out)
	}
	systemctl(t, "start", "arch-runnerd.service")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("broker:\n%s", journal(t))
		}
	})
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %q: %v\n%s\n%s", args, err, out, journal(t))
	}
	return strings.TrimSpace(string(out))
}

// testScore wants at most 1.5 of systemd's own judgement.
func testScore(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", guest.InsideDir+"/arch-runnerd.service").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	_, last, _ := strings.Cut(string(out), "→")
	t.Logf("%s", strings.TrimSpace(last))
}

// testCapabilities looks at the running process.
func testCapabilities(t *testing.T) {
	pid := systemctl(t, "show", "--value", "-p", "MainPID", "arch-runnerd.service")
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(status)) {
		k, v, _ := strings.Cut(line, ":")
		got[k] = strings.Join(strings.Fields(v), " ")
	}
	for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if got[name] != "0000000000000000" {
			t.Errorf("%s is %s", name, got[name])
		}
	}
	if got["Uid"] != "0 0 0 0" || got["NoNewPrivs"] != "1" || got["Seccomp"] != "2" {
		t.Errorf("uid %s, no new privileges %s, seccomp %s", got["Uid"], got["NoNewPrivs"], got["Seccomp"])
	}
}

func testAlive(t *testing.T) {
	if n := systemctl(t, "show", "--value", "-p", "NRestarts", "arch-runnerd.service"); n != "0" {
		t.Errorf("it was restarted %s times", n)
	}
	pid := systemctl(t, "show", "--value", "-p", "MainPID", "arch-runnerd.service")
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if name, v, _ := strings.Cut(line, ":"); name == "VmHWM" {
			var kib int
			fmt.Sscan(v, &kib)
			t.Logf("at most %d MiB resident", kib>>10)
			if kib > 160<<10 {
				t.Errorf("%d KiB resident", kib)
			}
		}
	}
}

// testLeft looks when the broker has started once more: what its end has cut off, such as the making of machine code, is removed then.
func testLeft(t *testing.T) {
	systemctl(t, "restart", "arch-runnerd.service")
	systemctl(t, "stop", "arch-runnerd.service", "arch-runnerd.socket")
	if out := systemctl(t, "list-units", "--all", "--plain", "--no-legend", "arch-job-*", "arch-probe-*", "arch-pool-*"); out != "" {
		t.Errorf("units are left:\n%s", out)
	}
	if left, _ := filepath.Glob("/run/arch-jobs/*.sock"); len(left) > 0 {
		t.Errorf("sockets are left: %q", left)
	}
	for _, sub := range []string{"blobs", "trees"} {
		if left, _ := filepath.Glob("/var/lib/arch-runnerd/content/" + sub + "/.tmp-*"); len(left) > 0 {
			t.Errorf("left half done: %q", left)
		}
	}
	if out := systemctl(t, "show", "--value", "-p", "Result", "arch-runnerd.service"); out != "success" {
		t.Errorf("it ended with %s", out)
	}
}

// ask runs a job as the agent.
func ask(ctx context.Context, env []byte, content map[digest.SHA256][]byte, q broker.Request) (broker.Response, error) {
	q.Envelope, q.Content = env, contentOf(content)
	return new(broker.Client).Run(ctx, q)
}

// contentOf answers from a map.
func contentOf(content map[digest.SHA256][]byte) func(context.Context, broker.Item) (io.ReadCloser, error) {
	return func(_ context.Context, item broker.Item) (io.ReadCloser, error) {
		data, ok := content[item.Digest]
		if !ok {
			return nil, fmt.Errorf("there is no %s", item.Digest)
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
}

var contents = map[digest.SHA256][]byte{digest.Of(hello): hello, digest.Of(spin): spin}

func testJob(t *testing.T) {
	j := newJob(hello)
	j.Spec.Outputs = map[string]manifest.Target{"greeting": {Destination: "store"}}
	env := envelope(t, j, "alice")
	for i := range 2 {
		var out, errout bytes.Buffer
		dir := filepath.Join(t.TempDir(), "out")
		begin := time.Now()
		resp, err := ask(t.Context(), env, contents, broker.Request{
			Stdout: &out, Stderr: &errout,
			Collect: func(_ string, r io.Reader) error { return nar.Restore(t.Context(), r, dir, nar.RestoreOptions{}) },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("run %d: %v, of which the job %v", i, time.Since(begin), resp.Result.Wall)
		if !resp.Result.OK() || out.String() != "hello\n" || errout.Len() > 0 {
			t.Fatalf("got %+v, stdout %q, stderr %q", resp.Result, out.String(), errout.String())
		}
		data, err := os.ReadFile(dir)
		if err != nil || string(data) != "hello\n" {
			t.Errorf("the output is %q, %v", data, err)
		}
		r := resp.Result
		if r.Confinement.Driver != "systemd-pool" || len(r.Confinement.Enforced) == 0 || r.Gas == 0 || r.Engine == "" || len(r.Outputs) != 1 {
			text, _ := json.MarshalIndent(r, "", " ")
			t.Errorf("result %s", text)
		}
	}
}

// patience is how long something may take: a guest with a kernel of its own is slow.
func patience(fast, slow time.Duration) time.Duration {
	if guest.Inside() == guest.UML {
		return slow
	}
	return fast
}

func testTimeout(t *testing.T) {
	resp, err := ask(t.Context(), envelope(t, newJob(spin), "alice"), contents, broker.Request{Timeout: patience(300*time.Millisecond, 10*time.Second)})
	if err != nil || resp.Result.Reason != runner.ReasonTimeout {
		t.Errorf("got %+v, %v", resp.Result, err)
	}
}

func testCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := ask(ctx, envelope(t, newJob(spin), "alice"), contents, broker.Request{Started: func(string) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// agentDir is where the agent's processes leave things for each other.
const agentDir = "/run/arch-test-agent"

// testRestart kills the broker while a detached program runs in its unit and prints, and a detached module runs in the pool.
func testRestart(t *testing.T) {
	if _, err := os.Stat(busybox); err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	err := os.Mkdir(agentDir, 0o755)
	if err == nil {
		err = os.Chown(agentDir, agent, agent)
	}
	if err != nil {
		t.Fatal(err)
	}
	become(t, "detach")
	before := systemctl(t, "list-units", "--plain", "--no-legend", "arch-job-*")
	if !strings.Contains(before, "running") {
		t.Fatalf("the job does not run: %q", before)
	}
	pid := systemctl(t, "show", "--value", "-p", "MainPID", "arch-runnerd.service")
	workers := poolUnits(t)
	printUnread(t)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) { // systemd takes a moment to hear that it has died
		systemctl(t, "start", "arch-runnerd.service") // or systemd does it itself, after a second
		if now := systemctl(t, "show", "--value", "-p", "MainPID", "arch-runnerd.service"); now != pid && now != "0" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the broker was not restarted: %s", pid)
		}
	}
	if after := systemctl(t, "list-units", "--plain", "--no-legend", "arch-job-*"); !strings.Contains(after, "running") {
		t.Fatalf("the job did not outlive the broker: %q", after)
	}
	defer time.AfterFunc(2*time.Second, func() { wake(t) }).Stop() // while somebody waits for it
	become(t, "attach")
	for _, unit := range poolUnits(t) {
		if slices.Contains(workers, unit) {
			t.Errorf("worker %s outlived its broker", unit)
		}
	}
}

// poolUnits lists the running units of pools.
func poolUnits(t *testing.T) []string {
	var names []string
	for line := range strings.Lines(systemctl(t, "list-units", "--plain", "--no-legend", "--state=running", "arch-pool-*")) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names
}

// printUnread has the job print more than a pipe holds while the broker, which is stopped, reads nothing, and kills the broker.
func printUnread(t *testing.T) {
	systemctl(t, "kill", "--signal=STOP", "--kill-whom=main", "arch-runnerd.service")
	before := wake(t)
	for now := sleeping(); now == 0 || now == before; now = sleeping() {
		time.Sleep(10 * time.Millisecond) // if it never comes, the watchdog's 30 seconds end the broker, and the rest of the test fails
		if systemctl(t, "show", "--value", "-p", "ActiveState", "arch-runnerd.service") != "active" {
			t.Fatal("the job did not print and sleep again")
		}
	}
	systemctl(t, "kill", "--signal=KILL", "--kill-whom=main", "arch-runnerd.service")
}

// longSleep is what a job does until wake ends it, however long the broker takes to come back.
var longSleep = []string{"/bin/busybox", "sleep", "1234"}

// wake ends it and returns which process that was.
func wake(t *testing.T) int {
	pid := sleeping()
	if pid == 0 {
		t.Error("the job does not sleep any more")
	} else if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("end the job's sleep: %v", err)
	}
	return pid
}

// sleeping finds the job's sleep; 0: there is none.
func sleeping() int {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		if line, _ := os.ReadFile(name); string(line) == strings.Join(longSleep, "\x00")+"\x00" {
			var pid int
			fmt.Sscanf(name, "/proc/%d/cmdline", &pid)
			return pid
		}
	}
	return 0
}

// storePath is an object of a store of the guest's, which has no daemon: its pin vouches for it.
const storePath = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-busybox-1"

// installContent makes what jobs find on the host: an object of a store, and a device by name.
func installContent(t *testing.T) {
	t.Helper()
	files := map[string][]byte{
		"/etc/cdi/example.json": []byte(`{"cdiVersion":"0.6.0","kind":"example.org/null","devices":[{"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/harmless","hostPath":"/dev/null"}]}}]}`),
	}
	if program, err := os.ReadFile(busybox); err == nil {
		files[storePath+"/bin/busybox"] = program
	}
	for path, data := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// testClosure runs a program of the host's own store.
func testClosure(t *testing.T) {
	if _, err := os.Stat(busybox); err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	sum, _, err := nar.Hash(t.Context(), storePath, nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	j := newJob(hello)
	j.Spec.Runtime, j.Spec.Module, j.Spec.Args = manifest.RuntimeNix, "/bin/busybox", []string{"echo", "from the closure"}
	j.Spec.Image = manifest.Ref{Scheme: manifest.RefStore, Location: storePath, Digest: sum}
	j.Spec.Determinism = manifest.Determinism{Clock: manifest.ClockReal, Randomness: manifest.RandomReal}
	var out bytes.Buffer
	resp, err := ask(t.Context(), envelope(t, j, "alice"), nil, broker.Request{Stdout: &out, Stderr: &out})
	if err != nil || !resp.Result.OK() || out.String() != "from the closure\n" {
		t.Errorf("got %+v, %v, %q", resp.Result, err, out.String())
	}
	j.Spec.Image.Digest = digest.Of([]byte("another object"))
	_, err = ask(t.Context(), envelope(t, j, "alice"), nil, broker.Request{})
	wantCode(t, err, broker.CodeContent)
}

// testDevice gives a job a device by its name, and refuses one that the policy does not name.
func testDevice(t *testing.T) {
	if _, err := os.Stat(busybox); err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	j, content := busyboxJob(t, "test -c /dev/harmless && echo harm > /dev/harmless && echo a device")
	j.Spec.Capabilities.Devices = []string{"example.org/null=0"}
	var out bytes.Buffer
	resp, err := ask(t.Context(), envelope(t, j, "alice"), content, broker.Request{Stdout: &out, Stderr: &out})
	if err != nil || !resp.Result.OK() || out.String() != "a device\n" {
		t.Errorf("got %+v, %v, %q", resp.Result, err, out.String())
	}
	j.Spec.Capabilities.Devices = []string{"example.org/other=0"}
	_, err = ask(t.Context(), envelope(t, j, "alice"), content, broker.Request{})
	wantCode(t, err, broker.CodePolicy)
}

// testArchRun has an ordinary user run a signed job by command: the broker is found, asked, and given what the job pins.
func testArchRun(t *testing.T) {
	dir := t.TempDir()
	run := func(by string) (string, error) {
		j := newJob(hello)
		j.Spec.Outputs = map[string]manifest.Target{"greeting": {Destination: "store"}}
		for name, data := range map[string][]byte{"job.json": envelope(t, j, by), "hello.wasm": hello} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), guest.InsideDir+"/arch", "run", "--json", "job.json")
		cmd.Dir = dir
		cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("alice")
	if err != nil || !strings.Contains(out, `"systemd-pool"`) || !strings.Contains(out, "under policy house") {
		t.Fatalf("%v\n%s", err, out)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "outputs", "greeting")); err != nil || string(data) != "hello\n" {
		t.Errorf("the output is %q, %v", data, err)
	}
	out, err = run("mallory")
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 4 || !strings.Contains(out, "the broker refuses") {
		t.Errorf("%v\n%s", err, out)
	}
}

const busybox = "/bin/busybox"

// busyboxJob is a job that runs a script in an image.
func busyboxJob(t *testing.T, script string) (*manifest.Job, map[digest.SHA256][]byte) {
	t.Helper()
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err = w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = w.Write(program)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{"Entrypoint":["/bin/busybox","sh","-c"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`,
		runtime.GOARCH, digest.Of(layer.Bytes()))
	image := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		digest.Of(config), len(config), digest.Of(layer.Bytes()), layer.Len())
	j := newJob(hello)
	j.Spec.Runtime = manifest.RuntimeOCI
	j.Spec.Image = manifest.Ref{Scheme: manifest.RefOCI, Location: "example.org/busybox", Digest: digest.Of(image)}
	j.Spec.Args = []string{script}
	j.Spec.Determinism = manifest.Determinism{Clock: manifest.ClockReal, Randomness: manifest.RandomReal}
	return j, map[digest.SHA256][]byte{digest.Of(image): image, digest.Of(config): config, digest.Of(layer.Bytes()): layer.Bytes()}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func testDetach(t *testing.T) {
	sleep := strings.Join(longSleep, " ")
	j, content := busyboxJob(t, strings.Join([]string{"echo one", sleep, "/bin/busybox seq 20000", sleep, "echo three", "echo result > /outputs/index"}, "; "))
	j.Spec.Outputs = map[string]manifest.Target{"index": {Destination: "store"}}
	detachModule(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := ask(ctx, envelope(t, j, "alice"), content, broker.Request{
		Detach: true,
		Started: func(name string) {
			if err := os.WriteFile(agentDir+"/name", []byte(name), 0o600); err != nil {
				t.Error(err)
			}
		},
		Stdout: writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }),
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// detachModule starts a module that never ends.
func detachModule(t *testing.T) {
	spinning := envelope(t, newJob(spin), "alice")
	_, err := new(broker.Client).Submit(t.Context(), broker.Request{Envelope: spinning, Content: contentOf(contents), Ticket: "spin"})
	if err == nil {
		err = os.WriteFile(agentDir+"/spinning", spinning, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func testAttach(t *testing.T) {
	name, err := os.ReadFile(agentDir + "/name")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	dir := filepath.Join(t.TempDir(), "out")
	resp, err := new(broker.Client).Attach(t.Context(), string(name), broker.Request{
		Stdout:  &out,
		Collect: func(_ string, r io.Reader) error { return nar.Restore(t.Context(), r, dir, nar.RestoreOptions{}) },
	})
	if err != nil || !resp.Result.OK() {
		t.Fatalf("got %v, %+v, %q", err, resp.Result, out.String())
	}
	var want strings.Builder
	want.WriteString("one\n")
	for n := range 20_000 { // printed while the broker read nothing, or was not there
		fmt.Fprintln(&want, n+1)
	}
	want.WriteString("three\n")
	if out.String() != want.String() {
		t.Errorf("%d bytes were printed, %d arrived", want.Len(), out.Len())
	}
	if data, err := os.ReadFile(dir); err != nil || string(data) != "result\n" {
		t.Errorf("the output is %q, %v", data, err)
	}
	t.Logf("printed %d bytes; %s; %+v", out.Len(), resp.Result.Confinement.Driver, resp.Result.Usage)
	_, err = new(broker.Client).Attach(t.Context(), string(name), broker.Request{})
	wantCode(t, err, broker.CodeUnknown)
	attachModule(t)
}

// attachModule finds the module, which runs again, under its old name, and watches it until it has used something.
func attachModule(t *testing.T) {
	spinning, err := os.ReadFile(agentDir + "/spinning")
	if err != nil {
		t.Fatal(err)
	}
	again, err := new(broker.Client).Submit(t.Context(), broker.Request{Envelope: spinning, Content: contentOf(nil), Ticket: "spin"})
	if err != nil {
		t.Fatal(err)
	}
	used := errors.New("it has used something")
	watching, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	err = new(broker.Client).Watch(watching, func(jobs []broker.Job) error {
		for _, j := range jobs {
			if j.Name == again && j.Phase == broker.PhaseRunning && j.Usage.Wall > 0 {
				return used
			}
		}
		return nil
	})
	if !errors.Is(err, used) {
		t.Error(err)
	}
	resp, err := new(broker.Client).Cancel(t.Context(), again, broker.Request{})
	if err != nil || resp.Result.Reason != runner.ReasonCancelled {
		t.Errorf("got %+v, %v", resp.Result, err)
	}
}

func testHostile(t *testing.T) {
	tests := []struct {
		name    string
		env     func() []byte
		content map[digest.SHA256][]byte
		code    broker.Code
	}{
		{"garbage", func() []byte { return []byte("garbage") }, nil, broker.CodeEnvelope},
		{"unknown issuer", func() []byte { return envelope(t, newJob(hello), "mallory") }, nil, broker.CodeSignature},
		{"expired", func() []byte {
			j := newJob(hello)
			j.Metadata.Expires = "2020-01-01T00:00:00Z"
			return envelope(t, j, "alice")
		}, nil, broker.CodeTime},
		{"a path of the host", func() []byte {
			j := newJob(hello)
			j.Spec.Capabilities.FS = []string{"read:/etc"}
			return envelope(t, j, "alice")
		}, nil, broker.CodePolicy},
		{"other content than is pinned", func() []byte {
			return envelope(t, newJob([]byte("pinned")), "alice")
		}, map[digest.SHA256][]byte{digest.Of([]byte("pinned")): spin}, broker.CodeDigest},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := ask(t.Context(), test.env(), test.content, broker.Request{})
			wantCode(t, err, test.code)
		})
	}
}

// testCrowd opens many connections that say nothing.
func testCrowd(t *testing.T) {
	crowd, most := 10_000, 64
	var held []net.Conn
	for range crowd {
		conn, err := net.Dial("unix", broker.DefaultSocket)
		if errors.Is(err, syscall.EAGAIN) {
			continue // more wait than the socket's backlog holds
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(held) < most {
			held = append(held, conn)
			continue
		}
		conn.Close()
	}
	for _, conn := range held {
		conn.Close()
	}
	for range 10_000 { // until the broker has noticed that they are closed
		_, err := ask(t.Context(), envelope(t, newJob(hello), "alice"), contents, broker.Request{})
		if r, ok := errors.AsType[*broker.Refusal](err); ok && r.Code == broker.CodeBusy {
			continue
		}
		if err != nil {
			t.Error(err)
		}
		return
	}
	t.Error("the broker stays busy")
}

func wantCode(t *testing.T, err error, code broker.Code) {
	t.Helper()
	r, ok := errors.AsType[*broker.Refusal](err)
	if !ok || r.Code != code {
		t.Errorf("got %v, want code %s", err, code)
	}
}

func key(t *testing.T, name string) *identity.Key {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	k, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func envelope(t *testing.T, doc manifest.Document, names ...string) []byte {
	t.Helper()
	payload, err := manifest.Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	env := &dsse.Envelope{PayloadType: manifest.PayloadType(doc.DocumentKind()), Payload: payload}
	for _, name := range names {
		if err := env.Add(t.Context(), key(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	return env.Marshal()
}

// later is an end that lies far enough ahead.
func later() string {
	return time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Second).Format(time.RFC3339)
}

func trustRoot(t *testing.T) *manifest.TrustRoot {
	r := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot", Metadata: manifest.Metadata{Name: "node", Expires: later()},
		Spec: manifest.TrustRootSpec{Version: 1, Roles: map[string]manifest.TrustGroup{
			manifest.RoleGovernance: {Threshold: 1, Of: []string{"carol"}},
			manifest.RolePolicy:     {Threshold: 1, Of: []string{"carol"}},
			manifest.RoleJob:        {Threshold: 1, Of: []string{"alice"}},
		}},
	}
	for _, name := range []string{"alice", "carol"} {
		r.Spec.Principals = append(r.Spec.Principals, manifest.Principal{Name: name, Keys: []string{key(t, name).Public().String()}})
	}
	return r
}

func housePolicy() *manifest.Policy {
	return &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy", Metadata: manifest.Metadata{Name: "house", Expires: later()},
		Spec: manifest.PolicySpec{
			Version: 1, Issuers: []manifest.PolicyIssuer{{Role: manifest.RoleJob}}, Runtimes: []manifest.Runtime{manifest.RuntimeWasm, manifest.RuntimeOCI, manifest.RuntimeNix},
			Capabilities: manifest.PolicyCapabilities{Allow: []string{"clock:real", "randomness:real", "device:example.org/null=0", "checkpoint"}},
		},
	}
}

func newJob(module []byte) *manifest.Job {
	return &manifest.Job{
		APIVersion: manifest.APIVersion, Kind: "Job", Metadata: manifest.Metadata{Name: "hello", Owner: "user:alice", Expires: later()},
		Spec: manifest.JobSpec{
			Image:     manifest.Ref{Scheme: manifest.RefURL, Location: "https://example.org/hello.wasm", Digest: digest.Of(module)},
			Runtime:   manifest.RuntimeWasm,
			Resources: manifest.JobResources{Memory: "64Mi"},
		},
	}
}

// prepare makes the modules for testCheckpoint in dir, outside of the guest; none: this machine lacks the tools.
func prepare(t *testing.T, dir string) (files []string) {
	_, err := exec.LookPath("wasm-opt")
	if _, clang := exec.LookPath("clang-14"); err != nil || clang != nil {
		return nil
	}
	const sources = "../../runner/checkpoint/testdata/"
	for name, args := range map[string][]string{
		"c":  {"clang-14", "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-s", sources + "tree.c", "-o"},
		"go": {"go", "build", "-trimpath", "-ldflags=-s -w", "-o"},
	} {
		file := filepath.Join(dir, name+preparedSuffix)
		args = append(args, file)
		if name == "go" {
			args = append(args, sources+"collatz")
		}
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		module, err := os.ReadFile(file)
		if err == nil {
			module, _, err = checkpoint.Instrument(t.Context(), module, wasmopt.Path(t))
		}
		if err == nil {
			err = os.WriteFile(file, module, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// preparedSuffix is that of modules which were prepared for checkpoints.
const preparedSuffix = ".prepared.wasm"

// testCheckpoint stops modules of C and Go in their units, and has them go on in others.
func testCheckpoint(t *testing.T) {
	for name, output := range map[string]string{"c": "tree", "go": "collatz"} {
		module, err := os.ReadFile(filepath.Join(guest.InsideDir, name+preparedSuffix))
		if errors.Is(err, fs.ErrNotExist) {
			t.Skip("cannot run here: there was no wasm-opt to prepare a module")
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { stopAndGoOn(t, module, output) })
	}
}

// stopAndGoOn stops a module, which has one output: the result and the gas are those of a job that was not stopped.
func stopAndGoOn(t *testing.T, module []byte, output string) {
	j := newJob(module)
	j.Spec.Resources.Memory = "512Mi"
	j.Spec.Checkpointable, j.Spec.Args = true, []string{"count"}
	j.Spec.Outputs = map[string]manifest.Target{output: {Destination: "store"}}
	env := envelope(t, j, "alice")
	type part struct {
		Said, Output string
		Gas          uint64
	}
	run := func(q broker.Request) (part, broker.Response) {
		var said, left bytes.Buffer
		q.Stdout = &said
		q.Collect = func(_ string, nar io.Reader) error {
			_, err := io.Copy(&left, nar)
			return err
		}
		resp, err := ask(t.Context(), env, map[digest.SHA256][]byte{digest.Of(module): module}, q)
		if err != nil {
			t.Fatal(err)
		}
		return part{said.String(), digest.Of(left.Bytes()).String(), resp.Result.Gas}, resp
	}
	want, resp := run(broker.Request{})
	if !resp.Result.OK() || want.Said == "" || resp.Snapshot != nil {
		t.Fatalf("unstopped: %+v, %+v", want, resp)
	}
	first, resp := run(broker.Request{StopAt: want.Gas / 2})
	if resp.Snapshot == nil || resp.Result.Reason != runner.ReasonCancelled {
		t.Fatalf("not stopped: %+v", resp)
	}
	t.Logf("stopped after %d of %d gas in %s: %d bytes", resp.Snapshot.Gas, want.Gas, resp.Result.Confinement.Driver, resp.Snapshot.Size)
	got, last := run(broker.Request{Snapshot: resp.Snapshot.Digest})
	got.Said = first.Said + got.Said
	if got != want || !last.Result.OK() {
		t.Errorf("resumed: %+v, unstopped: %+v", got, want)
	}
	_, err := ask(t.Context(), env, nil, broker.Request{Snapshot: resp.Snapshot.Digest})
	wantCode(t, err, broker.CodeUnknown)
}
