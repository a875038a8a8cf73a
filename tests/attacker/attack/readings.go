package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// inherited lists the descriptors beyond the standard ones, and standard ones that lead to a file system.
func inherited() []string {
	var found []string
	for fd := range 1024 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		target, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		kind := st.Mode & unix.S_IFMT
		if fd > 2 && !strings.HasPrefix(target, "anon_inode:[event") || kind == unix.S_IFDIR || kind == unix.S_IFBLK {
			found = append(found, fmt.Sprintf("%d (%s)", fd, target))
		}
	}
	return found
}

// readings try to see files of the host.
func readings() []attempt {
	return []attempt{
		{"inherited-descriptors", "leak", func(attacker.Targets) verdict { return leaks(inherited()) }},
		{"inherited-environment", "leak", func(t attacker.Targets) verdict {
			for _, e := range os.Environ() {
				if name, value, _ := strings.Cut(e, "="); name != attacker.TargetsVariable && t.Token != "" && strings.Contains(value, t.Token) {
					return succeeded("%s is set", name)
				}
			}
			return deniedf("nothing of the runner's is in the environment")
		}},
		{"read-canary", "read", func(t attacker.Targets) verdict { return readToken(t, t.Canary) }},
		{"read-canary-dot-dot", "read", func(t attacker.Targets) verdict {
			return readToken(t, strings.Repeat("../", 30)+strings.TrimPrefix(t.Canary, "/"))
		}},
		{"read-shadow", "read", func(attacker.Targets) verdict { return readContaining("/etc/shadow", "root:") }},
		{"list-root-home", "read", func(attacker.Targets) verdict {
			entries, err := os.ReadDir("/root")
			if err == nil && len(entries) == 0 {
				err = errors.New("it is empty")
			}
			return judge(err, "/root can be listed")
		}},
		{"read-machine-id", "read", func(attacker.Targets) verdict { return readContaining("/etc/machine-id", "0") }},
		{"read-through-process-root", "read", func(t attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict { return readToken(t, "/proc/"+pid+"/root"+t.Canary) })
		}},
		{"read-through-process-cwd", "read", func(t attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict {
				return readToken(t, "/proc/"+pid+"/cwd/"+strings.Repeat("../", 30)+t.Canary)
			})
		}},
		{"read-through-process-descriptors", "read", func(t attacker.Targets) verdict { return eachProcess(foreignDescriptors) }},
		{"read-by-directory-descriptor", "read", readByDescriptor},
		{"open-by-handle", "read", openByHandle},
		{"read-kcore", "read", func(attacker.Targets) verdict { return readSome("/proc/kcore") }},
		{"read-kernel-addresses", "read", kernelAddresses},
		{"read-physical-addresses", "read", physicalAddresses},
		{"read-kernel-log", "read", func(attacker.Targets) verdict {
			n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 4096))
			return judge(err, fmt.Sprintf("%d bytes", n))
		}},
		{"watch-host-file", "read", func(t attacker.Targets) verdict {
			fd, err := unix.InotifyInit1(0)
			if err == nil {
				_, err = unix.InotifyAddWatch(fd, t.Canary, unix.IN_ALL_EVENTS)
			}
			return judge(err, "a file of the host is watched")
		}},
		{"watch-file-system", "read", func(attacker.Targets) verdict {
			fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT, 0)
			if err == nil {
				err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN, unix.AT_FDCWD, "/")
			}
			return judge(err, "all that is opened in the file system is seen")
		}},
	}
}

func readToken(t attacker.Targets, name string) verdict {
	if t.Token == "" || name == "" {
		return notApplicable("no target")
	}
	return readContaining(name, t.Token)
}

func readContaining(name, text string) verdict {
	data, err := os.ReadFile(name)
	if err != nil {
		return denied(err)
	}
	if !bytes.Contains(data, []byte(text)) {
		return deniedf("%s holds something else", name)
	}
	return succeeded("%s was read", name)
}

func readSome(name string) verdict {
	f, err := os.Open(name)
	if err != nil {
		return denied(err)
	}
	defer f.Close()
	n, err := f.Read(make([]byte, 64))
	if err == nil && n == 0 {
		err = errors.New("it is empty")
	}
	return judge(err, fmt.Sprintf("%d bytes of %s", n, name))
}

