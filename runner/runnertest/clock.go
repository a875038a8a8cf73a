package runnertest

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// offsets are by how much the cases shift the clock.
var offsets = []time.Duration{0, 400*24*time.Hour + 999999999, -400*24*time.Hour - 1}

// clocks are the cases of Spec.ClockOffset.
func clocks() []testCase {
	return []testCase{
		{"the wall clock is shifted", func(h *harness) {
			for _, offset := range offsets {
				out := h.shifted(offset, h.spec("time"))
				h.equal(h.shows(out, offset), 6*4)
			}
		}},
		{"other clocks are the host's", steadyClocks},
		{"a deadline on the wall clock comes", func(h *harness) {
			want := []string{
				"futex: ETIMEDOUT", "time is unchanged: true", "clock_nanosleep: ok", "clock_nanosleep until 1970: ok",
				"timerfd: 8 1 ok", "timerfd: 8 1 ok", "timer: true ok",
			}
			for _, offset := range offsets {
				h.equal(lines(h.shifted(offset, h.spec("until"))), want)
			}
		}},
		{"wrong calls fail as on the host", func(h *harness) {
			out := h.shifted(offsets[1], h.spec("bad-clocks"))
			h.equal(lines(out), []string{
				"no such clock: EINVAL", "clock_gettime to nowhere: EFAULT", "gettimeofday to nowhere: EFAULT",
				"gettimeofday of nothing: ok", "clone out of sight: EPERM",
			})
		}},
		{"nothing else changes with the clock", func(h *harness) {
			for _, action := range []string{"describe", "env", "denied", "stops", "signals", "first", "load"} {
				h.equal(h.outcome(offsets[1], action), h.outcome(0, action))
			}
			for _, args := range [][]string{{"exit", "42"}, {"raise", "15"}, {"raise", "9"}, {"raise", "19"}, {"no such action"}} {
				h.equal(h.outcome(offsets[1], args...), h.outcome(0, args...))
			}
		}},
		{"programs that cannot start are told apart under a shifted clock", unstartable},
		{"wall time ends everything under a shifted clock", func(h *harness) {
			const mark = "mark-of-shifted"
			spec := h.spec("daemon", "stay", mark)
			spec.Limits.Wall, spec.ClockOffset = 300*time.Millisecond, offsets[1]
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonTimeout, 0)
			h.allDead(mark)
		}},
		{"many runs under a shifted clock", func(h *harness) {
			for range 50 {
				spec := h.spec("daemon")
				spec.Commands = append(spec.Commands, h.command("time"), h.command("threads"))
				h.equal(h.shows(strings.TrimPrefix(h.shifted(offsets[2], spec), "daemon started\n"), offsets[2]), 6*4)
			}
		}},
		{"C programs see the shifted clock", clocksInC},
	}
}

// shifted runs spec, which must succeed, under that offset, and returns what it wrote. A clock that cannot be shifted
// must be reported; the case then ends.
func (h *harness) shifted(offset time.Duration, spec runner.Spec) string {
	h.Helper()
	spec.ClockOffset = offset
	if spec.Limits.Wall == 0 {
		spec.Limits.Wall = time.Minute // for what waits on the wrong clock
	}
	result, out := h.run(spec)
	h.enforces(result, offset)
	if !result.OK() {
		h.Fatalf("offset %v: result: %+v\n%s", offset, result, out)
	}
	return out
}

// enforces checks what result says of the clock.
func (h *harness) enforces(result runner.Result, offset time.Duration) {
	h.Helper()
	for _, missing := range result.Confinement.Missing {
		if strings.HasPrefix(missing, "clock-offset: ") && offset != 0 {
			h.Skip("cannot run here: ", missing)
		}
	}
	if got := slices.Contains(result.Confinement.Enforced, "clock-offset"); got != (offset != 0) {
		h.Errorf("offset %v: enforced: %v", offset, result.Confinement.Enforced)
	}
}

// shows checks that each line ends in a time that is off by offset, and returns the number of lines.
func (h *harness) shows(out string, offset time.Duration) int {
	h.Helper()
	want := time.Now().Add(offset)
	for _, line := range lines(out) {
		seconds, err := strconv.ParseInt(line[strings.LastIndexByte(line, ' ')+1:], 10, 64)
		if err != nil || time.Unix(seconds, 0).Sub(want).Abs() > time.Hour {
			h.Errorf("%s: %v, want %v", line, time.Unix(seconds, 0).UTC(), want.UTC())
		}
	}
	return len(lines(out))
}

