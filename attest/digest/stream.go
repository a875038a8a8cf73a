package digest

import (
	"runtime"
)

// Sizes of a Stream's buffers. One hand-over costs about as much as hashing 10 KiB, so a buffer holds far more;
// together they are 4 MiB, so that what the reader just wrote is still in the last-level cache when it is hashed.
const (
	streamBuffer  = 512 << 10
	streamBuffers = 8
)

// Stream hashes beside its caller: the caller fills one buffer while another goroutine hashes those before it.
// Nothing is copied. Where there is only one processor, Next hashes before it returns.
//
// It is used by one goroutine. Close must be called.
type Stream struct {
	w    Writer
	full chan []byte // to the hashing goroutine, nil where there is none
	free chan []byte // from it, and at first all buffers; only the first one where there is no goroutine
	done chan struct{}
}

// NewStream returns an empty Stream. It allocates 4 MiB, or 512 KiB where there is only one processor.
func NewStream() *Stream {
	if runtime.GOMAXPROCS(0) == 1 {
		s := &Stream{free: make(chan []byte, 1)}
		s.free <- make([]byte, streamBuffer)
		return s
	}
	s := &Stream{
		full: make(chan []byte, streamBuffers),
		free: make(chan []byte, streamBuffers),
		done: make(chan struct{}),
	}
	all := make([]byte, streamBuffers*streamBuffer)
	for b := range streamBuffers {
		s.free <- all[b*streamBuffer : (b+1)*streamBuffer : (b+1)*streamBuffer]
	}
	go s.run()
	return s
}

// run hashes until Close or Sum closes s.full.
func (s *Stream) run() {
	defer close(s.done)
	var spent [streamBuffers][]byte
	n := 0
	for buf := range s.full {
		s.w.Write(buf)
		spent[n], n = buf[:cap(buf)], n+1
		// Buffers go back by halves: waking the caller for each one would cost more than it brings.
		if n >= streamBuffers/2 || len(s.full) == 0 {
			for _, b := range spent[:n] {
				s.free <- b
			}
			n = 0
		}
	}
}

// Next adds full, a prefix of the buffer that Next returned before, to the hash, and returns a buffer to fill next.
// The caller must not touch full any more. The first call is Next(nil). Buffers have one size, at least 256 KiB.
func (s *Stream) Next(full []byte) []byte {
	switch {
	case full == nil:
		return <-s.free
	case s.full == nil:
		s.w.Write(full)
		return full[:cap(full)]
	}
	s.full <- full
	return <-s.free
}

// Sum waits until everything given to Next is hashed and returns the hash. The Stream is of no more use then.
func (s *Stream) Sum() SHA256 {
	s.Close()
	return s.w.Sum()
}

// Close ends the Stream and its goroutine. It may be called more than once.
func (s *Stream) Close() {
	if s.full == nil {
		return
	}
	select {
	case <-s.done:
		return
	default:
	}
	close(s.full)
	<-s.done
}
