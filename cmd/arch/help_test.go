package main

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestHelp holds what every command's help must have: a sentence, an example that is a command line of that very
// command, and the exit statuses.
func TestHelp(t *testing.T) {
	root := newRootCommand(newApp(strings.NewReader(""), io.Discard, io.Discard))
	eachCommand(root, func(c *cobra.Command) {
		path := c.CommandPath()
		if isTopic(c) || strings.HasPrefix(path, "arch completion") || path == "arch help" {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: its short help is %q", path, c.Short)
		}
		if c.HasSubCommands() {
			return
		}
		if !strings.Contains(c.Long, "EXIT STATUS: 0 ") {
			t.Errorf("%s: its help does not tell the exit statuses", path)
		}
		if c.Example == "" {
			t.Errorf("%s: its help has no example", path)
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  "+path) && !strings.Contains(line, "| "+path) {
				t.Errorf("%s: its example %q is of another command", path, line)
			}
			checkExample(t, root, line)
		}
	})
}

func eachCommand(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		eachCommand(sub, visit)
	}
}

// checkExample checks that the flags of an example exist.
func checkExample(t *testing.T, root *cobra.Command, line string) {
	t.Helper()
	line, _, _ = strings.Cut(line, "#")
	line, _, _ = strings.Cut(line, " -- ") // what follows is not for arch
	words := strings.Fields(line)
	c, _, err := root.Find(words[1:])
	if err != nil {
		t.Errorf("example %q: %v", line, err)
		return
	}
	for _, word := range words {
		name, ok := strings.CutPrefix(word, "--")
		if ok && c.Flag(name) == nil {
			t.Errorf("example %q: there is no flag --%s", line, name)
		}
	}
}

// TestFlags holds that each flag is explained, without a capital or a full stop.
func TestFlags(t *testing.T) {
	eachCommand(newRootCommand(newApp(strings.NewReader(""), io.Discard, io.Discard)), func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: its help is %q", c.CommandPath(), f.Name, f.Usage)
			}
		})
	})
}

func TestNearest(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{"biuld", "build"}, {"buil", "build"}, {"verfiy", "verify"}, {"re", "rebuild"}, {"xyzzy", ""}, {"", ""}, {"b", ""},
	} {
		got, ok := nearest(c.got, []string{"verify", "build", "rebuild"})
		if got != c.want || ok != (c.want != "") {
			t.Errorf("nearest(%q) = %q, want %q", c.got, got, c.want)
		}
	}
}
