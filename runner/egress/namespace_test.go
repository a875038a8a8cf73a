package egress

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// lockToNamespace moves the calling goroutine's thread into the network namespace of pid, for good.
func lockToNamespace(pid int) error {
	runtime.LockOSThread()
	file, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
}
