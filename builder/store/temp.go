package store

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// session is the temporary directory of one Store. It is locked for the life of the Store, so that whoever gets the lock knows that
// its owner is dead; unlike a process id this holds across process-id namespaces and reboots.
type session struct {
	mu   sync.Mutex
	lock *os.File // the open, locked directory; nil: not made yet
	next int      // number of the next temporary name
}

// temp returns a new name in the session's directory.
func (s *Store) temp() (string, error) {
	t := &s.session
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.lock == nil {
		lock, err := s.newSession()
		if err != nil {
			return "", err
		}
		t.lock = lock
	}
	t.next++
	return filepath.Join(t.lock.Name(), strconv.Itoa(t.next)), nil
}

// newSession makes and locks a temporary directory. It returns nil if a sweep in another process took it for a dead one's in the moment between
// the two, so that the caller tries again.
func (s *Store) newSession() (*os.File, error) {
	dir := s.path(tempDir, rand.Text())
	if err := s.fs.Mkdir(dir); err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !ownsSession(lock) {
		return nil, lock.Close()
	}
	return lock, nil
}

// ownsSession locks the directory and reports whether it is still the one that its path names.
func ownsSession(lock *os.File) bool {
	if locked, err := tryLock(lock, unix.LOCK_EX); err != nil || !locked {
		return false
	}
	held, err := lock.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(lock.Name())
	return err == nil && os.SameFile(held, named)
}

func (t *session) close(fsys fileSystem) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lock == nil {
		return nil
	}
	// The lock goes even if the directory cannot: then it is swept later.
	err := errors.Join(fsys.RemoveAll(t.lock.Name()), t.lock.Close())
	t.lock = nil
	return err
}

// sweep removes the temporary directories of dead processes and returns how many it removed.
func (s *Store) sweep() (int, error) {
	entries, err := s.fs.ReadDir(s.path(tempDir))
	if err != nil {
		return 0, err
	}
	var swept int
	var failed []error
	for _, entry := range entries {
		dead, err := s.sweepOne(s.path(tempDir, entry.Name()))
		if dead {
			swept++
		}
		failed = append(failed, err)
	}
	return swept, errors.Join(failed...)
}

func (s *Store) sweepOne(path string) (dead bool, err error) {
	lock, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if locked, err := tryLock(lock, unix.LOCK_EX); err != nil || !locked {
		return false, err
	}
	return true, s.fs.RemoveAll(path)
}
