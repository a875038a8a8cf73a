package nix

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"arch.network/builder/derivation"

	"golang.org/x/sys/unix"
)

// Nix runs the programs of an installed Nix. The zero value runs those in PATH.
type Nix struct {
	Bin     string // directory of the programs; empty: PATH
	Offline bool   // ask no substituter
	// Conf is the directory of nix.conf. Set, it is all of Nix's configuration there is; empty: what is configured for machine and user.
	Conf string
}

// MissingProgramError says that Nix is not there.
type MissingProgramError struct {
	Program string
	Err     error
}

func (e *MissingProgramError) Error() string {
	return fmt.Sprintf("run %s: Nix is not installed, or not in PATH", e.Program)
}

// Unwrap returns the cause.
func (e *MissingProgramError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *MissingProgramError) Hint() string {
	return "install Nix (on Debian: apt-get install nix-bin); a Build manifest with steps needs none"
}

// CommandError says that a program of Nix failed.
type CommandError struct {
	Act    string // what it was to do
	Status int    // exit status; -1: it was killed
	Output string // the end of what it wrote to its standard error; untrusted
}

func (e *CommandError) Error() string {
	needed, caches := unreachable(e.Output)
	text := fmt.Sprintf("%s: Nix failed with status %d", e.Act, e.Status)
	if line := e.message(); len(needed) > 0 {
		text = fmt.Sprintf("%s: cannot download %s", e.Act, needed[0])
	} else if line != "" {
		text = fmt.Sprintf("%s: %s", e.Act, line)
	}
	if len(caches) > 0 {
		text += "; no answer from the substituter " + caches[0].String()
	}
	return text
}

// message returns what Nix says is wrong: everything from its last error on, in one line.
func (e *CommandError) message() string {
	_, last, found := cutLast(e.Output, "error:")
	if !found {
		return ""
	}
	if before, _, trace := strings.Cut(last, "(use '--show-trace'"); trace {
		last = before
	}
	text := strings.Join(strings.Fields(last), " ")
	return text[:min(len(text), 600)]
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// Hint tells the way out of the mistakes that Nix's own words do not help with.
func (e *CommandError) Hint() string {
	switch needed, caches := unreachable(e.Output); {
	case len(needed) > 0:
		return "Nix needs the network for it: see that this machine reaches that address; or bring the file into the store first, by `nix-store --add-fixed` or `nix copy`, and build with --offline"
	case len(caches) > 0:
		return "see that this machine reaches the substituter; or bring what is needed into the store first, by `nix copy`; --offline asks no substituter"
	}
	for _, h := range []struct{ says, cure string }{
		{"lock file changes", "run `nix flake lock` and keep flake.lock beside flake.nix: what is not locked cannot be attested"},
		{"requires lock file", "run `nix flake lock` and keep flake.lock beside flake.nix: what is not locked cannot be attested"},
		{"does not provide attribute", "`nix flake show` lists what the flake has"},
		{"not found", "`nix flake show` lists what a flake has; an expression's attribute follows the file's name and #"},
		{"attribute 'currentSystem' missing", "a flake is evaluated without a look at this machine: let it name the system"},
		{"kernel namespaces", "Nix needs user namespaces for its sandbox: `arch doctor` says what keeps them from working"},
		{"not tracked by Git", "run `git add` on the file: a flake in a Git repository has only what Git knows"},
	} {
		if strings.Contains(e.Output, h.says) {
			return h.cure
		}
	}
	return ""
}

// version returns Nix's version, such as "2.8.0".
func (n *Nix) version(ctx context.Context, s Store) (string, error) {
	text, err := n.run(ctx, s, call{act: "ask Nix for its version", program: "nix-store", args: []string{"--version"}})
	if err != nil {
		return "", err
	}
	_, number, ok := cutLast(strings.TrimSpace(string(text)), " ")
	if !ok {
		return "", fmt.Errorf("ask Nix for its version: %.100q is none", text)
	}
	return number, nil
}

// isBuildFailure reports whether an exit status of Nix says that a builder failed (nix-store(1), "100 Generic build failure" and up).
func isBuildFailure(status int) bool { return status >= 100 && status < 128 }

// call is one run of a program.
type call struct {
	act     string // for errors, such as "evaluate X"
	program string
	verb    []string // of "nix": "build", or "flake", "metadata"
	args    []string
	dir     string // working directory; empty: ours
	in      io.Reader
	out     io.Writer // nil: what it prints is returned
	oneCPU  bool      // on one processor, also what it starts in turn
}

// run runs a program against a store and returns what it printed.
func (n *Nix) run(ctx context.Context, s Store, c call) ([]byte, error) {
	cmd, err := n.command(ctx, s, c)
	if err != nil {
		return nil, err
	}
	if c.out != nil {
		cmd.Stdout = c.out
	}
	start := cmd.Start
	if c.oneCPU {
		start = func() error { return onOneCPU(cmd.Start) }
	}
	out, err := derivation.Run(ctx, c.act, cmd, start)
	if exit, ok := errors.AsType[*derivation.ExitError](err); ok {
		return nil, &CommandError{Act: exit.Act, Status: exit.Status, Output: exit.Output}
	}
	return out, err
}

// command is a program to run against a store.
func (n *Nix) command(ctx context.Context, s Store, c call) (*exec.Cmd, error) {
	path, err := n.find(c.program)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, slices.Concat(c.verb, n.settings(s, c), c.args)...)
	cmd.Dir, cmd.Stdin = c.dir, c.in
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "NO_COLOR=1")
	if n.Conf != "" {
		cmd.Env = append(cmd.Env, "NIX_CONF_DIR="+n.Conf, "NIX_USER_CONF_FILES=", "NIX_CONFIG=")
	}
	return cmd, nil
}

func (n *Nix) find(program string) (string, error) {
	if n.Bin != "" {
		program = filepath.Join(n.Bin, program)
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", &MissingProgramError{program, err}
	}
	return path, nil
}

// settings are the arguments that every program gets. What decides whether builds are confined is never left to configuration files.
func (n *Nix) settings(s Store, c call) []string {
	args := []string{"--store", s.url(), "--option", "extra-experimental-features", "nix-command flakes ca-derivations"}
	option := func(name, value string) { args = append(args, "--option", name, value) }
	option("accept-flake-config", "false") // which comes with what is built
	if s.own() {
		option("sandbox", "true")
		option("sandbox-fallback", "false")
		option("build-users-group", "")
		option("builders", "") // on other machines
		option("pre-build-hook", "")
		option("require-sigs", "true")
	}
	if c.oneCPU {
		option("cores", "1")
	}
	if n.Offline {
		option("substituters", "")
	}
	return args
}

// onOneCPU calls start with the thread, and so the process that it starts, on one processor.
func onOneCPU(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return start()
	}
	for cpu := range 8 * len(all) * 8 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return start()
	}
	defer unix.SchedSetaffinity(0, &all)
	return start()
}
