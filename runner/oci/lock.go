package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// longestPoll bounds how late a waiter sees that a lock is free.
const longestPoll = 20 * time.Millisecond

// lockFile opens path, which is made if it is not there, and waits for its lock. Closing the file releases it.
func lockFile(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	if err := waitLock(ctx, f, how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// waitLock asks ever more rarely, since a blocking flock(2) would not honour ctx.
func waitLock(ctx context.Context, f *os.File, how int) error {
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
