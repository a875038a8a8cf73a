package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"

	"arch.network/agent/control/client"
	"arch.network/agent/nodetest"
)

// asAgent is set in processes that are the program, with a node that lives in memory.
const asAgent = "ARCH_NODE_AGENT_TEST"

func TestMain(m *testing.M) {
	if handled, code := inside(os.Args); handled {
		os.Exit(code)
	}
	switch os.Getenv(asAgent) {
	case "":
	case "real":
		main()
	default:
		os.Exit(run(context.Background(), memory, os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// memory is a wiring of a node that lives in memory. Its policy is bad if the file says so.
func memory(_ context.Context, o options, _ *slog.Logger) (*node, error) {
	m := nodetest.New(nodetest.Options{Execute: nodetest.Play})
	return &node{
		Node: m,
		run: func(ctx context.Context) error {
			m.Run(ctx)
			return nil
		},
		alive: func() bool { return true },
		close: func() error { return nil },
		reload: func(context.Context) error {
			data, err := os.ReadFile(o.policy)
			if err == nil && string(data) == "bad" {
				err = errors.New("the policy is bad")
			}
			return err
		},
	}, nil
}

// process is the program as systemd would start it.
type process struct {
	cmd    *exec.Cmd
	stderr *os.File
	notes  *net.UnixConn
	dir    string
}

func start(t *testing.T, prefix []string, args ...string) *process {
	t.Helper()
	p := &process{dir: t.TempDir()}
	var err error
	address := &net.UnixAddr{Name: filepath.Join(p.dir, "notify"), Net: "unixgram"}
	if p.notes, err = net.ListenUnixgram("unixgram", address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.notes.Close() })
	if p.stderr, err = os.Create(filepath.Join(p.dir, "stderr")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stderr.Close() })
	if err := os.WriteFile(filepath.Join(p.dir, "policy.yaml"), []byte("good"), 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	line := append(append(append([]string{}, prefix...), exe), append(args, "--policy", filepath.Join(p.dir, "policy.yaml"), "--state", p.dir)...)
	p.cmd = exec.CommandContext(t.Context(), line[0], line[1:]...)
	p.cmd.Env = append(os.Environ(), asAgent+"=1", "NOTIFY_SOCKET="+address.Name, "WATCHDOG_USEC=300000")
	p.cmd.Stderr = p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	return p
}

// hears waits for a message to systemd.
func (p *process) hears(t *testing.T, want string) {
	t.Helper()
	p.notes.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 4096)
	for {
		n, err := p.notes.Read(buf)
		if err != nil {
			log, _ := os.ReadFile(p.stderr.Name())
			t.Fatalf("systemd never heard %s: %v\n%s", want, err, log)
		}
		if strings.Contains(string(buf[:n]), want) {
			return
		}
	}
}

// TestService lives through what systemd does with a service.
func TestService(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s", "socket")
	p := start(t, nil, "--socket", socket, "--listen", "127.0.0.1:0")
	p.hears(t, "READY=1")
	p.hears(t, "WATCHDOG=1")
	node, err := client.New(socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.hears(t, "RELOADING=1")
	p.hears(t, "READY=1")
	if err := os.WriteFile(filepath.Join(p.dir, "policy.yaml"), []byte("bad"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.hears(t, "RELOADING=1")
	p.hears(t, "READY=1")
	if _, err := node.Status(t.Context()); err != nil {
		t.Errorf("after a bad policy: %v", err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.hears(t, "STOPPING=1")
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	log, err := os.ReadFile(p.stderr.Name())
	if err != nil || !strings.Contains(string(log), `msg="reload refused" error="the policy is bad"`) || !strings.Contains(string(log), "msg=reloaded") {
		t.Errorf("the log: %v\n%s", err, log)
	}
}

// TestActivation has systemd's own tool hand over the socket.
func TestActivation(t *testing.T) {
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	socket := filepath.Join(t.TempDir(), "socket")
	p := start(t, []string{tool, "-l", socket, "-E", asAgent + "=1", "-E", "NOTIFY_SOCKET", "--"}, "--socket", "/nowhere/socket")
	node, err := client.New(socket)
	if err != nil {
		t.Fatal(err)
	}
	for { // the tool needs a moment to listen
		if _, err = node.Status(t.Context()); err == nil || !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
	}
	if err != nil {
		log, _ := os.ReadFile(p.stderr.Name())
		t.Fatalf("%v\n%s", err, log)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestTwoAgents(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := listenUnix(socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(socket); err == nil {
		t.Error("a second agent took the socket of the first")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as if it had died
	l, err = listenUnix(socket)
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	l.Close()
	if err := os.WriteFile(socket, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := listenUnix(socket); err == nil {
		l.Close()
		t.Error("a file was replaced")
	}
}

func TestUsage(t *testing.T) {
	for _, args := range []string{"job.yaml", "--listen x", "--listen :0", "--listen 1.2.3.4:70000", "--host a:b", "--log-format loud", "--operator no-such-user-here", "--operator-group no-such-group", "--drain -1s", "--state=", "--nothing", "--config testdata/typo.yaml"} {
		var errout strings.Builder
		if status := run(t.Context(), memory, strings.Fields(args), io.Discard, &errout); status != exitUsage || !strings.HasPrefix(errout.String(), "arch-node-agent: error: ") {
			t.Errorf("%s: exit status %d: %s", args, status, errout.String())
		}
	}
	var out strings.Builder
	if status := run(t.Context(), memory, []string{"--help"}, &out, io.Discard); status != exitOK || !strings.Contains(out.String(), "arch-node-agent --listen 127.0.0.1:7340 --policy /etc/arch/policy.yaml") || !strings.Contains(out.String(), "EXIT STATUS") {
		t.Errorf("--help: exit status %d:\n%s", status, out.String())
	}
}

// TestBadInput gives the program every kind of thing that is not what it reads, where it only looks and where it would start. Whatever comes of
// it, it is never success, never silence, and never a panic.
func TestBadInput(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{
		"empty": "", "garbage": "\x00\xff{[\x1b]0;owned\x07\n\"", "brace": "{", "null": "null", "binary": "\x7fELF\x02\x01\x01", "yaml": "a: 1\n", "sequence": "- a\n",
		"json": `{"payloadType":"x","payload":"eA==","signatures":[]}`, "lines": strings.Repeat("{}\n", 5000), "anchor": "listen: &a [x]\n", "two": "a: 1\n---\nb: 2\n",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("directory", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo("fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"--show-config --config @", "--check-config --trust @", "--check-config --policy @", "--check-config --trust @ --policy @", "--driver @", "--listen @", "--operator @", "--slots @", "--drain @", "@"} {
		for _, input := range []string{"empty", "garbage", "brace", "null", "binary", "yaml", "sequence", "json", "lines", "anchor", "two", "missing", "directory", "fifo"} {
			if command == "--show-config --config @" && input == "empty" {
				continue // a file that sets nothing
			}
			args := strings.Fields(strings.ReplaceAll(command, "@", input))
			var errout strings.Builder
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			status := run(ctx, memory, args, io.Discard, &errout)
			stop()
			if status == exitOK || status > exitTrust || strings.Count(errout.String(), "arch-node-agent: error: ") != 1 {
				t.Errorf("%s: exit status %d: %q", strings.Join(args, " "), status, errout.String())
			}
		}
	}
}

// TestSettings shows where each setting comes from.
func TestSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("# a node\nread: true\nlisten: [127.0.0.1:1, 127.0.0.1:2]\ndrain: 1m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ARCH_NODE_SLOTS", "7")
	t.Setenv("ARCH_NODE_DRAIN", "2m")
	var out strings.Builder
	if status := run(t.Context(), memory, []string{"--show-config", "--config", file, "--drain", "3m"}, &out, io.Discard); status != exitOK {
		t.Fatal(out.String())
	}
	got := map[string]string{}
	for line := range strings.Lines(strings.ReplaceAll(out.String(), file, "FILE")) {
		name, rest, _ := strings.Cut(line, " ")
		got[name] = strings.Join(strings.Fields(rest), " ")
	}
	for name, want := range map[string]string{
		"read": "true file FILE:2:1", "listen": "127.0.0.1:1 127.0.0.1:2 file FILE:3:1", "slots": "7 environment ARCH_NODE_SLOTS", "drain": "3m0s flag --drain", "driver": "auto default", "name": "- default",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if _, ok := got["check-config"]; ok {
		t.Error("check-config is a setting")
	}
}

// TestJournal holds what journald gets: fields that it takes, whatever the keys are.
func TestJournal(t *testing.T) {
	var message string
	var got map[string]string
	var level journal.Priority
	log := slog.New(&journalHandler{send: func(m string, p journal.Priority, fields map[string]string) error {
		message, level, got = m, p, fields
		return nil
	}})
	log.With("job", "sha256:ab").WithGroup("run").WarnContext(t.Context(), "job failed", "exit", 3, "bad key=\n", "x\ny", slog.Group("at", "unit", "u"))
	want := map[string]string{
		"SYSLOG_IDENTIFIER": "arch-node-agent", "ARCH_JOB": "sha256:ab", "ARCH_RUN_EXIT": "3", "ARCH_RUN_BAD_KEY__": "x\ny", "ARCH_RUN_AT_UNIT": "u",
	}
	if diff := cmp.Diff(want, got); diff != "" || level != journal.PriWarning || !strings.HasPrefix(message, `job failed exit="3"`) {
		t.Errorf("message %q, priority %d, fields (-want +got):\n%s", message, level, diff)
	}
}
