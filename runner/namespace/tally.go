package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"arch.network/runner"
	"arch.network/runner/meter"
)

// tally counts the system calls that the filter refuses, while the commands run. A filter cannot count; so where someone wants the
// number, the kernel asks the first process what to answer (SECCOMP_RET_USER_NOTIF, seccomp_unotify(2)), which always answers
// EPERM, and adds one to a counter (eventfd(2)) that the driver reads. The zero value counts nothing.
type tally struct {
	counter *os.File
	number  int // of counter in the first process
	sum     atomic.Int64
}

// open makes the counter, if it is wanted, and returns it for the first process.
func (r *tally) open(wanted bool) (*os.File, error) {
	if !wanted {
		return nil, nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, &runner.SetupError{Act: "make counter", Err: err}
	}
	r.counter = os.NewFile(uintptr(fd), "refusals")
	return r.counter, nil
}

// count returns how many calls were refused so far.
func (r *tally) count() int64 {
	if r.counter == nil {
		return 0
	}
	conn, err := r.counter.SyscallConn()
	if err == nil {
		conn.Control(func(fd uintptr) {
			var b [8]byte
			if n, err := unix.Read(int(fd), b[:]); err == nil && n == len(b) { // it is zero again then
				r.sum.Add(int64(binary.NativeEndian.Uint64(b[:])))
			}
		})
	}
	return r.sum.Load()
}

// anomalies judges the count of an execution that nothing else is measured of, and that took that long.
func (r *tally) anomalies(wall time.Duration) []runner.Anomaly {
	var last meter.Sample
	last.At, last.RefusedSyscalls = wall, r.count()
	return meter.Detect([]meter.Sample{last}, runner.Limits{}, meter.Thresholds{})
}

func (r *tally) close() {
	if r.counter != nil {
		r.count()
		r.counter.Close()
	}
}

// asking returns p changed so that the kernel asks where it refuses.
func (p program) asking() program {
	q := slices.Clone(p)
	for n, i := range q {
		if i.Code == filterReturn && i.K == unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM) {
			q[n].K = unix.SECCOMP_RET_USER_NOTIF
		}
	}
	return q
}

// loadCounted puts p on the calling thread, and counts what it refuses on the descriptor counter. Where that cannot be,
// as within another such filter, nothing is counted.
func (p program) loadCounted(counter int) (counted bool, err error) {
	q := p.asking()
	prog := unix.SockFprog{Len: uint16(len(q)), Filter: &q[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return false, p.load()
	}
	if err := unix.SetNonblock(int(fd), true); err != nil {
		return false, fmt.Errorf("listen to system call filter: %w", err)
	}
	listener := os.NewFile(fd, "listener")
	conn, err := listener.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("listen to system call filter: %w", err)
	}
	go func() {
		defer listener.Close() // then such calls fail with ENOSYS
		for conn.Read(func(fd uintptr) bool { return answerOne(int(fd), counter) }) == nil {
		}
	}()
	return true, nil
}

// notification has room for struct seccomp_notif, of 80 bytes as yet, and for what later kernels may add (linux/seccomp.h).
type notification struct {
	id   uint64
	rest [248]byte
}

// notificationAnswer is struct seccomp_notif_resp.
type notificationAnswer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// answerOne answers one question, if there is one.
func answerOne(fd, counter int) bool {
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(ready, 0); n < 1 || err != nil {
		return false
	}
	var ask notification
	if err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&ask)); err != nil {
		return errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) // it was killed meanwhile
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(counter, one[:])
	answer := notificationAnswer{id: ask.id, errno: -int32(unix.EPERM)}
	ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&answer)) // fails only if it was killed meanwhile
	return true
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}
