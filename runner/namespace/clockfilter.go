package namespace

import (
	"golang.org/x/sys/unix"
)

// Calls newer than the library's table (linux/unistd.h: the same number on every architecture since 2019), and flags.
const (
	sysFutexWaitv = 449

	futexOptions  = 0x80       // FUTEX_PRIVATE_FLAG, which changes nothing about the clock
	futexRealtime = 0x100      // FUTEX_CLOCK_REALTIME
	cloneUntraced = 0x00800000 // CLONE_UNTRACED
)

// Operations of futex(2) that wait until a time; all others wait for a duration, or not at all.
const (
	futexLockPI        = 6 // always by the wall clock
	futexWaitBitset    = 9
	futexWaitRequeuePI = 11
	futexLockPI2       = 13
)

// condition holds if the low half of an argument, as far as mask tells, is one of values; without values, if the
// whole argument is not zero.
type condition struct {
	argument int
	mask     uint32
	values   []uint32
}

// rule is what happens to a call if all conditions hold.
type rule struct {
	call       uint32
	action     uint32
	conditions []condition
}

const wholeWord = ^uint32(0)

// clockRules are the calls that the clock must see, and the one that would get a process out of its sight.
func clockRules() []rule {
	const trace = unix.SECCOMP_RET_TRACE
	read := condition{0, wholeWord, []uint32{unix.CLOCK_REALTIME, unix.CLOCK_REALTIME_COARSE, unix.CLOCK_REALTIME_ALARM, unix.CLOCK_TAI}}
	wait := condition{0, wholeWord, []uint32{unix.CLOCK_REALTIME, unix.CLOCK_REALTIME_ALARM, unix.CLOCK_TAI}}
	absolute := condition{1, unix.TIMER_ABSTIME, []uint32{unix.TIMER_ABSTIME}} // TFD_TIMER_ABSTIME is the same bit
	futex := condition{1, wholeWord &^ futexOptions, []uint32{
		futexLockPI, futexWaitBitset | futexRealtime, futexWaitRequeuePI | futexRealtime, futexLockPI2 | futexRealtime,
	}}
	given := func(argument int) condition { return condition{argument: argument} }
	rules := []rule{
		{unix.SYS_CLOCK_GETTIME, trace, []condition{read}},
		{unix.SYS_GETTIMEOFDAY, trace, nil},
		{unix.SYS_FUTEX, trace, []condition{futex, given(3)}},
		{unix.SYS_CLOCK_NANOSLEEP, trace, []condition{wait, absolute, given(2)}},
		{unix.SYS_TIMERFD_SETTIME, trace, []condition{absolute, given(2)}},
		{unix.SYS_TIMER_SETTIME, trace, []condition{absolute, given(2)}},
		{unix.SYS_MQ_TIMEDSEND, trace, []condition{given(4)}},
		{unix.SYS_MQ_TIMEDRECEIVE, trace, []condition{given(4)}},
		{sysFutexWaitv, trace, []condition{given(3), {4, wholeWord, []uint32{unix.CLOCK_REALTIME}}}},
		{unix.SYS_CLONE, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), []condition{{0, cloneUntraced, []uint32{cloneUntraced}}}},
	}
	if sysTime != noCall {
		rules = append(rules, rule{uint32(sysTime & 0xffffffff), trace, nil})
	}
	return rules
}

// noCall is the number of no system call.
const noCall = ^uint64(0)

// clockProgram compiles clockRules. What no rule is about is allowed, as far as the other filters allow it.
func clockProgram() []unix.SockFilter {
	program := []unix.SockFilter{{Code: filterLoad, K: dataNumber}}
	for _, r := range clockRules() {
		block := compile(r)
		program = append(program, unix.SockFilter{Code: filterEqual, K: r.call, Jf: uint8(len(block))})
		program = append(program, block...)
	}
	return append(program, unix.SockFilter{Code: filterReturn, K: unix.SECCOMP_RET_ALLOW})
}

// compile returns what is done about a call once it is known to be the rule's. It ends in a return on every way.
func compile(r rule) []unix.SockFilter {
	var block []unix.SockFilter
	for _, c := range r.conditions {
		low, high := uint32(dataArgument+8*c.argument), uint32(dataArgument+8*c.argument+4) // little-endian
		if len(c.values) == 0 {
			block = append(block,
				unix.SockFilter{Code: filterLoad, K: low},
				unix.SockFilter{Code: filterEqual, K: 0, Jf: 3},
				unix.SockFilter{Code: filterLoad, K: high},
				unix.SockFilter{Code: filterEqual, K: 0, Jf: 1},
				unix.SockFilter{Code: filterReturn, K: unix.SECCOMP_RET_ALLOW})
			continue
		}
		block = append(block, unix.SockFilter{Code: filterLoad, K: low}, unix.SockFilter{Code: filterAnd, K: c.mask})
		for i, v := range c.values {
			block = append(block, unix.SockFilter{Code: filterEqual, K: v, Jt: uint8(len(c.values) - i)})
		}
		block = append(block, unix.SockFilter{Code: filterReturn, K: unix.SECCOMP_RET_ALLOW})
	}
	return append(block, unix.SockFilter{Code: filterReturn, K: r.action})
}
