package cacheserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"sync"
	"time"

	"arch.network/builder/nix/realisation"
	"arch.network/runner/closure/daemon"
)

// Realisations says which outputs came out of derivations whose outputs are named by their content: what the database of a store of Nix has, which is the word
// of whoever administers that store. One connection is used for all questions, until one fails. The zero value knows nothing.
type Realisations struct {
	// Open connects to the daemon. Its context is not that of the connection. Nil: nobody can be asked.
	Open func(ctx context.Context) (*daemon.Client, error)

	mu sync.Mutex // guards c, and the connection
	c  *daemon.Client
}

// openTimeout bounds how long a daemon may take to greet.
const openTimeout = time.Minute

// Close ends the connection.
func (r *Realisations) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.close()
}

func (r *Realisations) close() error {
	if r.c == nil {
		return nil
	}
	err := r.c.Close()
	r.c = nil
	return err
}

// find returns what is published at a name; an error that wraps fs.ErrNotExist if there is nothing.
func (r *Realisations) find(ctx context.Context, name string) (*realisation.Realisation, error) {
	asked, err := realisation.ParseName(name)
	if err != nil || asked.Drv != "" || r == nil || r.Open == nil {
		return nil, fmt.Errorf("find realisation %.300q: %w", name, fs.ErrNotExist)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c == nil {
		opening, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout) // the connection is for others, too
		r.c, err = r.Open(opening)
		cancel()
		if errors.Is(err, exec.ErrNotFound) {
			err = fs.ErrNotExist // there is no Nix to ask
		}
		if err != nil {
			return nil, fmt.Errorf("find realisation %s: %w", asked.ID(), err)
		}
	}
	text, err := r.c.Realisation(ctx, asked.ID())
	if _, none := errors.AsType[*daemon.NotFoundError](err); none {
		return nil, fmt.Errorf("find realisation %s: %w", asked.ID(), fs.ErrNotExist)
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return realisation.Parse(name, text)
}

// realisation is an entry with our signatures in place of those that the database has: they are made anew, as with narinfos.
func (s *server) realisation(ctx context.Context, name string) ([]byte, error) {
	r, err := s.o.Realisations.find(ctx, name)
	if err != nil {
		return nil, err
	}
	fingerprint, err := r.Fingerprint()
	if err != nil {
		return nil, err
	}
	r.Signatures = nil
	for _, key := range s.o.Keys {
		r.Signatures = append(r.Signatures, key.Sign(fingerprint))
	}
	return r.Encode()
}
