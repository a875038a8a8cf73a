package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// onTerminal runs arch with stderr on a terminal of 60 columns, and returns its stdout, which is a pipe, and what the
// terminal got.
func onTerminal(t *testing.T, env []string, args ...string) (out, screen string, err error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	master, tty, err := pty.Open()
	if err != nil {
		t.Skipf("cannot run here: there are no pseudo-terminals: %v", err)
	}
	defer master.Close()
	if err := pty.Setsize(master, &pty.Winsize{Rows: 24, Cols: 60}); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, args...)
	c.Args[0] = "arch"
	c.Env = append(os.Environ(), append([]string{"TERM=xterm", "NO_COLOR=", "GORACE=" + noRaceSleep}, env...)...)
	var stdout bytes.Buffer
	c.Stdout, c.Stderr = &stdout, tty
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	shown := make(chan string)
	go func() {
		data, _ := io.ReadAll(master) // ends with EIO when the last writer is gone
		shown <- string(data)
	}()
	err = c.Wait()
	return stdout.String(), <-shown, err
}

func TestProgressOnTerminal(t *testing.T) {
	tool := buildTool(t)
	dir := ownHome(t)
	if err := writeManifest(filepath.Join(dir, "build.yaml"), tool, "hello", []string{"write", "/build/out", "x"}); err != nil {
		t.Fatal(err)
	}
	out, screen, err := onTerminal(t, nil, "build", "--attest", ".")
	if err != nil {
		t.Fatalf("%v\n%s", err, screen)
	}
	if strings.ContainsRune(out, '\x1b') || !strings.HasPrefix(out, "hello: built\n") {
		t.Errorf("stdout is %q", out)
	}
	for _, want := range []string{
		"\r\x1b[K  build hello",             // a line that changes
		"\r\x1b[K  build hello: ",           // a line that stays, in its place
		"\r\x1b[K  build again, varying ti", // cut, so that it fits
	} {
		if !strings.Contains(screen, want) {
			t.Errorf("the terminal got no %q in\n%q", want, screen)
		}
	}
	for frame := range strings.SplitSeq(screen, "\r\x1b[K") {
		if line, rest, ends := strings.Cut(frame, "\r\n"); !ends && len([]rune(line)) > 60 {
			t.Errorf("a changing line is wider than the terminal: %q", line)
		} else if ends && strings.Contains(rest, "\x1b") {
			t.Errorf("a sequence in the middle of %q", frame)
		}
	}
	// What is left on the screen is what was written after each line was cleared.
	if left := visible(screen); strings.Contains(left, "  build hello\n") || !strings.Contains(left, "  build hello: ") {
		t.Errorf("the terminal shows\n%s", left)
	}
}

// visible is what stays of a terminal's input: of each line what follows its last clearing.
func visible(screen string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(screen, "\r\n") {
		fmt.Fprintln(&b, line[strings.LastIndex(line, "\r\x1b[K")+1:])
	}
	return strings.ReplaceAll(b.String(), "\x1b[K", "")
}

// sgr matches the only sequences that are ours outside of progress.
var sgr = regexp.MustCompile(`\x1b\[(?:\d+)?m`)

func TestColorOnTerminal(t *testing.T) {
	ownHome(t)
	for _, c := range []struct {
		name  string
		env   []string
		flags []string
		color bool
	}{
		{"terminal", nil, nil, true},
		{"NO_COLOR", []string{"NO_COLOR=1"}, nil, false},
		{"TERM=dumb", []string{"TERM=dumb"}, nil, false},
		{"never", nil, []string{"--color=never"}, false},
		{"always beats NO_COLOR", []string{"NO_COLOR=1"}, []string{"--color=always"}, true},
		{"quiet", nil, []string{"--quiet"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, screen, err := onTerminal(t, c.env, append(c.flags, "verify", "\x1b]0;owned\x07\u009b")...)
			if err == nil {
				t.Error("it succeeded")
			}
			if sgr.MatchString(screen) != c.color {
				t.Errorf("the terminal got %q; color wanted: %v", screen, c.color)
			}
			if rest := sgr.ReplaceAllString(strings.ReplaceAll(screen, "\r\n", "\n"), ""); strings.IndexFunc(rest, unprintable) >= 0 {
				t.Errorf("a foreign sequence reaches the terminal: %q", screen)
			}
		})
	}
}

func TestNoProgressElsewhere(t *testing.T) {
	tool := buildTool(t)
	dir := ownHome(t)
	if err := writeManifest(filepath.Join(dir, "build.yaml"), tool, "hello", []string{"write", "/build/out", "x"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		env   []string
		flags []string
		want  string // "": nothing at all
	}{
		{"dumb terminal", []string{"TERM=dumb"}, nil, "  build hello\r\n"},
		{"quiet", nil, []string{"--quiet"}, ""},
		{"json", nil, []string{"--json"}, `{"apiVersion":"arch.network/v1","kind":"BuildProgress","stage":"build","name":"hello","done":false,"detail":"","seconds":0}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, screen, err := onTerminal(t, c.env, append(c.flags, "build", "--force", ".")...)
			if err != nil {
				t.Fatalf("%v: %s", err, screen)
			}
			if strings.Contains(screen, "\x1b") || !strings.Contains(screen, c.want) || c.want == "" && screen != "" {
				t.Errorf("the terminal got %q, want %q", screen, c.want)
			}
		})
	}
}
