package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
)

const (
	versionText = "arch store 1\n"
	versionFile = "version"
	lockFile    = "lock"
	gateFile    = "gate"
	blobDir     = "blobs"
	treeDir     = "trees"
	recordDir   = "records"
	rootDir     = "roots"
	tempDir     = "tmp"
	corruptDir  = "corrupt"
)

// Store is an open store. Its methods may be called from several goroutines.
type Store struct {
	dir     string
	fs      fileSystem
	now     func() time.Time
	users   users
	session session
}

// Open opens the store in dir, which is made if it is not there or empty, and sweeps what dead processes left half done.
// A directory that holds something else, a store of another version, or one that others could fill is a *FormatError.
func Open(dir string) (*Store, error) { return open(dir, osFS{}) }

func open(dir string, fsys fileSystem) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s := &Store{dir: dir, fs: fsys, now: time.Now, users: users{token: make(chan struct{}, 1)}}
	if err := s.prepare(); err != nil {
		_ = s.session.close(fsys) // what it leaves is swept later; err says why
		return nil, err
	}
	// What cannot be swept now (another user's, a read-only store) harms nothing and is tried again next time.
	_, _ = s.sweep()
	return s, nil
}

// prepare checks the version of the store, or makes a store where there is none.
func (s *Store) prepare() error {
	if err := s.refuseOthers(); err != nil {
		return err
	}
	text, err := s.fs.ReadFile(s.path(versionFile), int64(len(versionText)))
	switch {
	case err == nil && string(text) == versionText:
		return nil
	case err == nil || errors.Is(err, errTooLarge):
		return &FormatError{
			Dir: s.dir, Cause: fmt.Sprintf("its version file says %.40q, this program knows %q", text, versionText),
			Cure: "use the program that made this store, or another directory",
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("open store %s: %w", s.dir, err)
	}
	if err := s.create(); err != nil {
		if format, ok := errors.AsType[*FormatError](err); ok {
			return format
		}
		return fmt.Errorf("make store %s: %w", s.dir, err)
	}
	return nil
}

// refuseOthers returns an error if somebody else could put into the directory what would then be taken for checked: the
// store does not hash what it hands out. Root is trusted, and trusts whomever it opens the store of.
func (s *Store) refuseOthers() error {
	var stat unix.Stat_t
	switch err := unix.Stat(s.dir, &stat); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("open store %s: %w", s.dir, err)
	}
	const others = 0o002
	if stat.Mode&others != 0 {
		return &FormatError{Dir: s.dir, Cause: fmt.Sprintf("everyone may write to it (mode %04o)", stat.Mode&0o7777), Cure: "`chmod o-w` it if nobody else has written there, or name another directory"}
	}
	if me := os.Geteuid(); me != 0 && stat.Uid != 0 && int(stat.Uid) != me {
		return &FormatError{Dir: s.dir, Cause: fmt.Sprintf("it belongs to user %d", stat.Uid), Cure: "name a directory of your own: what is in a store is trusted"}
	}
	return nil
}

// create makes the directories of a store, then, as the last step, its version file. Two processes may do it at the same time, and
// one may finish what another began.
func (s *Store) create() error {
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o755); err != nil {
		return err
	}
	if err := s.mkdir(s.dir); err != nil {
		return err
	}
	if err := s.refuseForeign(); err != nil {
		return err
	}
	for _, name := range []string{blobDir, treeDir, recordDir, rootDir, tempDir, corruptDir} {
		if err := s.mkdir(s.path(name)); err != nil {
			return err
		}
	}
	for _, name := range []string{lockFile, gateFile} {
		f, err := openLock(s.path(name))
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := s.writeFile(s.path(versionFile), []byte(versionText)); err != nil {
		return err
	}
	return s.fs.SyncDir(filepath.Dir(s.dir))
}

// refuseForeign returns an error if the directory holds anything that an unfinished create does not leave.
func (s *Store) refuseForeign() error {
	entries, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		switch entry.Name() {
		case blobDir, treeDir, recordDir, rootDir, tempDir, corruptDir, lockFile, gateFile, versionFile:
		default:
			return &FormatError{
				Dir: s.dir, Cause: fmt.Sprintf("it is no store and holds other files, such as %q", entry.Name()),
				Cure: "name an empty or a new directory",
			}
		}
	}
	return nil
}

func (s *Store) mkdir(path string) error {
	if err := s.fs.Mkdir(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Dir returns the store's directory, an absolute path.
func (s *Store) Dir() string { return s.dir }

// Close removes the temporary directory of this Store and releases its locks, those of unreleased leases too. The caller of
// Open calls it once, when no other method is running.
func (s *Store) Close() error {
	return errors.Join(s.session.close(s.fs), s.users.close())
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Store) blobPath(d digest.SHA256) string { return s.path(blobDir, d.Hex()) }
func (s *Store) treePath(d digest.SHA256) string { return s.path(treeDir, d.Hex()) }

// writeFile puts a small file in place, durably: a reader sees the old content or the new one.
func (s *Store) writeFile(path string, data []byte) error {
	temp, err := s.temp()
	if err != nil {
		return err
	}
	if err := s.writeTemp(temp, data); err != nil {
		return errors.Join(err, s.discard(temp))
	}
	if err := s.fs.Rename(temp, path); err != nil {
		return errors.Join(err, s.discard(temp))
	}
	return s.fs.SyncDir(filepath.Dir(path))
}

func (s *Store) writeTemp(temp string, data []byte) error {
	f, err := s.fs.Create(temp)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// discard removes something temporary. If that fails, sweep removes it later.
func (s *Store) discard(temp string) error {
	if err := s.fs.RemoveAll(temp); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}
