package systemd

import (
	"encoding/binary"
	"errors"
	"sync"

	"arch.network/runner"
)

// backlog is what the commands have printed and no driver is known to have kept. When it is full, whoever prints waits, as at a full pipe:
// nothing is lost while there is no driver, and a later one gets what its predecessor had not kept.
type backlog struct {
	mu      sync.Mutex // guards the rest
	streams [2]printed // stdout and stderr
	room    *sync.Cond // there may be room again, or nobody will come any more
	over    bool
}

// printed is one stream.
type printed struct {
	kept int64  // bytes before rest, all of which a driver has kept
	sent int64  // bytes that the present driver was sent, or had; at least kept
	rest []byte // those after kept
}

const (
	// maxBacklog is how many bytes of a stream are held: four times what a pipe does, so that one driver's answers are in time.
	maxBacklog = 256 << 10
	// keptEvery is after how many bytes a driver says what it has kept: often enough that nobody waits for it.
	keptEvery = maxBacklog / 8
)

func newBacklog() *backlog {
	b := &backlog{}
	b.room = sync.NewCond(&b.mu)
	return b
}

// add waits for room and adds some of p. It returns how much that is: all, but when nobody will ever come to read it.
func (b *backlog) add(stream int, p []byte) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.streams[stream]
	for len(s.rest) >= maxBacklog && !b.over {
		b.room.Wait()
	}
	if b.over {
		return len(p)
	}
	n := min(len(p), maxBacklog-len(s.rest))
	s.rest = append(s.rest, p[:n]...)
	return n
}

// next returns what the present driver was not sent yet, at most a frame's worth of one stream.
func (b *backlog) next() (stream int, p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := range b.streams {
		s := &b.streams[n]
		p := s.rest[s.sent-s.kept:]
		if len(p) == 0 {
			continue
		}
		p = p[:min(len(p), maxFrame-1)]
		s.sent += int64(len(p))
		return n, append([]byte(nil), p...)
	}
	return 0, nil
}

// keep forgets what a driver has kept of a stream: its first n bytes.
func (b *backlog) keep(stream int, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.streams[stream]
	if n < s.kept || n > s.sent {
		return errors.New("the driver has kept what it was not sent")
	}
	s.rest = s.rest[n-s.kept:]
	s.kept = n
	b.room.Broadcast()
	return nil
}

// resume has a driver that has kept that much already be sent the rest. It reports whether there is a hole between: what an earlier driver had
// kept is gone.
func (b *backlog) resume(had runner.Kept) (hole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n, have := range [2]int64{had.Stdout, had.Stderr} {
		s := &b.streams[n]
		hole = hole || have < s.kept
		s.sent = min(max(have, s.kept), s.kept+int64(len(s.rest)))
		s.rest = s.rest[s.sent-s.kept:]
		s.kept = s.sent
	}
	b.room.Broadcast()
	return hole
}

// end says that no driver will come any more: what is printed now is thrown away.
func (b *backlog) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	b.room.Broadcast()
}

// keptBody is the body of a frameKept.
func keptBody(stream int, n int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{byte(stream)}, uint64(n))
}

// parseKept reads a keptBody.
func parseKept(body []byte) (stream int, n int64, err error) {
	if len(body) != 9 || body[0] > 1 || body[1] > 127 {
		return 0, 0, errors.New("a frame says in no known way what is kept")
	}
	return int(body[0]), int64(binary.BigEndian.Uint64(body[1:])), nil
}
