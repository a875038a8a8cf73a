package wasi

import "time"

// tick is how far a clock advances with each reading where it does not run by itself: runner.Module.Clock.
const tick = time.Microsecond

// clock tells the time. With a start it stands still but for being read and slept on, and both of WASI's clocks show the
// same passing of time.
type clock struct {
	start  *time.Time
	passed time.Duration // since start
	began  time.Time     // of the host's, which tells monotonic time
}

func newClock(start *time.Time) clock {
	c := clock{began: time.Now()}
	if start != nil {
		t := *start
		c.start = &t
	}
	return c
}

// read returns nanoseconds of one of the two clocks, and lets time go on.
func (c *clock) read(id uint64) (int64, errno) {
	if id != clockRealtime && id != clockMonotonic {
		return 0, errInvalid // processor time: no module can tell how busy its host is
	}
	now := c.now(id)
	if c.start != nil {
		c.passed += tick
	}
	return now, success
}

// now returns nanoseconds without letting time go on.
func (c *clock) now(id uint64) int64 {
	switch {
	case c.start != nil && id == clockRealtime:
		return c.start.UnixNano() + int64(c.passed)
	case c.start != nil:
		return int64(c.passed)
	case id == clockRealtime:
		return time.Now().UnixNano()
	default:
		return int64(time.Since(c.began))
	}
}

// maxSleep bounds one sleep: a longer one is cut, which WASI permits, as it does waking early.
const maxSleep = 24 * time.Hour

func (c *clock) sleep(d time.Duration) {
	d = min(d, maxSleep)
	if c.start != nil {
		c.passed += max(d, 0)
		return
	}
	time.Sleep(d)
}

// fileTime is the time that files get and have: with a start all of them have that one.
func (c *clock) fileTime() int64 {
	if c.start != nil {
		return c.start.UnixNano()
	}
	return time.Now().UnixNano()
}

func (s *System) clockResGet(m memory, p []uint64) errno {
	if p[0] != clockRealtime && p[0] != clockMonotonic {
		return errInvalid
	}
	if s.clock.start != nil {
		return m.put64(p[1], uint64(tick))
	}
	return m.put64(p[1], 1)
}

func (s *System) clockTimeGet(m memory, p []uint64) errno {
	now, e := s.clock.read(p[0])
	if e != success {
		return e
	}
	return m.put64(p[2], uint64(now))
}
