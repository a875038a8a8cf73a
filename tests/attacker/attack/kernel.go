package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// kernelAttempts open interfaces of the kernel that a job has no use for.
func kernelAttempts() []attempt {
	const nowhere = "/no/such/file\x00"
	path := uintptr(unsafe.Pointer(unsafe.StringData(nowhere)))
	simple := func(name, class string, nr uintptr, args ...uintptr) attempt {
		return attempt{name, class, func(attacker.Targets) verdict { return judgeCall(nr, args...) }}
	}
	deeper := func(name, class string, nr uintptr, args ...uintptr) attempt {
		return attempt{name, class, func(attacker.Targets) verdict { return reached(nr, args...) }}
	}
	return []attempt{
		{"bpf-map", "kernel", func(attacker.Targets) verdict {
			attr := struct{ kind, key, value, entries, flags uint32 }{1, 4, 4, 1, 0} // a hash table
			return judgeCall(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		}},
		{"bpf-program", "kernel", bpfProgram},
		{"io-uring", "kernel", func(attacker.Targets) verdict {
			var params [120]byte
			return judgeCall(unix.SYS_IO_URING_SETUP, 1, addressOf(params[:]))
		}},
		simple("userfaultfd", "kernel", unix.SYS_USERFAULTFD, 1), // UFFD_USER_MODE_ONLY, which needs no privilege
		{"perf-events", "kernel", func(attacker.Targets) verdict {
			attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: unix.PERF_COUNT_SW_CPU_CLOCK}
			fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
			return judge(err, fmt.Sprintf("descriptor %d", fd))
		}},
		{"perf-events-of-all", "kernel", func(attacker.Targets) verdict {
			attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: unix.PERF_COUNT_SW_CPU_CLOCK}
			fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, 0)
			return judge(err, fmt.Sprintf("descriptor %d", fd))
		}},
		{"add-key", "kernel", func(attacker.Targets) verdict {
			id, err := unix.AddKey("user", "attack", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
			return judge(err, fmt.Sprintf("key %d", id))
		}},
		{"new-session-keyring", "kernel", func(attacker.Targets) verdict {
			id, err := unix.KeyctlJoinSessionKeyring("attack")
			return judge(err, fmt.Sprintf("keyring %d", id))
		}},
		deeper("load-module", "kernel", unix.SYS_INIT_MODULE, path, 4, path),
		deeper("load-module-file", "kernel", unix.SYS_FINIT_MODULE, 1, path, 0),
		deeper("unload-module", "kernel", unix.SYS_DELETE_MODULE, path, unix.O_NONBLOCK),
		deeper("replace-kernel", "kernel", unix.SYS_KEXEC_LOAD, 0, 0, 0, 0),
		simple("reboot", "kernel", unix.SYS_REBOOT, unix.LINUX_REBOOT_MAGIC1, unix.LINUX_REBOOT_MAGIC2, unix.LINUX_REBOOT_CMD_CAD_OFF, 0),
		deeper("swap-on", "kernel", unix.SYS_SWAPON, path, 0),
		deeper("swap-off", "kernel", unix.SYS_SWAPOFF, path),
		deeper("process-accounting", "kernel", unix.SYS_ACCT, path),
		simple("sync-quotas", "kernel", unix.SYS_QUOTACTL, 0x800001<<8, 0, 0, 0), // Q_SYNC of all file systems
		simple("io-privilege-level", "kernel", sysIOPL, 3),
		simple("io-ports", "kernel", sysIOPerm, 0x80, 1, 1),
		{"map-page-zero", "kernel", func(attacker.Targets) verdict {
			return judgeCall(unix.SYS_MMAP, 0, uintptr(os.Getpagesize()), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED, ^uintptr(0), 0)
		}},
		{"no-address-randomisation", "kernel", func(attacker.Targets) verdict {
			if _, err := call(unix.SYS_PERSONALITY, 0x0040000); err != nil { // ADDR_NO_RANDOMIZE
				return denied(err)
			}
			now, err := call(unix.SYS_PERSONALITY, 0xffffffff)
			return judge(err, fmt.Sprintf("personality %#x", now))
		}},
		{"32-bit-calls", "kernel", func(attacker.Targets) verdict { return call32() }},
		{"x32-calls", "kernel", func(attacker.Targets) verdict { return callX32() }},
		simple("hang-up-terminals", "kernel", unix.SYS_VHANGUP),
		{"inject-terminal-input", "kernel", injectInput},
	}
}

// bpfProgram loads one that returns zero.
func bpfProgram(attacker.Targets) verdict {
	code := []uint64{0x00000000000000b7, 0x0000000000000095} // r0 = 0; exit
	license := []byte("GPL\x00")
	attr := struct {
		kind, count   uint32
		code, license uint64
		level, size   uint32
		log           uint64
		version       uint32
		flags         uint32
	}{kind: 1, count: uint32(len(code)), code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(addressOf(license))}
	const load = 5 // BPF_PROG_LOAD
	return judgeCall(unix.SYS_BPF, load, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
}

// injectInput types a character into every terminal that it has.
func injectInput(attacker.Targets) verdict {
	fds := []int{0, 1, 2}
	for _, name := range []string{"/dev/tty", "/dev/console", "/dev/tty0", "/dev/ttyS0"} {
		if fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY, 0); err == nil {
			fds = append(fds, fd)
		}
	}
	if fd, err := ownTerminal(); err == nil { // where the call is known to do no harm
		fds = append(fds, fd)
	}
	char := []byte("\n")
	last := deniedf("no terminal")
	for _, fd := range fds {
		if last = judgeCall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, addressOf(char)); last.outcome == attacker.Succeeded {
			return last
		}
	}
	return last
}

// ownTerminal makes a pseudo terminal.
func ownTerminal() (int, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	if err != nil {
		return -1, err
	}
	return unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY, 0)
}
