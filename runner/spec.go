package runner

import (
	"errors"
	"io"
	"os"
	"time"

	"arch.network/attest/digest"
)

// Spec says everything that a confined execution sees and may use. What it does not name does not exist there.
type Spec struct {
	// Name tells executions apart on the host: drivers name units, cgroups and the like by it. 1 to 64 of a-z, 0-9, '-';
	// unique among the running. Empty: the driver makes one up.
	Name string

	Commands []Command // run in order; at least one, unless there is a Module
	Mounts   []Mount   // the whole file system, in mount order (parents first); nothing else is visible but /dev and /proc

	// Module is a WebAssembly module to run instead of Commands. Only runner/wasm runs modules, in a command of its own
	// inside a driver's confinement; a driver refuses them with a *SetupError.
	Module *Module

	Hostname string // empty: "localhost"; at most 64 bytes
	UID, GID int    // ids seen inside, never 0; zero values mean 1000 and 100
	Umask    int    // zero means 022
	CPUs     int    // number of CPUs that may be used; zero: all

	// ClockOffset is added to what processes read from the wall clock, so that outputs which hold the time come to
	// light. A driver that cannot do so says it in Confinement.Missing as "clock-offset: …". Zero: the host's clock.
	ClockOffset time.Duration

	// Network is what may be reached. The zero value is nothing: no interface is up.
	Network Network

	// Devices are device nodes of the host that appear below /dev, beside the driver's own.
	Devices []Device

	Limits Limits

	// Exchange talks with the commands: descriptor 0 of each of them is one end of a stream socket, and Exchange, called once in a
	// goroutine of its own when the first command is started, has the other. Run returns after Exchange has; the socket is shut
	// when the last process is gone, so that reads end. Its error ends the run and is returned as Run's error.
	// Nil: descriptor 0 is /dev/null.
	Exchange func(conn *os.File) error

	// Outputs are collected after the last command succeeded and every process is dead.
	Outputs []Output
	// Collect receives each output as a NAR stream (github.com/NixOS/nix: doc/manual/source/protocols/nix-archive.md),
	// in the order of Outputs. It must read nar to its end. Its error ends the run and is returned as Run's error; but one that is
	// ErrAgain has runner/namespace call it again for the same output, from the start.
	Collect func(out Output, nar io.Reader) error

	// Settle is called with what Run is about to return, if that is a Result, while the execution could still be found again by a later
	// driver: when it has returned nil, no later one is needed. Its error is returned as Run's. Only runner/systemd calls it, and not for a
	// Spec with an Exchange, since what other drivers run ends with them. Nil: no call.
	Settle func(Result) error

	// Observe is told what was used so far, about once a second while the commands run, from a goroutine of the driver, which it
	// must not hold up. It is not called any more when Run has returned. What a short execution used is in its Result alone. Nil: no call.
	Observe func(Usage)

	Stdout, Stderr io.Writer // nil: discarded; if both are the same writer, what is written keeps its order

	// Degraded allows a confinement weaker than asked for where the host refuses namespaces.
	// The Result's Confinement says what was not enforced. False: refuse with a *SetupError.
	Degraded bool
}

// Kept is what the caller of a driver has of an execution, for a later driver that goes on with it.
type Kept struct {
	Stdout, Stderr int64       // bytes; all is Stdout if both have one writer
	Outputs        []Collected // those that were collected to their end
}

// ErrAgain is what a Collect returns that lost what it read.
var ErrAgain = errors.New("collect it again")

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
	Data  MountKind = "data"  // a read-only file that holds Content
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
	Content  []byte // for Data; at most 1 MiB, and 4 MiB in a Spec
	// Reverse creates the entries of a Copy in reverse name order instead of name order, so that what depends on
	// the order of directory entries comes to light.
	Reverse bool
	// ModTime is the modification time that every file of a Copy gets, in Unix seconds.
	ModTime int64
}

