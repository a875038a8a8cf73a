package closure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"sync"
	"syscall"
)

// Host asks for the stores of this machine: the Nix or Guix daemon where one listens, and otherwise, for Nix, the program nix-daemon. The
// zero value is ready; its fields must not change while it is in use. It is safe for concurrent use. The caller closes it.
type Host struct {
	NixSocket  string // empty: the constant
	GuixSocket string // empty: the constant
	Nix        Nix    // the program
	NoProgram  bool   // never start the program

	mu      sync.Mutex         // guards everything below, and the daemons' connections
	daemons map[string]*Daemon // by socket; the program has none
}

// Verify is for Options.Verify. Where there is neither a daemon nor a program, every path is ErrUnknown.
func (h *Host) Verify(ctx context.Context, path string) (Proof, error) {
	store, ok := storeOf(path)
	if !ok {
		return Proof{}, fmt.Errorf("%q is no store path", path)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch store {
	case "/gnu/store":
		return h.ask(ctx, cmp.Or(h.GuixSocket, GuixSocket), path, dial)
	case "/nix/store":
		p, err := h.ask(ctx, cmp.Or(h.NixSocket, NixSocket), path, dial)
		if errors.Is(err, errNoDaemon) && !h.NoProgram {
			return h.ask(ctx, "", path, h.start)
		}
		return p, err
	}
	return Proof{}, ErrUnknown
}

// Close ends the connections.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []error
	for socket, d := range h.daemons {
		all = append(all, d.Close())
		delete(h.daemons, socket)
	}
	return errors.Join(all...)
}

// errNoDaemon is ErrUnknown because nobody listens.
var errNoDaemon = fmt.Errorf("no daemon listens: %w", ErrUnknown)

// dial connects to a daemon, if one listens.
func dial(ctx context.Context, socket string) (*Daemon, error) {
	d, err := OpenDaemon(ctx, socket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrPermission) {
		err = errNoDaemon
	}
	return d, err
}

// start starts the program, if there is one.
func (h *Host) start(ctx context.Context, _ string) (*Daemon, error) {
	d, err := h.Nix.Open(ctx)
	if errors.Is(err, exec.ErrNotFound) {
		err = errNoDaemon
	}
	return d, err
}

// ask asks a daemon, with one connection for all questions until one fails.
func (h *Host) ask(ctx context.Context, socket, path string, open func(context.Context, string) (*Daemon, error)) (Proof, error) {
	d := h.daemons[socket]
	if d == nil {
		var err error
		if d, err = open(ctx, socket); err != nil {
			return Proof{}, err
		}
		if h.daemons == nil {
			h.daemons = map[string]*Daemon{}
		}
		h.daemons[socket] = d
	}
	p, err := d.Verify(ctx, path)
	if err != nil && !errors.Is(err, ErrUnknown) {
		d.Close()
		delete(h.daemons, socket)
	}
	return p, err
}
