package systemd

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// relay carries bytes between the commands' socket and the driver's, each end of a direction as it comes, and returns
// when the commands' end is wholly shut. Descriptors do not go along.
func relay(commands, driver *os.File) error {
	defer driver.Close()
	keep, err := duplicate(commands)
	if err != nil {
		return err
	}
	defer unix.Close(keep)
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(driver, commands)
		shut(driver, unix.SHUT_WR)
	})
	both.Go(func() {
		io.Copy(commands, driver)
		shut(commands, unix.SHUT_WR)
	})
	hungUp(keep)
	shut(driver, unix.SHUT_RD)
	both.Wait()
	return nil
}

// hungUp returns when both directions of the socket fd are shut.
func hungUp(fd int) {
	for {
		fds := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP comes without being asked for
		n, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n > 0 {
			return
		}
	}
}

// shut ends one direction of a socket; one that is closed needs none.
func shut(f *os.File, how int) {
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), how) })
	}
}

// duplicate returns another descriptor of what f is open on, which stays as it is.
func duplicate(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	var derr error
	err = raw.Control(func(from uintptr) { fd, derr = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, derr)
}
