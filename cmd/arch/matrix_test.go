package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
)

// TestBadInput gives every command that reads something every kind of thing that is not what it reads. Whatever
// comes of it, it is never success, never silence, and never a panic: the exit status is the interface of a verifier.
func TestBadInput(t *testing.T) {
	dir := ownHome(t)
	for name, content := range map[string]string{
		"empty": "", "garbage": "\x00\xff{[\x1b]0;owned\x07\n\"", "brace": "{", "null": "null", "binary": "\x7fELF\x02\x01\x01",
		"yaml": "a: 1\n", "json": `{"payloadType":"x","payload":"eA==","signatures":[]}`, "lines": strings.Repeat("{}\n", 5000),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inputs := []string{"empty", "garbage", "brace", "null", "binary", "yaml", "json", "lines", "missing", "directory", "huge", "fifo"}
	if err := os.Mkdir("directory", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("huge", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate("huge", 8<<30); err != nil { // sparse: it costs nothing, unless it is read to its end
		t.Fatal(err)
	}
	mkfifo(t, "fifo")
	if status, _, errout := arch(t, nil, "key", "new"); status != exitOK {
		t.Fatal(errout)
	}
	did := strings.Fields(firstOut(t, "key", "show"))[0]
	if status, _, errout := arch(t, nil, "trust", "add", did, "--name", "me"); status != exitOK {
		t.Fatal(errout)
	}
	if err := os.WriteFile("artifact", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	commands := [][]string{
		{"build", "@"},
		{"build", "--attest", "@"},
		{"build", "--dry-run", "@"},
		{"build", "--attest", "--key", "@", "artifact"},
		{"verify", "@"},
		{"verify", "artifact", "--receipts", "@"},
		{"verify", "artifact", "--trust", "@"},
		{"verify", "artifact", "--policy", "@"},
		{"verify", "artifact", "--vsa", "out", "--key", "@"},
		{"verify", "artifact", "--layout", "@", "--layout-key", "artifact"},
		{"verify", "artifact", "--layout", "artifact", "--layout-key", "@"},
		{"verify", "artifact", "--layout", "artifact", "--layout-key", "artifact", "--links", "@"},
		{"rebuild", "@"},
		{"rebuild", "--dry-run", "@"},
		{"rebuild", "--unsigned", "@"},
		{"run", "@"},
		{"run", "--dry-run", "@"},
		{"run", "--explain", "@"},
		{"run", "--unverified", "@"},
		{"run", "--policy", "@", "artifact"},
		{"run", "--trust", "@", "artifact"},
		{"run", "--driver", "@", "artifact"},
		{"run", "--allow", "@", "artifact"},
		{"doctor", "@"},
		{"doctor", "--driver", "@"},
		{"diff", "artifact", "@"},
		{"log", "@"},
		{"key", "show", "@"},
		{"key", "new", "--algorithm", "@"},
		{"key", "new", "--recipient", "@", "new.key"},
		{"trust", "show", "@"},
		{"trust", "add", "@", "--name", "x"},
		{"trust", "add", did, "--name", "x", "--trust", "@"},
		{"trust", "check", "@"},
		{"trust", "update", "@"},
		{"trust", "update", "--trust", "@", "artifact"},
		{"sign", "@"},
		{"sign", "--key", "@", "artifact"},
		{"check", "@"},
		{"check", "--role", "policy", "@"},
		{"wrap", "@"},
		{"unwrap", "@"},
		{"pin", "@"},
		{"explain", "@"},
		{"schema", "@"},
		{"ledger", "show", "--ledger", "@"},
		{"ledger", "show", "@", "--ledger", "directory"},
		{"ledger", "prove", "0", "--ledger", "@"},
		{"ledger", "prove", "@", "--ledger", "directory"},
		{"ledger", "verify", "@", "--policy", "artifact"},
		{"ledger", "verify", "artifact", "--policy", "@"},
		{"ledger", "verify", "artifact", "--vkey", "@"},
		{"ledger", "verify", "artifact", "--vkey", "x+12345678+AQ==", "--node", "@"},
		{"ledger", "fsck", "--ledger", "@"},
		{"ledger", "fsck", "--ledger", "directory", "--policy", "@"},
		{"ledger", "hammer", "--ledger", "artifact", "--goal", "@"},
		{"ledger", "hammer", "--ledger", "artifact", "--kills", "@"},
		{"ledger", "keys", "@"},
		{"ledger", "keys", "--ledger", "@"},
		{"ledger", "serve", "--ledger", "@", "--listen", "nowhere"},
		{"ledger", "witness", "--key", "@", "--state", "state", "--policy", "artifact"},
		{"ledger", "witness", "--key", "artifact", "--state", "state", "--policy", "@"},
		{"nar", "ls", "@"},
		{"nar", "restore", "@", "restored"},
		{"policy", "show", "@"},
		{"policy", "check", "@"},
		{"policy", "diff", "artifact", "@"},
		{"policy", "propose", "@"},
		{"policy", "sign", "@"},
		{"policy", "activate", "@", "--to", "active"},
		{"archive", "ls", "--agent", "@"},
		{"archive", "show", "./@"},
		{"archive", "import", "@"},
		{"archive", "export", "--agent", "@", "x"},
		{"replay", "./@"},
		{"challenge", "@"},
		{"challenge", "--keys", "@", "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x"},
		{"verify-sigs", "--keys", "@", "x", "x"},
		{"verify-sigs", "--keys", "artifact", "@", "@"},
		{"receipts", "publish", "--cache", "pub", "@"},
		{"serve-store", "@"},
		{"serve-store", "--nix-store", "directory", "--key", "@", "--listen", "nowhere"},
		{"instrument", "@", "--out", "prepared"},
		{"key", "cache", "name-1", "@/x"},
		{"store", "verify", "--store", "artifact/@"},
		{"node", "resume", "--agent", "@"},
		{"node", "top", "--agent", "@"},
		{"quarantine", "list", "--agent", "@"},
		{"quarantine", "show", "@"},
		{"quarantine", "discard", "--reason", "x", "@"},
		{"job", "why", "@"},
		{"submit", "@"},
		{"submit", "--dry-run", "@"},
		{"submit", "--agent", "@", "artifact"},
		{"jobs", "--agent", "@"},
		{"jobs", "--state", "@"},
		{"job", "show", "@"},
		{"why", "@"},
		{"logs", "@"},
		{"cancel", "@"},
		{"quarantine", "release", "--reason", "x", "@"},
		{"node", "status", "--agent", "@"},
		{"node", "drain", "--reason", "x", "--agent", "./@"},
		{"store", "ls", "@"},
		{"store", "gc", "--age", "@"},
		{"store", "ls", "--store", "@"},
		{"help", "@"},
		{"@"},
		{"completion", "@"},
		{"version", "@"},
		{"--color", "@", "version"},
		{"--config", "@", "version"},
		{"config", "view", "--config", "@"},
		{"config", "@"},
		{"version", "--output", "@"},
		{"man", "@"},
		{"man", "--dir", "artifact/@"},
	}
	holdsCommands(t, commands)
	allowed := map[string]bool{ // what is good input for these
		"--config empty version": true, "version --output json": true, "version --output yaml": true, "config view --config empty": true, "diff huge": true, "diff garbage": true, "store ls --store directory": true, "store ls --store missing": true,
		"key new --recipient": true, "key cache name-1 directory/x": true,
		"help json": true, "json": true, "man json": true, // a topic
	}
	for _, command := range commands {
		for _, input := range inputs {
			args := make([]string, len(command))
			for i, arg := range command {
				args[i] = strings.ReplaceAll(arg, "@", input)
			}
			name := strings.Join(args, " ")
			if allowed[name] || args[0] == "trust" && args[1] == "add" && args[len(args)-1] == "missing" {
				continue // a trust root that is missing is made
			}
			if strings.HasPrefix(name, "verify huge") { // it would be hashed, and rightly so
				continue
			}
			t.Run(name, func(t *testing.T) { refuses(t, nil, args...) })
		}
	}
	for _, command := range [][]string{{"nar", "ls"}, {"nar", "restore", "restored"}, {"check", "-"}, {"sign", "-"}, {"wrap", "--out", "-", "-"}, {"unwrap", "--out", "-", "-"}, {"pin", "-"}, {"build", "-"}} {
		for _, input := range []string{"empty", "garbage", "brace", "null", "binary", "yaml", "json", "lines", "huge"} {
			t.Run(strings.Join(command, " ")+" < "+input, func(t *testing.T) {
				f, err := os.Open(input)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				refuses(t, f, command...)
			})
		}
	}
	if _, err := os.Lstat("restored"); err == nil {
		t.Error("nar restore left something of an archive that it refused")
	}
}

// holdsCommands holds that the table of TestBadInput has every command, but those that can have no bad input.
func holdsCommands(t *testing.T, table [][]string) {
	t.Helper()
	none := map[string]bool{
		"arch hash": true, "arch nar dump": true, // any file or tree is good
	}
	eachCommand(newRootCommand(newApp(strings.NewReader(""), io.Discard, io.Discard)), func(c *cobra.Command) {
		path := c.CommandPath()
		if c.HasSubCommands() || isTopic(c) || none[path] || strings.HasPrefix(path, "arch completion") {
			return
		}
		words := strings.Fields(path)[1:]
		if !slices.ContainsFunc(table, func(args []string) bool { return len(args) >= len(words) && slices.Equal(args[:len(words)], words) }) {
			t.Errorf("%s is given no bad input", path)
		}
	})
}

// refuses runs a command that must fail, say why in one error, and let nothing through that a terminal would act on.
func refuses(t *testing.T, in io.Reader, args ...string) {
	t.Helper()
	status, out, errout := arch(t, in, args...)
	if status == exitOK || status >= 64 {
		t.Errorf("exit status %d; stdout %q, stderr %q", status, out, errout)
	}
	if n := strings.Count(errout, "arch: error: "); n != 1 {
		t.Errorf("%d errors on stderr, want 1: %q", n, errout)
	}
	if i := strings.IndexFunc(out+errout, unprintable); i >= 0 {
		t.Errorf("a control character reaches the terminal: %q", (out + errout)[i:])
	}
	status2, _, errout := arch(t, rewound(t, in), append(args, "--json")...)
	lines := strings.Split(strings.TrimSpace(errout), "\n")
	c, err := newChecker()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.line([]byte(lines[len(lines)-1])); err != nil {
		t.Error(err)
	}
	if last := lines[len(lines)-1]; status2 == exitOK || !strings.HasPrefix(last, `{"apiVersion":"arch.network/v1","kind":"Error","error":{"code":"`) {
		t.Errorf("with --json: exit status %d, last line %q", status2, last)
	}
}

func rewound(t *testing.T, in io.Reader) io.Reader {
	if s, ok := in.(io.Seeker); ok {
		if _, err := s.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
	}
	return in
}

// arch runs a command line within this process.
func arch(t *testing.T, in io.Reader, args ...string) (status int, out, errout string) {
	t.Helper()
	if in == nil {
		in = strings.NewReader("")
	}
	var o, e bytes.Buffer
	status = run(t.Context(), args, in, &o, &e)
	return status, o.String(), e.String()
}

func firstOut(t *testing.T, args ...string) string {
	t.Helper()
	status, out, errout := arch(t, nil, args...)
	if status != exitOK {
		t.Fatalf("arch %q: exit status %d: %s", args, status, errout)
	}
	return out
}

// ownHome changes to a new directory and makes it the place of everything that arch keeps.
func ownHome(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "ARCH_STORE"} {
		t.Setenv(name, filepath.Join(dir, "home", strings.ToLower(name)))
	}
	for _, name := range []string{"ARCH_CONFIG", "ARCH_STATE", "ARCH_DATA", "ARCH_AGENT", "NO_COLOR", "GOPROXY"} {
		t.Setenv(name, "")
	}
	t.Setenv("GOPROXY", "off")
	return dir
}

// TestNoHome runs commands on a host that says nothing of where files go.
func TestNoHome(t *testing.T) {
	ownHome(t)
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "ARCH_STORE"} {
		t.Setenv(name, "")
	}
	for _, args := range []string{"key show", "trust show", "store ls", "log", "key new", "trust check"} {
		status, _, errout := arch(t, nil, strings.Fields(args)...)
		want := "arch: hint: set HOME, or ARCH_"
		if status != exitError || !strings.Contains(errout, want) {
			t.Errorf("arch %s: exit status %d, stderr %q; want 1 and %q", args, status, errout, want)
		}
	}
	firstOut(t, "version")
	if got := firstOut(t, "hash", os.Args[0]); !strings.Contains(got, "sha256:") {
		t.Error(got)
	}
}

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}
