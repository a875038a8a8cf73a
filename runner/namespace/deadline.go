package namespace

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// layout says where in a structure the time is that a call waits for.
type layout struct {
	words int // size of the structure, in 64-bit words
	at    int // of the seconds, in words; the nanoseconds follow
}

var (
	timespecLayout   = layout{words: 2, at: 0}
	itimerspecLayout = layout{words: 4, at: 2} // interval, then value
)

// deadline returns which argument of the call at which tid has stopped points to a time of the wall clock to wait for.
func deadline(tid int, r *registers) (argument int, l layout, ok bool) {
	switch r.number() {
	case unix.SYS_CLOCK_NANOSLEEP:
		return 2, timespecLayout, true
	case unix.SYS_FUTEX, sysFutexWaitv:
		return 3, timespecLayout, true
	case unix.SYS_MQ_TIMEDSEND, unix.SYS_MQ_TIMEDRECEIVE:
		return 4, timespecLayout, true
	case unix.SYS_TIMERFD_SETTIME:
		name := fmt.Sprintf("/proc/%d/fdinfo/%d", tid, int32(r.argument(0)))
		return 2, itimerspecLayout, onWallClock(name, "", "clockid")
	case unix.SYS_TIMER_SETTIME:
		id := strconv.Itoa(int(int32(r.argument(0))))
		return 2, itimerspecLayout, onWallClock(fmt.Sprintf("/proc/%d/timers", tid), id, "ClockID")
	}
	return 0, layout{}, false
}

// onWallClock reports whether a file of /proc, in which lines "key: value" describe timers, gives a wall clock for
// key: in the block that begins with "ID: " and id, or in the only one if id is empty.
func onWallClock(name, id, key string) bool {
	data, err := os.ReadFile(name)
	if err != nil {
		return false
	}
	here := id == ""
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		k, v, _ := strings.Cut(lines.Text(), ":")
		v = strings.TrimSpace(v)
		switch {
		case k == "ID" && id != "":
			here = v == id
		case k == key && here:
			n, err := strconv.Atoi(v)
			return err == nil && isWall(n)
		}
	}
	return false
}

// isWall reports whether timers on the clock follow the wall clock.
func isWall(id int) bool {
	return id == unix.CLOCK_REALTIME || id == unix.CLOCK_REALTIME_ALARM || id == unix.CLOCK_TAI
}

// redZone is how many bytes below its stack pointer a program may use without saying so (System V ABI for x86-64, 3.2.2).
const redZone = 128

// shiftBack makes the call wait for the host's idea of the time that its argument points to. The program's own memory
// stays as it is, since other threads may read it: the changed copy lies below the stack, where nothing lives during a call.
// It reports whether the argument was replaced.
func (c *clock) shiftBack(tid int, r *registers, argument int, l layout) bool {
	words := make([]int64, l.words)
	if !readWords(tid, r.argument(argument), words) {
		return false
	}
	t, ok := unshifted(instant{words[l.at], words[l.at+1]}, c)
	if !ok {
		return false
	}
	words[l.at], words[l.at+1] = t.seconds, t.nanoseconds
	place := (r.stack() - redZone - uint64(8*l.words)) &^ 15
	if !writeWords(tid, place, words...) {
		return false
	}
	c.held[tid] = replaced{argument, r.argument(argument)}
	r.setArgument(argument, place)
	if r.set(tid) != nil {
		delete(c.held, tid)
		return false
	}
	return true
}

// unshifted takes the offset away from t. Times that are not valid, and zero, which disarms a timer, have no
// counterpart; one before the host's 1970 becomes the earliest after it, so that it has passed as well.
func unshifted(t instant, c *clock) (instant, bool) {
	if t.seconds < 0 || t.nanoseconds < 0 || t.nanoseconds >= 1e9 || t == (instant{}) {
		return t, false
	}
	u := shifted(t.seconds, t.nanoseconds, -c.offset)
	switch {
	case c.offset < 0 && u.seconds < 0: // beyond the largest time
		return t, false
	case u.seconds < 0 || u == (instant{}):
		return instant{0, 1}, true
	}
	return u, true
}

// restore puts the argument back that shiftBack has replaced: a call leaves its arguments as they are.
func (c *clock) restore(tid int) {
	old, ok := c.held[tid]
	delete(c.held, tid)
	var r registers
	if !ok || r.get(tid) != nil {
		return
	}
	r.setArgument(old.argument, old.value)
	r.set(tid) // fails only if the thread has been killed
}
