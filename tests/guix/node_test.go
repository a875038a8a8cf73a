package guix_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/tests/debroot"
)

// TestNode has the Shepherd start a node as Guix makes its services, in a Debian system: accounts, activation, the broker with its socket, and the agent
// in its least-authority wrapper, which runs a job.
func TestNode(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	for _, dir := range []string{"package/bin", "certificates/etc/ssl/certs", "home"} {
		if err := os.MkdirAll(filepath.Join(scratch, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(scratch, "package/bin")+"/", "./cmd/...")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := debroot.Start(t, debroot.Options{Read: []string{root}, Write: []string{scratch}})
	m.StartGuix(t, "--disable-chroot", "--build-users-group=")
	n := &shepherded{guix: &guix{m, root, scratch}}
	for _, step := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"it is built", n.build},
		{"it starts", n.start},
		{"the agent has few rights", n.fewRights},
		{"a module", n.runsModule},
		{"the agent is killed", n.survives},
		{"it stops", n.stop},
	} {
		if !t.Run(step.name, step.do) {
			logs, _, _ := n.output(t, "sh", "-c", "tail -n 40 /var/log/shepherd.log /var/log/arch-*.log")
			t.Fatal(logs)
		}
	}
}

// shepherded is a node that the Shepherd runs.
type shepherded struct {
	*guix
	said map[string][][]string // by key
}

// arch runs the program as root, and returns what it printed.
func (n *shepherded) arch(t *testing.T, args ...string) string {
	t.Helper()
	return n.run(t, append([]string{"env", "HOME=" + n.scratch + "/home", n.scratch + "/package/bin/arch"}, args...)...)
}

func (n *shepherded) herd(t *testing.T, args ...string) string {
	t.Helper()
	return n.run(t, append([]string{"herd", "--socket=/run/shepherd/socket"}, args...)...)
}

// build has Guix make everything, and puts in place what the services take for granted.
func (n *shepherded) build(t *testing.T) {
	n.said = map[string][][]string{}
	out := n.run(t, "guix", "repl", "-L", "guix", "--", "tests/guix/testdata/node.scm", n.scratch+"/package", n.scratch+"/certificates")
	for line := range strings.Lines(out) {
		words := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		n.said[words[0]] = append(n.said[words[0]], words[1:])
	}
	for _, a := range n.said["account"] {
		n.run(t, "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", a[2], "--shell", "/usr/sbin/nologin", a[0])
	}
	n.run(t, "mkdir", "-p", "/etc/arch")
	n.arch(t, "key", "new")
	n.arch(t, "key", "new", "/etc/arch/key")
	n.arch(t, "trust", "add", n.scratch+"/home/.config/arch/key", "--name", "olga", "--role", "job,policy")
	policy := n.script(t, "policy.yaml", fmt.Sprintf(`apiVersion: arch.network/v1
kind: Policy
metadata: {name: house, expires: %q}
spec:
  version: 1
  issuers: [{role: job}]
  runtimes: [wasm]
  degradations: [cpu, memory, processes, devices, io, refused-syscalls, own-process]
`, time.Now().AddDate(1, 0, 0).UTC().Format(time.RFC3339)))
	n.arch(t, "sign", policy)
	n.run(t, "install", "-m", "644", policy, "/etc/arch/policy.yaml")
	n.run(t, "install", "-m", "644", n.scratch+"/home/.config/arch/trust.yaml", "/etc/arch/trust.yaml")
}

// start starts the Shepherd with the services, and what they require of a machine that boots.
func (n *shepherded) start(t *testing.T) {
	n.run(t, "guile", "--no-auto-compile", "-c", "(use-modules (gnu build activation) (guix build utils)) (primitive-load (cadr (command-line)))", n.said["activation"][0][0])
	var config strings.Builder
	config.WriteString("(register-services (list (service '(user-processes) #:start (const #t)) (service '(networking) #:start (const #t))\n")
	for _, s := range n.said["service"] {
		config.WriteString(" (primitive-load \"" + s[0] + "\")\n")
	}
	config.WriteString("))\n")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	n.run(t, "mkdir", "-m", "700", "/run/shepherd") // or it refuses to start
	shepherd := n.m.Command(t.Context(), "shepherd", "--socket=/run/shepherd/socket", "--logfile=/var/log/shepherd.log", "--config="+n.script(t, "shepherd.scm", config.String()))
	shepherd.Stdout, shepherd.Stderr = log, log
	if err := shepherd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = shepherd.Wait() }() // it ends with the system
	n.poll(t, "test -S /run/shepherd/socket")
	n.herd(t, "start", "arch-node-agent")
	n.poll(t, n.scratch+"/package/bin/arch node status --agent /run/arch-node-agent/socket")
	if out := n.arch(t, "node", "status", "--agent", "/run/arch-node-agent/socket"); !strings.Contains(out, "policy   house version 1") {
		t.Errorf("status:\n%s", out)
	}
}

