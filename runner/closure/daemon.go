package closure

import (
	"cmp"
	"context"
	"errors"
	"os/exec"
	"time"

	"arch.network/runner/closure/daemon"
)

// The sockets of the daemons, as their packages install them.
const (
	NixSocket  = daemon.NixSocket
	GuixSocket = daemon.GuixSocket
)

// Daemon asks nix-daemon or guix-daemon for what the store's database says. Whoever administers the host runs the daemon: its word is as
// good as the host's own programs. It only asks: nothing is built, fetched or written. It is not safe for concurrent use.
type Daemon struct {
	client *daemon.Client
	source string // Proof.Source
}

// daemonTimeout bounds an answer, which comes from a database on the same host.
const daemonTimeout = time.Minute

// OpenDaemon connects to the daemon that listens at a socket. The caller closes it.
func OpenDaemon(ctx context.Context, socket string) (*Daemon, error) {
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	client, err := daemon.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	source := "nix daemon"
	if client.Kind() == daemon.Guix {
		source = "guix daemon"
	}
	return &Daemon{client, source}, nil
}

// Nix is the program that asks the database of a Nix store where no daemon listens. Whoever administers the host wrote that database: its word is as good
// as the host's own programs.
type Nix struct {
	Program string   // empty: "nix-daemon" in PATH
	Args    []string // beside --stdio, such as "--store", "/mnt"
	Env     []string // of the program; nil: this process's
}

// Open starts the program, which runs until the caller closes the Daemon. That there is no such program is exec.ErrNotFound.
func (n Nix) Open(ctx context.Context) (*Daemon, error) {
	cmd := exec.Command(cmp.Or(n.Program, "nix-daemon"), append([]string{"--stdio"}, n.Args...)...)
	cmd.Env = n.Env
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	client, err := daemon.Start(ctx, cmd, nil)
	if err != nil {
		return nil, err
	}
	return &Daemon{client, "nix database"}, nil
}

// Close ends the connection.
func (d *Daemon) Close() error { return d.client.Close() }

// Verify is for Options.Verify. After an error that is not ErrUnknown, it may be that nothing can be asked any more: see daemon.Client.
func (d *Daemon) Verify(ctx context.Context, path string) (Proof, error) {
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	info, err := d.client.PathInfo(ctx, path)
	if _, none := errors.AsType[*daemon.NotFoundError](err); none {
		return Proof{}, ErrUnknown
	}
	if err != nil {
		return Proof{}, err
	}
	return Proof{NAR: info.NAR, References: append([]string{}, info.References...), Source: d.source}, nil
}