// outcome is how a probe ends and what it writes.
func (h *harness) outcome(offset time.Duration, args ...string) map[string]string {
	h.Helper()
	spec := h.spec(args...)
	spec.ClockOffset = offset
	spec.Limits.Wall = time.Minute
	if args[0] == "raise" && args[1] == strconv.Itoa(int(unix.SIGSTOP)) { // it stays until the limit
		spec.Limits.Wall = time.Second
	}
	result, out := h.run(spec)
	h.enforces(result, offset)
	return map[string]string{
		"args": strings.Join(args, " "), "reason": string(result.Reason), "exit": strconv.Itoa(result.Exit),
		"signal": result.Signal, "detail": result.Detail, "out": out,
	}
}

func steadyClocks(h *harness) {
	ids := []int32{unix.CLOCK_MONOTONIC, unix.CLOCK_MONOTONIC_RAW, unix.CLOCK_BOOTTIME}
	read := func() (list []int64) {
		for _, id := range ids {
			var ts unix.Timespec
			if err := unix.ClockGettime(id, &ts); err != nil {
				h.Fatal(err)
			}
			list = append(list, ts.Nano())
		}
		return list
	}
	for _, offset := range offsets {
		before := read()
		out := lines(h.shifted(offset, h.spec("steady")))
		after := read()
		h.equal(len(out), len(ids))
		for n, line := range out {
			_, text := cut(line)
			if got, err := strconv.ParseInt(text, 10, 64); err != nil || got < before[n] || got > after[n] {
				h.Errorf("offset %v: %s is not between %d and %d", offset, line, before[n], after[n])
			}
		}
	}
}

// unstartable are commands of which execve, or what precedes it, fails.
func unstartable(h *harness) {
	for name, change := range map[string]func(*runner.Spec){
		"no program":    func(s *runner.Spec) { s.Commands[0].Argv = []string{"compiler"} },
		"no directory":  func(s *runner.Spec) { s.Commands[0].Dir = "/nowhere" },
		"no executable": func(s *runner.Spec) { s.Commands = append(s.Commands, runner.Command{Argv: []string{"/build/made"}}) },
		"no interpreter": func(s *runner.Spec) {
			s.Commands[0].Argv = []string{"probe", "make", "script*=#!/nowhere/sh\n"}
			s.Commands = append(s.Commands, runner.Command{Argv: []string{"/build/script"}})
		},
	} {
		var got [2]runner.Result
		for n, offset := range offsets[:2] {
			spec := h.spec("make", "made=text")
			change(&spec)
			spec.ClockOffset = offset
			got[n], _ = h.run(spec)
			h.enforces(got[n], offset)
		}
		if got[0].Reason != got[1].Reason || got[0].Exit != got[1].Exit || got[0].Detail != got[1].Detail || got[0].OK() {
			h.Errorf("%s: got %+v, without the offset %+v", name, got[1], got[0])
		}
	}
}

//go:embed testdata/clock/clock.c
var clockSource string

// clocksInC builds a program against the host's C library, statically and dynamically.
func clocksInC(h *harness) {
	if _, err := exec.LookPath("gcc"); err != nil {
		h.Skip("cannot run here: no C compiler")
	}
	for _, link := range []string{"-dynamic", "-static"} {
		program := filepath.Join(h.dir(), "clock")
		args := []string{"-O2", "-pthread", "-o", program, "-x", "c", "-"}
		if link == "-static" {
			args = append(args, link)
		}
		gcc := exec.CommandContext(h.Context(), "gcc", args...)
		gcc.Stdin = strings.NewReader(clockSource)
		if out, err := gcc.CombinedOutput(); err != nil {
			h.Skipf("cannot run here: gcc %s: %v\n%s", link, err, out)
		}
		for _, offset := range offsets {
			spec := runner.Spec{
				Commands: []runner.Command{{Argv: []string{"/build/clock"}}},
				Mounts:   append(libraries(), runner.Mount{Kind: runner.Tmpfs, Target: "/build"}, runner.Mount{Kind: runner.Bind, Source: program, Target: "/build/clock"}),
			}
			out := h.shifted(offset, spec)
			times, waits, _ := strings.Cut(out, "pthread_cond_timedwait")
			h.equal(h.shows(times, offset), 3*8)
			h.equal(waits, ": ETIMEDOUT\nsem_timedwait: ETIMEDOUT\n")
		}
	}
}

// libraries mounts where the host has its shared libraries.
func libraries() []runner.Mount {
	var mounts []runner.Mount
	for _, dir := range []string{"/usr", "/lib", "/lib64"} {
		if _, err := os.Lstat(dir); err == nil {
			mounts = append(mounts, runner.Mount{Kind: runner.Bind, Source: dir, Target: dir})
		}
	}
	return mounts
}
