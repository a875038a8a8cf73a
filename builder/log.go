package builder

import (
	"bytes"
	"os"
	"sync"
)

// tailSize is how much of a log an error repeats.
const tailSize = 4 << 10

// buildLog is the log of one execution: a file, and its end in memory.
type buildLog struct {
	mu   sync.Mutex // a build's stdout and stderr are written by two goroutines
	file *os.File
	tail []byte
}

// Write appends p.
func (l *buildLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if len(l.tail) > 2*tailSize {
		l.tail = bytes.Clone(l.tail[len(l.tail)-tailSize:])
	}
	return l.file.Write(p)
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

// Close closes the file; a second call does nothing.
func (l *buildLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
