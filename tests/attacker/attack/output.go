package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// race makes an output, and leaves a process behind that goes on swapping it, and a file in it, for links to the canary, whatever
// signal it gets.
func race(path string, t attacker.Targets) int {
	if os.Getenv(racerVariable) == "" {
		if err := makeTree(path); err != nil {
			fmt.Fprintf(os.Stderr, "attack: %v\n", err)
			return 1
		}
		cmd := exec.Command("/proc/self/exe", "race", path)
		cmd.Env = append(os.Environ(), racerVariable+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Fprintf(os.Stderr, "attack: %v\n", err)
			return 1
		}
		return 0
	}
	for s := range syscall.Signal(65) {
		ignore(s)
	}
	up := strings.Repeat("../", 40)
	links := []string{t.Canary, up + t.Canary[1:], "/proc/1/root" + t.Canary}
	for i := 0; ; i++ {
		target := links[i%len(links)]
		swap(path, filepath.Dir(target))
		swap(filepath.Join(path, "file"), target)
		swap(filepath.Join(path, "dir"), filepath.Dir(target))
	}
}

// racerVariable marks the process that is left behind.
const racerVariable = "ARCH_ATTACK_RACER"

func makeTree(path string) error {
	if err := os.MkdirAll(filepath.Join(path, "dir"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"file", "dir/file"} {
		if err := os.WriteFile(filepath.Join(path, name), []byte("honest"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// swap exchanges path with a link to target, and back.
func swap(path, target string) {
	other := path + ".link"
	os.Symlink(target, other)
	for range 2 {
		unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
	}
}

// output makes one that a collector must not trust.
func output(kind, path string, t attacker.Targets) int {
	err := makeOutput(kind, path, t)
	if err != nil {
		fmt.Fprintf(os.Stderr, "attack: %v\n", err)
		return 1
	}
	return 0
}

func makeOutput(kind, path string, t attacker.Targets) error {
	inside := func(make func(name string) error) error {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		return make(filepath.Join(path, "entry"))
	}
	switch kind {
	case "link":
		return os.Symlink(t.Canary, path)
	case "link-up":
		return os.Symlink(strings.Repeat("../", 40)+t.Canary[1:], path)
	case "link-in-parent": // path is below a directory that is a link
		return os.Symlink(filepath.Dir(t.Canary), filepath.Dir(path))
	case "link-inside":
		return inside(func(name string) error { return os.Symlink(t.Canary, name) })
	case "magic-link":
		return os.Symlink("/proc/1/root"+t.Canary, path)
	case "fifo":
		return inside(func(name string) error { return unix.Mkfifo(name, 0o666) })
	case "socket":
		return inside(func(name string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			return unix.Bind(fd, &unix.SockaddrUnix{Name: name})
		})
	case "hole": // takes no space, and is 1 GiB to read
		return inside(func(name string) error {
			f, err := os.Create(name)
			if err != nil {
				return err
			}
			defer f.Close()
			return f.Truncate(1 << 30)
		})
	case "deep":
		return inside(makeDeep)
	case "set-id":
		return inside(func(name string) error {
			if err := os.WriteFile(name, []byte("#!"), 0o755); err != nil {
				return err
			}
			unix.Chmod(name, 0o6755) // refused or not: what is collected must not have it
			return nil
		})
	case "unreadable":
		return inside(func(name string) error { return os.WriteFile(name, []byte("x"), 0) })
	case "hard-link-to-input":
		return inside(func(name string) error { return os.Link(t.Input, name) })
	}
	return fmt.Errorf("no kind of output %q", kind)
}

// makeDeep nests directories deeper than paths may be long.
func makeDeep(name string) error {
	dir, err := unix.Open(filepath.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	for range 5000 {
		if err := unix.Mkdirat(dir, "d", 0o755); err != nil {
			return err
		}
		next, err := unix.Openat(dir, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		unix.Close(dir)
		dir = next
	}
	return nil
}
