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
// Nothing is copied. Where there is only one processor, Next hashes before it returns. Buffers are allocated when they
// are needed, at most 4 MiB of them.
//
// It is used by one goroutine. Close must be called.
type Stream struct {
	w    Writer
	made int           // buffers allocated
	full chan []byte   // to the hashing goroutine; nil where there is none
	free chan []byte   // from it
	done chan struct{} // closed by it
}

// NewStream returns an empty Stream.
func NewStream() *Stream {
	s := &Stream{}
	if runtime.GOMAXPROCS(0) == 1 {
		return s
	}
	s.full = make(chan []byte, streamBuffers)
	s.free = make(chan []byte, streamBuffers)
	s.done = make(chan struct{})
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
// The caller must not touch full any more. The first call is Next(nil). Buffers have a length of 512 KiB.
func (s *Stream) Next(full []byte) []byte {
	switch {
	case full == nil:
	case s.full == nil:
		s.w.Write(full)
		return full[:cap(full)]
	default:
		s.full <- full
	}
	select {
	case empty := <-s.free:
		return empty
	default:
	}
	if s.made < streamBuffers {
		s.made++
		return make([]byte, streamBuffer)
	}
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
