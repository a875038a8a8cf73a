// Command run starts a real systemd, as PID 1 with its system bus, on a machine whose own init may be anything, runs one
// command in a service unit of it, and takes all of it down again.
//
//	go run ./tests/guest/run ns|uml [-r ROOT] [-b DIR[:INSIDE]]... [-s DIR]... [-d] COMMAND [ARGUMENT...]
//
// ns uses namespaces on the host's kernel and takes about half a second. It needs root. On a host with cgroup v1 (hybrid) the
// guest has the same controllers; on one with cgroup v2 alone it has a subtree of that. uml boots User-Mode Linux, an own
// kernel with cgroup v2 alone, in about eight seconds; its kernel is a Debian package, fetched with apt-get at the first
// use and kept in the user's cache directory. Both need Debian's packages systemd and dbus, and nothing of the machine's
// init, cgroup mounts or services is touched.
//
// The command runs as root, in the caller's directory, with PATH, HOME, LANG, TERM, CI, CGO_ENABLED, GO* and ARCH_* of the
// caller's environment, and ARCH_GUEST=ns or uml. Its root file system is a throw-away overlay over ROOT (default: the
// machine's own, so a checkout, Go and its caches are there); /tmp, /run and /dev are new, and what is mounted
// on the machine's root is not there in ns; -s shows a DIR that would be hidden by that, as a throw-away copy as well. Only what is written below a
// DIR of -b, which appears at its own path or at INSIDE, is kept. There is no network but loopback. Standard input is the caller's in ns, and empty in uml.
//
// The exit status is the command's; if a signal ended it, run ends by the same one. 70 means that the guest failed, 69 that
// it cannot be started on this machine. SIGINT, SIGTERM and SIGHUP take the guest down; after SIGKILL, the kernel ends all
// processes, and the next start of any guest removes what files and control groups are left.
//
// A guest is a place for tests, never a confinement: its root is the host's root in ns.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// Exit statuses of run itself (sysexits.h).
const (
	exitUsage    = 64
	exitUnable   = 69 // EX_UNAVAILABLE
	exitInternal = 70 // EX_SOFTWARE
)

func main() {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case stageNamespaces:
			fail(startInNamespaces(os.Args[2]))
		case stageUML:
			fail(startInUML(os.Args[2]))
		case stageKeeper:
			os.Exit(keep(os.Args[2:]))
		case stageUnit:
			os.Exit(runUnit(os.Args[2]))
		}
	}
	os.Exit(run(os.Args[1:]))
}

// fail ends a stage that must not return: PID 1 of a guest.
func fail(err error) {
	fmt.Fprintf(os.Stderr, "run: start guest: %v\n", err)
	os.Exit(exitInternal)
}

func run(args []string) int {
	j, resultFile, err := parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "run: %v\nusage: run ns|uml [-r ROOT] [-b DIR[:INSIDE]]... [-d] COMMAND [ARGUMENT...]\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	s, err := start(ctx, j)
	o := outcome{Status: s}
	unable, isUnable := errors.AsType[*unableError](err)
	switch {
	case isUnable:
		o.Unable = unable.Error()
	case err != nil:
		o.Error = err.Error()
	}
	if resultFile != "" {
		if err := writeOutcome(resultFile, o); err != nil {
			fmt.Fprintf(os.Stderr, "run: %v\n", err)
			return exitInternal
		}
	}
	switch {
	case isUnable:
		fmt.Fprintf(os.Stderr, "run: cannot run here: %v\n", err)
		return exitUnable
	case err != nil:
		fmt.Fprintf(os.Stderr, "run: %v\n", err)
		return exitInternal
	}
	return s.end()
}

func start(ctx context.Context, j job) (status, error) {
	if err := checkHost(j); err != nil {
		return status{}, err
	}
	if j.Mode == modeUML {
		return runUML(ctx, j)
	}
	return runNamespaces(ctx, j)
}

// outcome is what -o writes, for callers that must tell the command's status from the guest's own.
type outcome struct {
	Status status `json:"status"`
	Error  string `json:"error,omitempty"`  // the guest failed
	Unable string `json:"unable,omitempty"` // no guest can be started on this machine
}

func writeOutcome(name string, o outcome) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// unableError says why this machine cannot have a guest.
type unableError struct{ reason string }

func (e *unableError) Error() string { return e.reason }

// checkHost finds out early what would fail late.
func checkHost(j job) error {
	if os.Geteuid() != 0 {
		return &unableError{"only root can start a guest"}
	}
	for _, need := range []string{systemdPath, "/usr/bin/dbus-daemon"} {
		if _, err := os.Stat(filepath.Join(j.Root, need)); err != nil {
			return &unableError{fmt.Sprintf("%v: apt-get install systemd dbus", err)}
		}
	}
	return nil
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// parse reads the command line.
func parse(args []string) (j job, resultFile string, err error) {
	if len(args) == 0 || args[0] != modeNamespaces && args[0] != modeUML {
		return job{}, "", errors.New("want a mode first")
	}
	j.Mode = args[0]
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	var binds, shows list
	root := flags.String("r", "/", "root file system")
	flags.Var(&binds, "b", "directory that keeps what is written to it")
	flags.Var(&shows, "s", "directory to show a throw-away copy of")
	flags.BoolVar(&j.Debug, "d", false, "show what systemd says")
	flags.StringVar(&resultFile, "o", "", "file for the outcome, as JSON")
	if err := flags.Parse(args[1:]); err != nil {
		return job{}, "", err
	}
	if j.Argv = flags.Args(); len(j.Argv) == 0 {
		return job{}, "", errors.New("want a command")
	}
	if j.Root, err = filepath.EvalSymlinks(*root); err != nil {
		return job{}, "", err
	}
	for _, text := range binds {
		b, err := parseBind(text)
		if err != nil {
			return job{}, "", err
		}
		j.Binds = append(j.Binds, b)
	}
	for _, text := range shows {
		b, err := parseBind(text)
		if err != nil {
			return job{}, "", err
		}
		j.Shows = append(j.Shows, b.Dir)
	}
	if j.Dir, err = os.Getwd(); err != nil {
		return job{}, "", err
	}
	j.Env = keptEnvironment(os.Environ(), j.Mode)
	return j, resultFile, nil
}

// parseBind reads "DIR" or "DIR:INSIDE".
func parseBind(text string) (bind, error) {
	dir, inside, renamed := strings.Cut(text, ":")
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return bind{}, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return bind{}, err
	}
	if !renamed {
		inside = dir
	}
	if !filepath.IsAbs(inside) || filepath.Clean(inside) != inside || inside == "/" {
		return bind{}, fmt.Errorf("%q is no clean, absolute path below /", inside)
	}
	return bind{Dir: dir, Inside: inside}, nil
}

// keptEnvironment selects what the command sees of the caller's environment.
func keptEnvironment(env []string, mode string) []string {
	kept := []string{"ARCH_GUEST=" + mode}
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "PATH", "HOME", "LANG", "TERM", "CI", "CGO_ENABLED":
			kept = append(kept, e)
		default:
			if name != "ARCH_GUEST" && (strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "ARCH_")) {
				kept = append(kept, e)
			}
		}
	}
	return kept
}
