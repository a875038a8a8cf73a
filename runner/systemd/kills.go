package systemd

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// kills watches a memory group of version 1, for which systemd does not: the kernel tells by an event when the memory is used
// up (Documentation/admin-guide/cgroup-v1/memory.rst, section 9). A nil *kills watches nothing.
type kills struct {
	event *os.File
	found chan bool // one value: whether the kernel has killed
}

// removalTime is how long after its files a group of version 1 may tell of its removal, which is an event as well.
const removalTime = 500 * time.Millisecond

// watchKills starts to watch the group dir, and calls killed, from a goroutine, once the kernel kills a process of it.
func watchKills(dir string, killed func()) *kills {
	if dir == "" {
		return nil
	}
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return nil
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil
	}
	k := &kills{event: os.NewFile(uintptr(fd), "out of memory"), found: make(chan bool, 1)}
	line := fmt.Sprintf("%d %d", fd, control.Fd())
	if err := os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(line), 0); err != nil {
		k.event.Close()
		return nil
	}
	go func() {
		yes := k.follow(dir)
		if yes {
			killed()
		}
		k.found <- yes
	}()
	return k
}

// follow waits for an event that is not the removal of the group: the kernel is about to kill then.
func (k *kills) follow(dir string) bool {
	n, err := k.read()
	if err != nil {
		return false
	}
	if _, err := os.Stat(filepath.Join(dir, "memory.oom_control")); err == nil || n > 1 {
		return true
	}
	k.event.SetReadDeadline(time.Now().Add(removalTime)) // was that the removal, or does that come now?
	_, err = k.read()
	return err == nil
}

// read waits for events and returns how many there were.
func (k *kills) read() (uint64, error) {
	var count [8]byte
	_, err := k.event.Read(count[:])
	return binary.NativeEndian.Uint64(count[:]), err
}

// after reports, for a unit that was killed and is gone, whether it was for memory.
func (k *kills) after() bool {
	if k == nil {
		return false
	}
	k.event.SetReadDeadline(time.Now().Add(removalTime))
	return <-k.found
}

// end stops watching.
func (k *kills) end() {
	if k != nil {
		k.event.Close()
	}
}
