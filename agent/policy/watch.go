package policy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/docfile"
)

const (
	// settle is how long Run waits after a change for others that belong to it: a configuration is swapped in a few calls.
	settle = 20 * time.Millisecond
	// recheck is how often Run looks without having been told, for file systems that tell nothing, and for what expires.
	recheck = time.Minute
	// watched are the changes of a directory that can make a name another file, or a file other content.
	watched = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_CLOSE_WRITE | unix.IN_DELETE | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
)

// Run reloads whenever something changes on the way to one of the files: the file, or a symbolic link. It returns
// ctx.Err() when ctx ends, or what keeps it from watching or from writing the floor.
func (k *Keeper) Run(ctx context.Context) error {
	w, err := newWatcher()
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.follow(k.o.TrustRoot, k.o.Policy); err != nil {
		return err
	}
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	if err := k.reloadOnly(); err != nil { // for what changed before somebody watched
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-w.changed:
			if !ok {
				return w.err
			}
			if err := pause(ctx, settle); err != nil {
				return err
			}
			select {
			case <-w.changed: // belongs to it
			default:
			}
		case <-tick.C:
		}
		// First watch, then read: what changes in between is seen again.
		if err := w.follow(k.o.TrustRoot, k.o.Policy); err != nil {
			return err
		}
		if err := k.reloadOnly(); err != nil {
			return err
		}
	}
}

// reloadOnly is Reload, where a refusal is nothing to end for.
func (k *Keeper) reloadOnly() error {
	err := k.Reload()
	if _, ok := errors.AsType[*RefusedError](err); ok {
		return nil
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// watcher tells that something changed in some directories.
type watcher struct {
	f       *os.File
	fd      int
	dirs    map[string]int // watch descriptors
	changed chan struct{}  // holds one: something changed since it was taken out; closed when reading ends
	done    chan struct{}
	err     error // why reading ended; valid when changed is closed
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch policy: %w", err)
	}
	w := &watcher{
		f: os.NewFile(uintptr(fd), "inotify"), fd: fd, dirs: map[string]int{},
		changed: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go w.read()
	return w, nil
}

// read waits for events. What they say does not matter: everything is looked at anew.
func (w *watcher) read() {
	defer close(w.done)
	defer close(w.changed)
	buf := make([]byte, 64<<10)
	for {
		if _, err := w.f.Read(buf); err != nil {
			w.err = fmt.Errorf("watch policy: %w", err)
			return
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// follow watches all directories on the way to the files, and no others.
func (w *watcher) follow(files ...string) error {
	want := map[string]bool{}
	for _, file := range files {
		dirs, err := docfile.Dirs(file)
		if _, unsafe := errors.AsType[*docfile.Error](err); err != nil && !unsafe {
			return fmt.Errorf("watch %s: %w", file, err)
		}
		for _, d := range dirs {
			want[d] = true
		}
	}
	for dir, wd := range w.dirs {
		if !want[dir] {
			_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // gone already if the directory is
			delete(w.dirs, dir)
		}
	}
	for dir := range want {
		// Added even if it is there: under the same name there may be another directory now.
		wd, err := unix.InotifyAddWatch(w.fd, dir, watched)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue // swapped meanwhile: another event tells
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
		if old, ok := w.dirs[dir]; ok && old != wd {
			_, _ = unix.InotifyRmWatch(w.fd, uint32(old))
		}
		w.dirs[dir] = wd
	}
	return nil
}

func (w *watcher) close() {
	w.f.Close()
	<-w.done
}
