package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// devices try to open devices of the machine.
func devices() []attempt {
	open := func(name string, paths ...string) attempt {
		return attempt{name, "device", func(attacker.Targets) verdict { return openAny(paths) }}
	}
	return []attempt{
		open("open-memory", "/dev/mem", "/dev/kmem", "/dev/port"),
		open("open-kernel-log", "/dev/kmsg"),
		open("open-console", "/dev/console", "/dev/tty0", "/dev/tty1", "/dev/ttyS0", "/dev/ttyS3"),
		open("open-fuse", "/dev/fuse"),
		open("open-tunnel", "/dev/net/tun"),
		open("open-loop", "/dev/loop-control", "/dev/loop0"),
		open("open-hypervisor", "/dev/kvm", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/vsock"),
		open("open-input", "/dev/uinput", "/dev/input/event0", "/dev/hwrng", "/dev/rtc0", "/dev/watchdog", "/dev/autofs"),
		{"open-disks", "device", func(attacker.Targets) verdict { return openAny(nodes(fs.ModeDevice)) }},
		{"open-any-device", "device", openOthers},
		{"make-device", "device", makeDevices},
	}
}

// openAny opens the first of the paths that exists.
func openAny(paths []string) verdict {
	last := error(errors.New("there is none"))
	for _, p := range paths {
		fd, err := unix.Open(p, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
			fd, err = unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		}
		if err == nil {
			unix.Close(fd)
			return succeeded("%s was opened", p)
		}
		last = err
	}
	return denied(last)
}

// nodes lists the block devices, or with fs.ModeCharDevice the character devices, that are seen below /dev.
func nodes(kind fs.FileMode) []string {
	var found []string
	filepath.WalkDir("/dev", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&(fs.ModeDevice|fs.ModeCharDevice) == kind {
			found = append(found, p)
		}
		return nil
	})
	return found
}

// openOthers opens character devices beyond those that every program may expect.
func openOthers(attacker.Targets) verdict {
	var others []string
	for _, p := range nodes(fs.ModeDevice | fs.ModeCharDevice) {
		switch strings.TrimPrefix(p, "/dev/") {
		case "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx":
		default:
			others = append(others, p)
		}
	}
	return openAny(others)
}

// makeDevices makes nodes of memory and of disks wherever that might work.
func makeDevices(t attacker.Targets) verdict {
	last := error(errors.New("no directory"))
	for _, dir := range []string{t.Scratch, t.Shared, "/dev", "/dev/shm", "/tmp"} {
		if dir == "" {
			continue
		}
		name := filepath.Join(dir, "attack-disk")
		if last = unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))); last == nil {
			os.Remove(name)
			return succeeded("%s was made", name)
		}
		if errors.Is(last, syscall.EPERM) {
			return denied(last)
		}
	}
	return denied(last)
}
