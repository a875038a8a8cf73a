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

// Host asks for the stores of this machine: the Nix or Guix daemon where one listens, and otherwise, for Nix, the program nix-store. The
// zero value is ready; its fields must not change while it is in use. It is safe for concurrent use. The caller closes it.
type Host struct {
	NixSocket  string // empty: the constant
	GuixSocket string // empty: the constant
	Nix        Nix    // the program
	NoProgram  bool   // never start the program

	mu      sync.Mutex // guards everything below, and the daemons' connections
	daemons map[string]*Daemon
	known   map[string]Proof // what the program said
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
		return h.ask(ctx, cmp.Or(h.GuixSocket, GuixSocket), path)
	case "/nix/store":
		p, err := h.ask(ctx, cmp.Or(h.NixSocket, NixSocket), path)
		if errors.Is(err, errNoDaemon) && !h.NoProgram {
			return h.run(ctx, path)
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

// ask asks a daemon, with one connection for all questions until one fails.
func (h *Host) ask(ctx context.Context, socket, path string) (Proof, error) {
	d := h.daemons[socket]
	if d == nil {
		var err error
		if d, err = OpenDaemon(ctx, socket); err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrPermission) {
				err = errNoDaemon
			}
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

// run asks the program once for a path and all that it refers to.
func (h *Host) run(ctx context.Context, path string) (Proof, error) {
	if p, ok := h.known[path]; ok {
		return p, nil
	}
	known, err := h.Nix.Closure(ctx, path)
	if errors.Is(err, exec.ErrNotFound) {
		return Proof{}, ErrUnknown
	}
	if err != nil {
		return Proof{}, err
	}
	h.known = known // the paths of another closure are asked for again
	p, ok := known[path]
	if !ok {
		return Proof{}, ErrUnknown
	}
	return p, nil
}