// Network is what processes may reach.
type Network struct {
	// Egress are the outgoing connections that are let through, each counted. Everything else is refused, at once and visibly
	// (TCP reset, ICMP administratively prohibited). Names are resolved by a server at the default gateway, which
	// answers only for the Hosts that are named here, or for all if a rule without Host is among them.
	// Addresses of the host itself, of loopback, link-local and other special-purpose ranges (RFC 6890) are refused unless
	// a rule names them as addresses: a job must not reach metadata services or the node's own ports.
	Egress []Egress
}

// IsZero reports whether nothing may be reached.
func (n Network) IsZero() bool { return len(n.Egress) == 0 }

// Egress is one kind of allowed outgoing connection.
type Egress struct {
	Protocol string // "tcp" or "udp"
	Host     string // a DNS name or an IP address; empty: any
	Port     int    // 1 to 65535
}

// Device is one device node. The host's permissions and the driver's device cgroup let no other through.
type Device struct {
	Source      string // absolute path on the host; a character or block device
	Target      string // absolute, clean path inside, below /dev; empty: Source
	Permissions string // some of "rwm" in this order; empty: "rw"
}

// Module is a run of a WebAssembly module with WASI preview 1.
type Module struct {
	Path  string   // absolute path inside, to a module in the binary format
	Args  []string // complete: Args[0] is the program's name
	Env   []string // "KEY=value", complete
	Entry string   // exported function to call; empty: "_start"
	Dirs  []Dir    // what the module sees of the confined file system

	// Clock is what the module reads as time: it starts there and advances by a microsecond with each reading, and a sleep
	// advances it without taking time. Nil: the host's clock.
	Clock *time.Time
	// Seed makes the module's random bytes: ChaCha8 (C2SP chacha8rand) of it. Nil: the host's randomness. With Clock
	// and Seed the execution is a function of the module, what it is given, and Gas.
	Seed *[32]byte

	Gas    uint64 // units of metered work after which it is stopped with ReasonLimit (see runner/gas); zero: no limit, but counted
	Memory int64  // bytes of the module's linear memories together; zero: 4 GiB
	// Digest is of the module's bytes. If the caller knows it, the file need not be read where a worker holds this module ready; a
	// file with another digest is refused. The zero value: not known.
	Digest digest.SHA256

	// Reuse, if it is not empty, is the owner for whom a worker of a pool may be kept: it may have run this module before for that
	// owner, and will again. Each run has an instance, memory, descriptors, clock, randomness and limits of its own, and is charged for
	// the difference that it made; but a module that broke out of the engine would meet the owner's next inputs. The
	// Result's Confinement.Missing then says "own-process: reused worker, …". Whoever sets it has asked the policy. Empty: one
	// process, one run.
	Reuse string

	Interpret bool // run without compiling to machine code: many times slower, works where memory cannot be made executable
}

// Dir gives a module one directory.
type Dir struct {
	Path     string // absolute path in the confined file system
	As       string // the name the module opens it by, such as "/inputs"
	Writable bool
}

// Limits bound an execution. Zero means no limit, except where said otherwise.
type Limits struct {
	Wall      time.Duration // for all commands together
	CPU       int64         // thousandths of a processor's time; 1500 is one and a half
	Memory    int64         // bytes, resident, of all processes together; a cgroup counts files in a Tmpfs as well
	Scratch   int64         // bytes of each Tmpfs without a Size; zero: half of the host's memory
	Processes int           // processes and threads at one time; more fail to start, or end the run with ReasonLimit
	Log       int64         // bytes of stdout and stderr together; more ends the run with ReasonLimit; zero: 64 MiB
	Output    int64         // bytes of each collected output; zero: 16 GiB
	IORead    int64         // bytes a second, from each block device
	IOWrite   int64         // bytes a second, to each block device
	Power     float64       // watts: CPU time is cut so that the energy used, as measured or modelled, stays below
}

// Output is something to collect from the confined file system.
type Output struct {
	Name string // unique in the Spec
	Path string // absolute, clean path inside; no symbolic link on the way to it is followed
}
