package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// writings try to change files that are not the job's.
func writings() []attempt {
	return []attempt{
		{"write-canary-directory", "write", func(t attacker.Targets) verdict {
			if t.DropOff == "" {
				return notApplicable("no target")
			}
			name := filepath.Join(t.DropOff, "dropped")
			err := os.WriteFile(name, nil, 0o644)
			os.Remove(name)
			return judge(err, "a file of the host was made")
		}},
		{"write-root", "write", writeSystem},
		{"write-input", "write", changeInput},
		{"write-input-through-descriptor", "write", func(t attacker.Targets) verdict {
			f, err := os.Open(t.Input)
			if err != nil {
				return notApplicable("%v", err)
			}
			return openForWriting("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
		}},
		{"write-input-through-link", "write", func(t attacker.Targets) verdict {
			for _, dir := range []string{t.Scratch, t.Shared, filepath.Dir(t.Input)} {
				name := filepath.Join(dir, "linked-input")
				if err := os.Link(t.Input, name); err == nil {
					defer os.Remove(name)
					return openForWriting(name)
				}
			}
			return deniedf("no hard link can be made")
		}},
		{"remount-input-writable", "write", func(t attacker.Targets) verdict {
			err := unix.Mount("", t.Input, "", unix.MS_REMOUNT|unix.MS_BIND, "")
			if err != nil { // no mount point of its own: that of the root
				err = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "")
			}
			return judge(err, "remounted")
		}},
		{"overwrite-runner", "write", func(attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict { return openForWriting("/proc/" + pid + "/exe") })
		}},
		{"write-other-memory", "write", func(t attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict { return openForWriting("/proc/" + pid + "/mem") })
		}},
		{"leave-set-id-file", "write", func(t attacker.Targets) verdict {
			if t.Shared == "" {
				return notApplicable("no writable directory of the host was given")
			}
			return makeSetID(filepath.Join(t.Shared, "set-id"))
		}},
		{"leave-capable-file", "write", func(t attacker.Targets) verdict {
			if t.Shared == "" {
				return notApplicable("no writable directory of the host was given")
			}
			name := filepath.Join(t.Shared, "capable")
			if err := os.WriteFile(name, nil, 0o755); err != nil {
				return denied(err)
			}
			defer os.Remove(name)
			return judge(unix.Setxattr(name, "security.capability", allCapabilities(), 0), "a file with capabilities was left on the host")
		}},
		{"leave-device", "write", func(t attacker.Targets) verdict {
			dir := t.Shared
			if dir == "" {
				dir = t.Scratch
			}
			name := filepath.Join(dir, "memory")
			err := unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 1)))
			os.Remove(name)
			return judge(err, "a device node was made")
		}},
		{"overwrite-own-program", "write", func(attacker.Targets) verdict {
			self, err := os.Executable()
			if err != nil { // there is no /proc
				self = os.Args[0]
			}
			if err := os.Rename(self, self+".old"); err != nil {
				return denied(err)
			}
			return judge(os.Rename(self+".old", self), "the program was renamed")
		}},
	}
}

func openForWriting(name string) verdict {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if errors.Is(err, syscall.ETXTBSY) { // only because it is being executed
		return succeeded("%s may be written to", name)
	}
	if err == nil {
		f.Close()
	}
	return judge(err, name+" was opened for writing")
}

// writeSystem makes files where a job has no place for them.
func writeSystem(attacker.Targets) verdict {
	last := deniedf("no directory")
	for _, dir := range []string{"/", "/etc", "/usr", "/bin", "/dev", "/proc", "/sys", "/run", "/root", "/home", "/var/tmp", "/inputs"} {
		name := filepath.Join(dir, "attack-was-here")
		err := os.WriteFile(name, nil, 0o644)
		if err == nil {
			os.Remove(name)
			return succeeded("made %s", name)
		}
		last = denied(err)
	}
	return last
}

// changeInput changes a given file in every way there is.
func changeInput(t attacker.Targets) verdict {
	if t.Input == "" {
		return notApplicable("no target")
	}
	ways := []struct {
		name string
		act  func() error
	}{
		{"open", func() error {
			f, err := os.OpenFile(t.Input, os.O_RDWR, 0)
			if err == nil {
				f.Close()
			}
			return err
		}},
		{"chmod", func() error { return os.Chmod(t.Input, 0o644) }},
		{"chown", func() error { return os.Chown(t.Input, os.Getuid(), os.Getgid()) }},
		{"utimes", func() error { return unix.Utimes(t.Input, make([]unix.Timeval, 2)) }},
		{"setxattr", func() error { return unix.Setxattr(t.Input, "user.attack", []byte("x"), 0) }},
		{"rename", func() error {
			if err := os.Rename(t.Input, t.Input+".old"); err != nil {
				return err
			}
			return os.Rename(t.Input+".old", t.Input)
		}},
	}
	var last error
	for _, way := range ways {
		if last = way.act(); last == nil {
			return succeeded("by %s", way.name)
		}
	}
	return denied(last)
}

func makeSetID(name string) verdict {
	if err := os.WriteFile(name, nil, 0o755); err != nil {
		return denied(err)
	}
	defer os.Remove(name)
	err := unix.Chmod(name, 0o6755)
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return denied(err)
	}
	if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		return succeeded("mode %o", st.Mode)
	}
	if err == nil {
		err = fmt.Errorf("mode %o", st.Mode)
	}
	return denied(err)
}
