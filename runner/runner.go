// Package runner is the contract of confined execution: what a process may see and use (Spec),
// what became of it (Result), and who can do that (Runner). A build step and a job are both a Spec.
//
// The package holds no driver. Drivers live in runner/namespace and, later, runner/systemd; commands
// choose one by an explicit table. A Runner knows nothing of keys, networks, documents' trust or stores:
// whoever calls it has verified and fetched everything.
package runner

import (
	"context"
	"io"
	"time"
)

// Runner runs commands in confinement.
type Runner interface {
	// Run runs the commands of spec one after the other in one confinement, stopping at the first that
	// does not exit with 0, and returns when every process it started is gone. Processes that a command leaves
	// behind are killed before the next command starts, and before anything is collected.
	//
	// The error is nil whenever the commands were started, whatever became of them: see Result.Reason.
	// It is a *SetupError if the confinement could not be made or the Spec makes no sense; then nothing ran.
	// It is Collect's error, or that of Stdout or Stderr, if one of them failed.
	// Cancelling ctx kills the processes; the Result's Reason is then Cancelled.
	Run(ctx context.Context, spec Spec) (Result, error)
}

// Spec says everything that a confined execution sees and may use. What it does not name does not exist there.
type Spec struct {
	Commands []Command // run in order; at least one
	Mounts   []Mount   // the whole file system, in mount order (parents first); nothing else is visible but /dev and /proc

	Hostname string // empty: "localhost"; at most 64 bytes
	UID, GID int    // ids seen inside, never 0; zero values mean 1000 and 100
	Umask    int    // zero means 022
	CPUs     int    // number of CPUs that may be used; zero: all

	// ClockOffset is added to what processes read from the wall clock, so that outputs which hold the time come to
	// light. A driver that cannot do so says it in Confinement.Missing as "clock-offset: …". Zero: the host's clock.
	ClockOffset time.Duration

	Limits Limits

	// Outputs are collected after the last command succeeded and every process is dead.
	Outputs []Output
	// Collect receives each output as a NAR stream (github.com/NixOS/nix: doc/manual/source/protocols/nix-archive.md),
	// in the order of Outputs. It must read nar to its end. Its error ends the run and is returned as Run's error.
	Collect func(out Output, nar io.Reader) error

	Stdout, Stderr io.Writer // nil: discarded; if both are the same writer, what is written keeps its order

	// Degraded allows a confinement weaker than asked for where the host refuses namespaces.
	// The Result's Confinement says what was not enforced. False: refuse with a *SetupError.
	Degraded bool
}

// Command is one process to run.
type Command struct {
	// Argv[0] is a path, or a name looked up in the absolute directories of the PATH of Env, inside the confinement.
	// There is no shell. A program that exists but cannot be executed counts as exit status 126.
	Argv []string
	Env  []string // "KEY=value", complete: nothing is inherited
	Dir  string   // absolute; empty: "/"
}

// MountKind says how a Mount comes to be.
type MountKind string

// The kinds of mounts.
const (
	Bind  MountKind = "bind"  // Source of the host appears at Target, read-only unless Writable
	Tmpfs MountKind = "tmpfs" // an empty file system in memory of at most Size bytes (zero: Limits.Scratch)
	Copy  MountKind = "copy"  // a private, writable copy of the tree Source at Target, which must lie on a Tmpfs or writable mount
)

// Mount is one place of the confined file system. Targets below /proc and /dev are refused: the driver makes both.
//
// Missing mount points are made, also in a read-only directory, where they come with fixed permissions (0755) and times.
// A Bind at "/", if there is one, comes first and is the root file system. A target that is, or lies behind, a symbolic
// link of the confined file system is refused. No mount honours set-user-ID bits or devices.
type Mount struct {
	Kind     MountKind
	Source   string // path on the host; empty for Tmpfs; a symbolic link is not followed: Target is that link then
	Target   string // absolute, clean path inside
	Writable bool   // for Bind
	Size     int64  // bytes, for Tmpfs
	// Reverse creates the entries of a Copy in reverse name order instead of name order, so that what depends on
	// the order of directory entries comes to light.
	Reverse bool
	// ModTime is the modification time that every file of a Copy gets, in Unix seconds.
	ModTime int64
}

// Limits bound an execution. Zero means no limit, except where said otherwise.
type Limits struct {
	Wall      time.Duration // for all commands together
	Memory    int64         // bytes, resident, of all processes together; a cgroup counts files in a Tmpfs as well
	Scratch   int64         // bytes of each Tmpfs without a Size; zero: half of the host's memory
	Processes int           // processes and threads at one time; more fail to start, or end the run with ReasonLimit
	Log       int64         // bytes of stdout and stderr together; more ends the run with ReasonLimit; zero: 64 MiB
	Output    int64         // bytes of each collected output; zero: 16 GiB
}

// Output is something to collect from the confined file system.
type Output struct {
	Name string // unique in the Spec
	Path string // absolute, clean path inside; no symbolic link on the way to it is followed
}

// Reason classifies how an execution ended.
type Reason string

// The reasons.
const (
	ReasonExit        Reason = "exit"          // the last started command ended by itself with Result.Exit
	ReasonSignal      Reason = "signal"        // killed by Result.Signal, not by us
	ReasonTimeout     Reason = "timeout"       // Limits.Wall
	ReasonOutOfMemory Reason = "out-of-memory" // Limits.Memory
	ReasonLimit       Reason = "limit"         // another limit: Result.Detail names it
	ReasonCancelled   Reason = "cancelled"     // the context
	ReasonNotFound    Reason = "not-found"     // a command's program, or a declared output, does not exist: Result.Detail names it
)

// Result is what became of an execution.
type Result struct {
	Reason  Reason
	Exit    int    // exit status of the last command that ran, if Reason is ReasonExit
	Signal  string // such as "SIGSEGV", if Reason is ReasonSignal
	Command int    // index of the last command that was started
	Detail  string // a sentence on the limit, signal or missing thing; empty on success

	Wall       time.Duration
	CPU        time.Duration // user and system time of all processes
	MemoryPeak int64         // bytes; zero: not measured

	Confinement Confinement
}

// OK reports whether every command exited with 0.
func (r Result) OK() bool { return r.Reason == ReasonExit && r.Exit == 0 }

// Confinement records what was really enforced, and what was asked for but could not be.
type Confinement struct {
	Driver   string   `json:"driver"`            // such as "namespace"
	Enforced []string `json:"enforced"`          // sorted: "user-namespace", "mount-namespace", "network-none", "seccomp", "memory:cgroup-v1", …
	Missing  []string `json:"missing,omitempty"` // sorted: what was asked for and is not enforced, each "name: reason"
}

// SetupError says that a confinement could not be made; nothing was run.
type SetupError struct {
	Act  string // what was tried, such as "create user namespace"
	Err  error
	Cure string // how the host's operator can allow it; may be empty
}

func (e *SetupError) Error() string { return e.Act + ": " + e.Err.Error() }
func (e *SetupError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *SetupError) Hint() string { return e.Cure }
