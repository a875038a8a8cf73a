package wasi

import (
	"encoding/binary"
	"math"
	"time"
)

// The types of events.
const (
	eventClock = 0
	eventRead  = 1
	eventWrite = 2
)

// subscription is one thing that pollOneoff waits for.
type subscription struct {
	user []byte // 8 bytes, given back in the event
	kind byte
	due  time.Duration // from now, for a clock
	err  errno         // why it cannot be waited for
}

// pollOneoff returns what has happened of a list of things, and waits for the first clock if nothing has. Files, stdin and
// stdout never let a module wait, so with one of them in the list it returns at once.
func (s *System) pollOneoff(m memory, p []uint64) errno {
	count := p[2]
	if count == 0 || count > 1<<16 {
		return errInvalid
	}
	in, e := m.at(p[0], count*sizeSubscription)
	if e != success {
		return e
	}
	out, e := m.at(p[1], count*sizeEvent)
	if e != success {
		return e
	}
	list := make([]subscription, count)
	first := time.Duration(math.MaxInt64)
	for i := range list {
		if list[i], e = s.subscription(in[i*sizeSubscription:][:sizeSubscription]); e != success {
			return e
		}
		first = min(first, list[i].due)
	}
	if first > 0 {
		s.clock.sleep(first)
	}
	return m.put32(p[3], putEvents(out, list, max(first, 0)))
}

// subscription reads one; what can be told at once is due at zero.
func (s *System) subscription(b []byte) (subscription, errno) {
	le := binary.LittleEndian
	sub := subscription{user: append([]byte(nil), b[:8]...), kind: b[8]}
	switch sub.kind {
	case eventClock:
		id, timeout, absolute := uint64(le.Uint32(b[16:])), le.Uint64(b[24:]), le.Uint16(b[40:])&1 != 0
		if id != clockRealtime && id != clockMonotonic {
			sub.err = errInvalid
			return sub, success
		}
		due := int64(min(timeout, math.MaxInt64))
		if absolute {
			now := s.clock.now(id)
			due -= min(due, now)
		}
		sub.due = time.Duration(due)
	case eventRead, eventWrite:
		need := rightRead
		if sub.kind == eventWrite {
			need = rightWrite
		}
		d, e := s.get(uint64(le.Uint32(b[16:])), 0)
		if e == success && d.rights&(need|rightPoll) == 0 {
			e = errBadFD
		}
		sub.err = e
	default:
		return sub, errInvalid
	}
	return sub, success
}

// putEvents writes the events of all that is due, and returns how many they are.
func putEvents(out []byte, list []subscription, passed time.Duration) uint32 {
	var n uint32
	for _, sub := range list {
		if sub.due > passed {
			continue
		}
		b := out[int(n)*sizeEvent:][:sizeEvent]
		clear(b)
		copy(b, sub.user)
		binary.LittleEndian.PutUint16(b[8:], uint16(sub.err))
		b[10] = sub.kind
		if sub.kind != eventClock && sub.err == success {
			binary.LittleEndian.PutUint64(b[16:], 1)
		}
		n++
	}
	return n
}