// poll waits for a minute at most until a command succeeds.
func (n *shepherded) poll(t *testing.T, command string) {
	t.Helper()
	script := `n=0; until "$0" -c "$1" >/tmp/polled 2>&1; do n=$((n+1)); if [ $n -gt 1200 ]; then cat /tmp/polled; exit 1; fi; busybox usleep 50000; done`
	if out, _, err := n.output(t, "sh", "-ec", script, "sh", command); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// agent returns the process of the agent itself, which the wrapper's are parents of.
func (n *shepherded) agent(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(n.run(t, "pgrep", "-f", "-u", "archagent", "^/gnu/store/[^ ]*/bin/arch-node-agent --policy"))
}

// fewRights looks at what the agent sees and may do.
func (n *shepherded) fewRights(t *testing.T) {
	pid := n.agent(t)
	status := n.run(t, "cat", "/proc/"+pid+"/status")
	for _, want := range []string{"\nCapEff:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("the agent has no %q:\n%s", want, status)
		}
	}
	seen := strings.Fields(n.run(t, "ls", "/proc/"+pid+"/root/"))
	if diff := cmp.Diff([]string{"dev", "etc", "gnu", "proc", "run", "tmp", "var"}, seen); diff != "" {
		t.Errorf("directories (-want +got):\n%s", diff)
	}
	// With all of root's rights, where the agent is.
	for path, want := range map[string]string{
		"/var/lib/arch-node-agent/new": "", "/run/arch-node-agent/new": "",
		"/etc/arch/policy.yaml": "Read-only file system", "/etc/arch/new": "Read-only file system", "/new": "Read-only file system",
		"/run/arch-node-agent.credentials/key": "Read-only file system", "/run/arch-runnerd/new": "Read-only file system",
	} {
		if _, stderr, err := n.output(t, "sh", "-c", "echo x >> /proc/"+pid+"/root"+path); (err == nil) != (want == "") || !strings.Contains(stderr, want) {
			t.Errorf("write %s: %v, want %q: %s", path, err, want, stderr)
		}
	}
	// And as the agent's user, whose key it is.
	if _, stderr, err := n.output(t, "setpriv", "--reuid=archagent", "--regid=archagent", "--clear-groups", "sh", "-c", "cat /run/arch-node-agent.credentials/key >/dev/null && ! echo x >> /run/arch-node-agent.credentials/key"); err != nil {
		t.Errorf("the agent's key: %v: %s", err, stderr)
	}
}

// runsModule hands in a module with its input.
func (n *shepherded) runsModule(t *testing.T) { n.submit(t, "wordcount") }

func (n *shepherded) submit(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.root, "tests/examples/jobs/wordcount.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.Replace(string(text), "name: wordcount", fmt.Sprintf("name: %s\n  owner: user:olga\n  expires: %q", name, time.Now().AddDate(1, 0, 0).UTC().Format(time.RFC3339)), 1)
	out := n.arch(t, "submit", "--wait", "--agent", "/run/arch-node-agent/socket", "--content", n.root+"/tests/examples/jobs", n.script(t, name+".yaml", doc))
	if !strings.HasPrefix(out, name+": archived") || !strings.Contains(out, "output   counts") {
		t.Errorf("submit:\n%s", out)
	}
}

// survives kills the agent: the Shepherd starts it again.
func (n *shepherded) survives(t *testing.T) {
	before := n.agent(t)
	n.run(t, "kill", "-KILL", before)
	n.poll(t, "! test -e /proc/"+before+" && "+n.scratch+"/package/bin/arch node status --agent /run/arch-node-agent/socket")
	if after := n.agent(t); after == before {
		t.Errorf("the agent is process %s, before and after", after)
	}
	n.submit(t, "again")
}

// stop stops both, and wants nothing to be left.
func (n *shepherded) stop(t *testing.T) {
	n.herd(t, "stop", "arch-node-agent")
	n.herd(t, "stop", "arch-runnerd")
	if out, _, err := n.output(t, "pgrep", "-l", "-u", "archagent,archrunner"); err == nil {
		t.Errorf("processes are left:\n%s", out)
	}
}
