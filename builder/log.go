package builder

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"arch.network/attest/digest"
)

const (
	// tailSize is how much of a log an error repeats, in bytes.
	tailSize = 4 << 10

	// logTemp begins the names of unfinished logs.
	logTemp = ".unfinished-"

	// logAge is when an unfinished log has no writer any more: no build runs longer than a week (manifest.BuildLimits).
	logAge = 8 * 24 * time.Hour
)

// buildLog is the log of one execution: a file that has no name of its own yet, and its end in memory.
type buildLog struct {
	name string // without .log
	path string // that it gets when it is kept

	mu   sync.Mutex // guards what follows: stdout and stderr may be written by two goroutines
	file *os.File   // nil: kept or discarded
	sum  digest.Writer
	tail []byte
}

// createLog begins a log in dir, which is made when missing, and sweeps what crashed builds left there.
func createLog(dir, name string) (*buildLog, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory for logs: %w", err)
	}
	if err := sweepLogs(dir); err != nil {
		return nil, fmt.Errorf("sweep directory for logs: %w", err)
	}
	f, err := os.CreateTemp(dir, logTemp+"*")
	if err != nil {
		return nil, fmt.Errorf("make log: %w", err)
	}
	return &buildLog{name: name, path: filepath.Join(dir, name+".log"), file: f}, nil
}

// sweepLogs removes unfinished logs that nobody writes any more.
func sweepLogs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), logTemp) {
			continue
		}
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > logAge {
			err = os.Remove(filepath.Join(dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Write appends p.
func (l *buildLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return 0, fs.ErrClosed
	}
	l.tail = append(l.tail, p...)
	if len(l.tail) > 2*tailSize {
		l.tail = bytes.Clone(l.tail[len(l.tail)-tailSize:])
	}
	n, err := l.file.Write(p)
	l.sum.Write(p[:n])
	return n, err
}

// Tail returns the last lines.
func (l *buildLog) Tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	tail := l.tail
	if len(tail) > tailSize {
		tail = tail[len(tail)-tailSize:]
		if i := bytes.IndexByte(tail, '\n'); i >= 0 {
			tail = tail[i+1:]
		}
	}
	return string(tail)
}

// keep gives the log its name, in place of an earlier one of that name, and returns its hash.
func (l *buildLog) keep() (digest.SHA256, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	file := l.file
	l.file = nil
	err := errors.Join(file.Chmod(0o644), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), l.path)
	}
	if err != nil {
		return digest.SHA256{}, errors.Join(fmt.Errorf("keep log: %w", err), os.Remove(file.Name()))
	}
	return l.sum.Sum(), nil
}

// discard removes a log that was not kept.
func (l *buildLog) discard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return
	}
	os.Remove(l.file.Name())
	l.file.Close()
	l.file = nil
}
