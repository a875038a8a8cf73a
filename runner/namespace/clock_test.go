package namespace

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestShifted(t *testing.T) {
	tests := []struct {
		name   string
		in     instant
		offset time.Duration
		want   instant
	}{
		{"forth", instant{10, 5}, 3*time.Second + 7, instant{13, 12}},
		{"forth over a second", instant{10, 999999999}, 1, instant{11, 0}},
		{"back", instant{10, 5}, -3*time.Second - 5, instant{7, 0}},
		{"back over a second", instant{10, 5}, -6, instant{9, 999999999}},
		{"before 1970", instant{1, 0}, -2*time.Second - 1, instant{-2, 999999999}},
		{"the largest offset", instant{1, 0}, math.MaxInt64, instant{9223372037, 854775807}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := shifted(test.in.seconds, test.in.nanoseconds, test.offset)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(instant{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnshifted(t *testing.T) {
	tests := []struct {
		name   string
		in     instant
		offset time.Duration
		want   instant
		ok     bool
	}{
		{"a time", instant{100, 1}, 50 * time.Second, instant{50, 1}, true},
		{"a time of a clock that is behind", instant{100, 1}, -50 * time.Second, instant{150, 1}, true},
		{"a time long past has passed", instant{1, 0}, time.Hour, instant{0, 1}, true},
		{"what would come out as zero does not disarm", instant{3600, 0}, time.Hour, instant{0, 1}, true},
		{"zero disarms", instant{}, time.Hour, instant{}, false},
		{"no valid nanoseconds", instant{1, 1e9}, time.Hour, instant{1, 1e9}, false},
		{"no valid seconds", instant{-1, 0}, time.Hour, instant{-1, 0}, false},
		{"the end of time", instant{math.MaxInt64, 0}, -time.Hour, instant{math.MaxInt64, 0}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok := unshifted(test.in, &clock{offset: test.offset})
			if ok != test.ok {
				t.Errorf("got %v, want %v", ok, test.ok)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(instant{})); ok && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnWallClock(t *testing.T) {
	tests := []struct {
		name, text, id, key string
		want                bool
	}{
		{"a descriptor", "pos:\t0\nflags:\t02000002\nclockid: 0\nticks: 0\n", "", "clockid", true},
		{"a steady one", "pos:\t0\nclockid: 1\n", "", "clockid", false},
		{"no timer", "pos:\t0\n", "", "clockid", false},
		{"the second timer", "ID: 0\nsignal: 10/0\nClockID: 1\nID: 1\nsignal: 10/0\nClockID: 0\n", "1", "ClockID", true},
		{"the first timer", "ID: 0\nsignal: 10/0\nClockID: 1\nID: 1\nsignal: 10/0\nClockID: 0\n", "0", "ClockID", false},
		{"no such timer", "ID: 0\nClockID: 0\n", "2", "ClockID", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "info")
			if err := os.WriteFile(name, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := onWallClock(name, test.id, test.key); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	if onWallClock(filepath.Join(t.TempDir(), "none"), "", "clockid") {
		t.Error("a file that is not there names a wall clock")
	}
}

// evaluate runs a filter on a call, as the kernel does (Documentation/userspace-api/seccomp_filter.rst).
func evaluate(t *testing.T, program []unix.SockFilter, call uint32, arguments [6]uint64) uint32 {
	t.Helper()
	data := binary.NativeEndian.AppendUint32(nil, call)
	data = append(data, make([]byte, 12)...) // architecture and instruction
	for _, a := range arguments {
		data = binary.NativeEndian.AppendUint64(data, a)
	}
	var a uint32
	for at := 0; ; at++ {
		i := program[at]
		jump := i.Jf
		switch i.Code {
		case filterLoad:
			a = binary.NativeEndian.Uint32(data[i.K:])
		case filterAnd:
			a &= i.K
		case filterReturn:
			return i.K
		case filterEqual:
			if a == i.K {
				jump = i.Jt
			}
			at += int(jump)
		default:
			t.Fatalf("instruction %d is %+v", at, i)
		}
	}
}

func TestClockProgram(t *testing.T) {
	const (
		allow  = unix.SECCOMP_RET_ALLOW
		trace  = unix.SECCOMP_RET_TRACE
		refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		high   = 1 << 32
	)
	tests := []struct {
		name      string
		call      uint32
		arguments [6]uint64
		want      uint32
	}{
		{"another call", unix.SYS_READ, [6]uint64{}, allow},
		{"real time", unix.SYS_CLOCK_GETTIME, [6]uint64{unix.CLOCK_REALTIME}, trace},
		{"real time, high bit", unix.SYS_CLOCK_GETTIME, [6]uint64{high}, trace},
		{"coarse", unix.SYS_CLOCK_GETTIME, [6]uint64{unix.CLOCK_REALTIME_COARSE}, trace},
		{"atomic time", unix.SYS_CLOCK_GETTIME, [6]uint64{unix.CLOCK_TAI}, trace},
		{"monotonic", unix.SYS_CLOCK_GETTIME, [6]uint64{unix.CLOCK_MONOTONIC}, allow},
		{"CPU time", unix.SYS_CLOCK_GETTIME, [6]uint64{unix.CLOCK_THREAD_CPUTIME_ID}, allow},
		{"time of day", unix.SYS_GETTIMEOFDAY, [6]uint64{}, trace},
		{"wait for a wake-up", unix.SYS_FUTEX, [6]uint64{1, 0 | 128, 0, 1}, allow},
		{"wait for a wake-up without end", unix.SYS_FUTEX, [6]uint64{1, 9 | 128 | 256, 0, 0}, allow},
		{"wait for a wake-up until a time", unix.SYS_FUTEX, [6]uint64{1, 9 | 128 | 256, 0, 1}, trace},
		{"the same with an address of high bits only", unix.SYS_FUTEX, [6]uint64{1, 9 | 256, 0, high}, trace},
		{"wait until a steady time", unix.SYS_FUTEX, [6]uint64{1, 9 | 128, 0, 1}, allow},
		{"lock until a time", unix.SYS_FUTEX, [6]uint64{1, 6 | 128, 0, 1}, trace},
		{"lock until a steady time", unix.SYS_FUTEX, [6]uint64{1, 13, 0, 1}, allow},
		{"wake", unix.SYS_FUTEX, [6]uint64{1, 1 | 128, 1, 7}, allow},
		{"sleep until a time", unix.SYS_CLOCK_NANOSLEEP, [6]uint64{0, 1, 1}, trace},
		{"sleep for a while", unix.SYS_CLOCK_NANOSLEEP, [6]uint64{0, 0, 1}, allow},
		{"sleep until a steady time", unix.SYS_CLOCK_NANOSLEEP, [6]uint64{1, 1, 1}, allow},
		{"timer at a time", unix.SYS_TIMERFD_SETTIME, [6]uint64{3, 3, 1}, trace},
		{"timer after a while", unix.SYS_TIMERFD_SETTIME, [6]uint64{3, 2, 1}, allow},
		{"fork", unix.SYS_CLONE, [6]uint64{17}, allow},
		{"fork out of sight", unix.SYS_CLONE, [6]uint64{0x00800011}, refuse},
		{"the last argument of a wait", sysFutexWaitv, [6]uint64{1, 1, 0, 1, 0}, trace},
		{"the last argument of a steady wait", sysFutexWaitv, [6]uint64{1, 1, 0, 1, 1}, allow},
	}
	program := clockProgram()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := evaluate(t, program, test.call, test.arguments); got != test.want {
				t.Errorf("got %#x, want %#x", got, test.want)
			}
		})
	}
}

// TestChangeVDSO works on this process's own vDSO and on wrong ones.
func TestChangeVDSO(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("cannot run here: there is no code for this architecture")
	}
	image, err := ownVDSO()
	if err != nil {
		t.Skip("cannot run here: ", err)
	}
	v, err := changeVDSO(image, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("symbols name the new functions", func(t *testing.T) {
		file, err := elf.NewFile(bytes.NewReader(v.changed))
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := file.DynamicSymbols()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range symbols {
			name := strings.TrimPrefix(s.Name, "__vdso_")
			changed := name == "clock_gettime" || name == "gettimeofday" || name == "time"
			if inside := s.Value >= uint64(v.stubs) && s.Value < uint64(v.end); inside != changed {
				t.Errorf("%s is at %#x", s.Name, s.Value)
			}
		}
	})
	t.Run("its own calls are told apart", func(t *testing.T) {
		there, err := unix.Mmap(-1, 0, len(v.changed), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(there)
		base := uint64(uintptr(unsafe.Pointer(&there[0])))
		if v.made(os.Getpid(), base+0xbe1) {
			t.Error("an empty page is taken for the vDSO")
		}
		copy(there, v.changed)
		for _, at := range []uint64{2, 0xbe1, uint64(len(there)) - 1} {
			if !v.made(os.Getpid(), base+at) {
				t.Errorf("a call at %#x is not the vDSO's", at)
			}
		}
		if v.made(os.Getpid(), base+uint64(len(there))) {
			t.Error("a call behind the vDSO is the vDSO's")
		}
	})
	wrong := map[string]func(image []byte){
		"read vDSO: bad magic number '[0 69 76 70]' in record at byte 0x0": func(b []byte) { b[0] = 0 },
		"the vDSO is larger than 65536 bytes":                              func(b []byte) { b[42] = 1 },
		"the vDSO has no room":                                             func(b []byte) { b[len(b)-1] = 1 },
		"the vDSO does not read the clock": func(b []byte) {
			copy(b[bytes.Index(b, []byte("__vdso_clock_gettime")):], "__vdso_clock_xettime")
		},
	}
	for want, change := range wrong {
		t.Run(want, func(t *testing.T) {
			b := bytes.Clone(image)
			change(b)
			if _, err := changeVDSO(b, time.Hour); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got error %v", err)
			}
		})
	}
}
