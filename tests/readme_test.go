package tests

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// elsewhere are the words behind sh in a fence of the README that mark commands which cannot be run here, with the reason.
var elsewhere = map[string]string{
	"nix":   "it needs Nix or Guix, caches and keys of others: tests/nix and tests/guix run what it says",
	"suite": "this is a test of that suite",
}

// TestReadme runs the commands of the README, in order, word for word, as somebody new does: in a copy of the repository and with a home of
// their own. A command succeeds, or ends as the comment behind it says ("# exit status 3: …"). A fence that is not run must say why by a
// word behind its language.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands, left, err := readCommands(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range left {
		t.Logf("not run: %s", c)
	}
	if testing.Short() {
		t.Skip("cannot run here: the README's example takes a minute, and -short was given")
	}
	needModules(t)
	dir, err := os.MkdirTemp("", "arch-readme-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		makeWritable(dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	root, home := filepath.Join(dir, "arch"), filepath.Join(dir, "home")
	copyRepository(t, root)
	for _, d := range []string{home, filepath.Join(home, "bin")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.CommandContext(t.Context(), "bash", "-c", script(commands))
	c.Dir, c.Env = root, newcomer(t, home)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what runs in the background ends with it
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		t.Errorf("%v; the last command is the wrong one:\n%s", err, out.String())
	}
	t.Log(out.String())
}

// shown is a command of the README.
type shown struct {
	text string
	line int
	exit int // the status that it ends with
}

func (c shown) String() string { return fmt.Sprintf("README.md:%d: %s", c.line, c.text) }

var exitStatus = regexp.MustCompile(`\s# exit status (\d+)\b`)

// readCommands returns the commands in a text's fences, those that are to be run and those that their marks leave out.
func readCommands(text string) (run, left []shown, err error) {
	var fence []string // words behind the opening; nil: outside
	for i, line := range strings.Split(text, "\n") {
		at := func(format string, args ...any) error {
			return fmt.Errorf("README.md:%d: "+format, append([]any{i + 1}, args...)...)
		}
		if words, ok := strings.CutPrefix(line, "```"); ok {
			if fence != nil {
				fence = nil
				continue
			}
			fence = append([]string{}, strings.Fields(words)...)
			if len(fence) > 0 && fence[0] != "sh" && fence[0] != "yaml" || len(fence) > 2 {
				return nil, nil, at("a fence is sh, perhaps with one mark, yaml, or nothing; not %q", words)
			}
			if len(fence) == 2 && elsewhere[fence[1]] == "" {
				return nil, nil, at("nobody says what the mark %q means", fence[1])
			}
			continue
		}
		first, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch isCommand := first == "arch" || first == "$" || first == "go" || first == "nix" || first == "guix"; {
		case fence == nil || first == "" || first == "#":
		case len(fence) == 0 || fence[0] != "sh":
			if isCommand {
				return nil, nil, at("a command in a fence that is not marked sh: %s", line)
			}
		case strings.HasSuffix(line, `\`):
			return nil, nil, at("a command has one line")
		default:
			c := shown{text: line, line: i + 1}
			if m := exitStatus.FindStringSubmatch(line); m != nil {
				if c.exit, err = strconv.Atoi(m[1]); err != nil {
					return nil, nil, at("%w", err)
				}
			}
			if len(fence) == 2 {
				left = append(left, c)
			} else {
				run = append(run, c)
			}
		}
	}
	if fence != nil {
		return nil, nil, fmt.Errorf("README.md: the last fence is open")
	}
	return run, left, nil
}

// script runs the commands in one shell, up to the first that ends in another way than is said. What it puts into the background is
// ready when its socket is there, and must end well when it is told to.
func script(commands []shown) string {
	var b strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&b, "printf '\\n$ %%s\\n' %s\n%s\n", quoted(c.text), c.text)
		command, _, _ := strings.Cut(c.text, " #")
		if command = strings.TrimSpace(command); !strings.HasSuffix(command, "&") {
			fmt.Fprintf(&b, "got=$?; [ $got = %d ] || { echo \"it ended with status $got, not %d\"; kill 0; exit 1; }\n", c.exit, c.exit)
			continue
		}
		_, socket, _ := strings.Cut(command, "--socket ")
		socket, _, _ = strings.Cut(socket, " ")
		fmt.Fprintf(&b, "while ! [ -S %s ]; do kill -0 $! || exit 1; sleep 0.05; done\n", quoted(socket))
	}
	b.WriteString("for job in $(jobs -p); do kill $job; wait $job || { echo \"what ran in the background ended with status $?\"; exit 1; }; done\n")
	return b.String()
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// newcomer is the environment of somebody who has Go, its caches and nothing of ours.
func newcomer(t *testing.T, home string) []string {
	t.Helper()
	env := []string{"HOME=" + home, "PATH=" + filepath.Join(home, "bin") + ":" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8"}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB"} {
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(value)))
	}
	// With the settings of the programs that other tests make, little is left to compile.
	return append(env, "GOFLAGS=-trimpath", "CGO_ENABLED=0", "GOTOOLCHAIN=local")
}

// copyRepository copies what belongs to the repository: it has no trees of its own that a build or a run leaves.
func copyRepository(t *testing.T, to string) {
	t.Helper()
	from, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	skip := map[string]bool{".git": true, "result": true, "outputs": true, "node": true, "shared": true}
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case skip[rel] && rel != ".":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A command that is neither run nor marked fails the test.
func TestReadCommands(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"run, with its exit status", "```sh\n# a remark\n\narch a\narch b  # exit status 3: too few\n```", "run a 0, run b 3"},
		{"marked", "```sh nix\narch a\n```\n```sh\narch b # 3\n```", "run b 0, not a"},
		{"no command", "arch a\n```\na ── b\n```\n```yaml\nkind: a\n```", ""},
		{"a mark that nobody knows", "```sh later\narch a\n```", "error"},
		{"another language", "```console\n$ arch a\n```", "error"},
		{"unmarked", "```\narch a\n```", "error"},
		{"open", "```sh\narch a\n", "error"},
		{"two lines", "```sh\narch a \\\n  b\n```", "error"},
	} {
		run, left, err := readCommands(tt.text)
		var got []string
		name := func(c shown) string { return strings.Fields(c.text)[1] }
		for _, c := range run {
			got = append(got, fmt.Sprintf("run %s %d", name(c), c.exit))
		}
		for _, c := range left {
			got = append(got, "not "+name(c))
		}
		if err != nil {
			got = []string{"error"}
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
