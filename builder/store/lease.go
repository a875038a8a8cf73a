package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Lease keeps GC away: while one is held, in any process, no object is removed from the store.
type Lease struct {
	store *Store
	once  sync.Once
	err   error
}

// Lease waits until no GC is running or waiting, and returns a lease, which the caller releases. Nested leases of one Store never wait. A
// holder must not wait for another process, or another Store in this one, to get a lease: a GC that waits for the holder keeps it out.
func (s *Store) Lease(ctx context.Context) (*Lease, error) {
	if err := s.users.enter(ctx, s); err != nil {
		return nil, fmt.Errorf("lease store %s: %w", s.dir, err)
	}
	return &Lease{store: s}, nil
}

// Release ends the lease. Further calls do nothing.
func (l *Lease) Release() error {
	l.once.Do(func() { l.err = l.store.users.leave() })
	return l.err
}

// users counts the leases of one Store, which together hold one shared lock.
type users struct {
	token chan struct{} // holds one value while somebody is changing the fields below; a mutex that honours a context
	count int
	lock  *os.File // locked shared while count > 0
}

func (u *users) enter(ctx context.Context, s *Store) error {
	select {
	case u.token <- struct{}{}:
		defer func() { <-u.token }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if u.count == 0 {
		// Holding the gate until the lock is ours lets a waiting GC, which holds the gate, go before us.
		gate, err := lockPath(ctx, s.path(gateFile), unix.LOCK_SH)
		if err != nil {
			return err
		}
		defer gate.Close()
		if u.lock, err = lockPath(ctx, s.path(lockFile), unix.LOCK_SH); err != nil {
			return err
		}
	}
	u.count++
	return nil
}

func (u *users) leave() error {
	u.token <- struct{}{}
	defer func() { <-u.token }()
	if u.count == 0 {
		return nil // the Store was closed
	}
	u.count--
	if u.count > 0 {
		return nil
	}
	return u.lock.Close()
}

func (u *users) close() error {
	u.token <- struct{}{}
	defer func() { <-u.token }()
	if u.count == 0 {
		return nil
	}
	u.count = 0
	return u.lock.Close()
}

// exclusive waits until nobody uses the store, and returns the locks that keep it so until they are closed.
func (s *Store) exclusive(ctx context.Context) (release func(), err error) {
	gate, err := lockPath(ctx, s.path(gateFile), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	lock, err := lockPath(ctx, s.path(lockFile), unix.LOCK_EX)
	if err != nil {
		gate.Close()
		return nil, err
	}
	return func() { lock.Close(); gate.Close() }, nil
}

// openLock opens a lock file, and makes it if there is none.
func openLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
}

func lockPath(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := openLock(path)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, f, how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// longestPoll bounds how late a waiter sees that a lock is free.
const longestPoll = 50 * time.Millisecond

// flock waits for the lock, asking again ever more rarely, since a blocking flock(2) would not honour ctx.
func flock(ctx context.Context, f *os.File, how int) error {
	for wait := time.Millisecond; ; wait = min(2*wait, longestPoll) {
		locked, err := tryLock(f, how)
		if locked || err != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("wait for lock %s: %w", f.Name(), ctx.Err())
		}
	}
}

// tryLock reports whether it got the lock.
func tryLock(f *os.File, how int) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		default:
			return false, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}
