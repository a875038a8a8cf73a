package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// mountings try to change what is mounted.
func mountings() []attempt {
	return []attempt{
		{"mount-tmpfs", "mount", func(t attacker.Targets) verdict {
			return mounted(t, func(dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") })
		}},
		{"mount-proc", "mount", func(t attacker.Targets) verdict {
			return mounted(t, func(dir string) error { return unix.Mount("proc", dir, "proc", 0, "") })
		}},
		{"mount-cgroup", "mount", func(t attacker.Targets) verdict {
			return mounted(t, func(dir string) error { return unix.Mount("cgroup2", dir, "cgroup2", 0, "") })
		}},
		{"mount-bind-root", "mount", func(t attacker.Targets) verdict {
			return mounted(t, func(dir string) error { return unix.Mount("/", dir, "", unix.MS_BIND|unix.MS_REC, "") })
		}},
		{"mount-propagation", "mount", func(attacker.Targets) verdict {
			return judge(unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""), "mounts are shared with others")
		}},
		{"fsopen", "mount", func(t attacker.Targets) verdict {
			return mounted(t, func(dir string) error {
				fs, err := unix.Fsopen("tmpfs", 0)
				if err != nil {
					return fmt.Errorf("fsopen: %w", err)
				}
				if err := unix.FsconfigCreate(fs); err != nil {
					return fmt.Errorf("fsconfig: %w", err)
				}
				m, err := unix.Fsmount(fs, 0, 0)
				if err != nil {
					return fmt.Errorf("fsmount: %w", err)
				}
				return unix.MoveMount(m, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
			})
		}},
		{"open-tree", "mount", func(attacker.Targets) verdict {
			_, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
			return judge(err, "the mounts were copied")
		}},
		{"mount-setattr", "mount", func(attacker.Targets) verdict {
			err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
			return judge(err, "the root was made writable")
		}},
		{"umount-proc", "mount", func(attacker.Targets) verdict { return judge(unix.Unmount("/proc", unix.MNT_DETACH), "unmounted") }},
		{"pivot-root", "mount", func(t attacker.Targets) verdict {
			dir := filepath.Join(t.Scratch, "pivot")
			os.MkdirAll(filepath.Join(dir, "old"), 0o755)
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
			unix.Mount(dir, dir, "", unix.MS_BIND, "")
			os.MkdirAll(filepath.Join(dir, "old"), 0o755)
			return judge(unix.PivotRoot(dir, filepath.Join(dir, "old")), "another root")
		}},
		{"chroot", "mount", func(t attacker.Targets) verdict {
			return judge(unix.Chroot(t.Scratch), "another root")
		}},
	}
}

// mounted judges a mount by the file system that is seen afterwards.
func mounted(t attacker.Targets, mount func(dir string) error) verdict {
	dir := filepath.Join(t.Scratch, "mount-"+strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return notApplicable("%v", err)
	}
	var before, after unix.Stat_t
	unix.Stat(dir, &before)
	if err := mount(dir); err != nil {
		return denied(err)
	}
	unix.Stat(dir, &after)
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if before.Dev == after.Dev && before.Ino == after.Ino {
		return deniedf("nothing is mounted there")
	}
	return succeeded("another file system is at %s", dir)
}

// namespaces try to enter or make namespaces.
func namespaces() []attempt {
	list := []attempt{
		{"join-namespaces", "namespace", func(attacker.Targets) verdict { return eachProcess(joinNamespaces) }},
		{"join-namespaces-by-process", "namespace", func(attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict {
				n, _ := strconv.Atoi(pid)
				if sameNamespaces(pid) {
					return deniedf("its namespaces are the same")
				}
				fd, err := unix.PidfdOpen(n, 0)
				if err == nil {
					err = onThread(func() error { return unix.Setns(fd, unix.CLONE_NEWNET|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC) })
				}
				return judge(err, "its namespaces were joined")
			})
		}},
		{"clone-user-namespace", "namespace", func(attacker.Targets) verdict {
			cmd := exec.Command("/proc/self/exe", "whoami")
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			}
			out, err := cmd.Output()
			return judge(err, strings.TrimSpace(string(out)))
		}},
		{"clone3-user-namespace", "namespace", clone3},
	}
	for _, n := range []struct {
		name string
		flag int
	}{
		{"user", unix.CLONE_NEWUSER},
		{"mount", unix.CLONE_NEWNS},
		{"network", unix.CLONE_NEWNET},
		{"process", unix.CLONE_NEWPID},
		{"ipc", unix.CLONE_NEWIPC},
		{"host-name", unix.CLONE_NEWUTS},
		{"cgroup", unix.CLONE_NEWCGROUP},
		{"time", unix.CLONE_NEWTIME},
	} {
		list = append(list, attempt{"unshare-" + n.name + "-namespace", "namespace", func(attacker.Targets) verdict {
			if n.flag == unix.CLONE_NEWUSER { // only a process with one thread may
				return unshareUser()
			}
			return judge(onThread(func() error { return unix.Unshare(n.flag) }), "a new one")
		}})
	}
	return list
}

// onThread runs act on a thread that ends with it.
func onThread(act func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- act()
	}()
	return <-done
}

// unshareUser does it in a child made by vfork, which has one thread.
func unshareUser() verdict {
	cmd := exec.Command("/proc/self/exe", "whoami")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWUSER}
	out, err := cmd.Output()
	return judge(err, strings.TrimSpace(string(out)))
}

// clone3 asks for a namespace by structure, which seccomp filters cannot look into.
func clone3(attacker.Targets) verdict {
	args := struct{ flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64 }{
		flags: unix.CLONE_NEWUSER, exitSignal: uint64(syscall.SIGCHLD),
	}
	// The child gets a copy of the address space and must do nothing but end: the raw call returns twice.
	pid, errno := rawClone3(unsafe.Pointer(&args), unsafe.Sizeof(args))
	if errno != 0 {
		return denied(errno)
	}
	var status syscall.WaitStatus
	_, err := syscall.Wait4(int(pid), &status, 0, nil)
	return judge(err, "a process in a new user namespace")
}

var namespaceKinds = [...]string{"mnt", "net", "pid", "ipc", "uts", "user", "cgroup"}

func sameNamespaces(pid string) bool {
	for _, kind := range namespaceKinds {
		own, err1 := os.Readlink("/proc/self/ns/" + kind)
		other, err2 := os.Readlink("/proc/" + pid + "/ns/" + kind)
		if err1 == nil && err2 == nil && own != other {
			return false
		}
	}
	return true
}

// joinNamespaces enters any namespace of a process that is not the attacker's own already.
func joinNamespaces(pid string) verdict {
	last := errors.New("its namespaces are the same")
	for _, kind := range namespaceKinds {
		own, _ := os.Readlink("/proc/self/ns/" + kind)
		name := "/proc/" + pid + "/ns/" + kind
		other, err := os.Readlink(name)
		if err != nil {
			last = err
			continue
		}
		if other == own {
			continue
		}
		fd, err := unix.Open(name, unix.O_RDONLY, 0)
		if err == nil {
			err = onThread(func() error {
				unix.Unshare(unix.CLONE_FS) // threads that share their root cannot change mount namespaces
				return unix.Setns(fd, 0)
			})
		}
		if err == nil {
			return succeeded("%s", name)
		}
		last = err
	}
	return denied(last)
}