// eachProcess tries something with every visible process that is not this one nor above it in the job, until it succeeds.
func eachProcess(try func(pid string) verdict) verdict {
	last := deniedf("no other process is seen")
	for _, pid := range strangers() {
		if last = try(pid); last.outcome == attacker.Succeeded {
			last.detail = "process " + pid + ": " + last.detail
			return last
		}
	}
	return last
}

// strangers lists the visible processes that do not run this program.
func strangers() []string {
	own, _ := os.Readlink("/proc/self/exe")
	all, _ := filepath.Glob("/proc/[0-9]*")
	var found []string
	for _, dir := range all {
		pid := filepath.Base(dir)
		if exe, err := os.Readlink(dir + "/exe"); err == nil && exe == own || pid == strconv.Itoa(os.Getpid()) || pid == strconv.Itoa(os.Getppid()) {
			continue
		}
		found = append(found, pid)
	}
	return found
}

// foreignDescriptors opens what another process has open.
func foreignDescriptors(pid string) verdict {
	fds, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		return denied(err)
	}
	for _, fd := range fds {
		f, err := os.Open("/proc/" + pid + "/fd/" + fd.Name())
		if err != nil {
			continue
		}
		target, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
		f.Close()
		if target != "/dev/null" {
			return succeeded("%s was opened", target)
		}
	}
	return deniedf("none of %d descriptors can be opened", len(fds))
}

// readByDescriptor goes up from every directory that can be opened, and every descriptor there is.
func readByDescriptor(t attacker.Targets) verdict {
	if t.Canary == "" {
		return notApplicable("no target")
	}
	for _, dir := range []string{"/", ".", "/proc", "/dev", "/tmp", t.Scratch, t.Shared, filepath.Dir(t.Input)} {
		syscall.Open(dir, syscall.O_DIRECTORY|unix.O_PATH, 0)
	}
	for fd := range 64 {
		up := strings.Repeat("../", 40) + strings.TrimPrefix(t.Canary, "/")
		file, err := unix.Openat(fd, up, unix.O_RDONLY, 0)
		if err != nil {
			continue
		}
		data := make([]byte, 256)
		n, _ := unix.Read(file, data)
		unix.Close(file)
		if n > 0 && bytes.Contains(data[:n], []byte(t.Token)) {
			return succeeded("by descriptor %d", fd)
		}
	}
	return deniedf("no descriptor leads there")
}

// openByHandle opens a file by its number in the file system, which ignores all directories above it.
func openByHandle(t attacker.Targets) verdict {
	last := deniedf("no file")
	for _, name := range []string{t.Input, t.Canary, t.Scratch, "/", "/dev/shm", "/tmp"} {
		if name == "" {
			continue
		}
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, name, 0)
		if err != nil {
			last = denied(fmt.Errorf("get a handle: %w", err))
			continue
		}
		dir, err := unix.Open(filepath.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if name == "/dev/shm" || name == "/tmp" || name == t.Scratch {
			dir, err = unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
		if err != nil {
			last = denied(err)
			continue
		}
		_, err = unix.OpenByHandleAt(dir, handle, unix.O_RDONLY)
		if last = judge(err, name+" was opened by its handle"); err == nil {
			break
		}
	}
	return last
}

func kernelAddresses(attacker.Targets) verdict {
	data, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return denied(err)
	}
	for line := range strings.Lines(string(data)) {
		address, _, _ := strings.Cut(line, " ")
		if strings.Trim(address, "0") != "" {
			return succeeded("%s", strings.TrimSpace(line))
		}
	}
	return deniedf("all addresses are zero")
}

// physicalAddresses reads where its own memory lies (Documentation/admin-guide/mm/pagemap.rst).
func physicalAddresses(attacker.Targets) verdict {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return denied(err)
	}
	defer f.Close()
	page := make([]byte, 3*os.Getpagesize())
	for i := range page {
		page[i] = 1
	}
	entry := make([]byte, 8)
	at := int64(addressOf(page)) / int64(os.Getpagesize())
	if _, err := f.ReadAt(entry, (at+1)*8); err != nil {
		return denied(err)
	}
	frame := uint64(0)
	for i := range 7 { // bits 0 to 54
		frame |= uint64(entry[i]) << (8 * i)
	}
	if frame &= 1<<55 - 1; frame == 0 {
		return deniedf("page frames are hidden")
	}
	return succeeded("page frame %#x", frame)
}
