package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// privileges tells the effective user and the capabilities of this process.
func privileges() string {
	return fmt.Sprintf("euid=%d egid=%d CapEff=%s", os.Geteuid(), os.Getegid(), statusLine("CapEff"))
}

// statusLine returns a value of /proc/self/status.
func statusLine(name string) string {
	data, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// capabilities tells of any that this process has, in one of the five sets.
func capabilities() string {
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if value := statusLine(set); strings.Trim(value, "0") != "" {
			return set + ": " + value
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err == nil && data != [2]unix.CapUserData{} {
		return fmt.Sprintf("%+v", data)
	}
	for c := range uintptr(64) {
		if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == nil && has == 1 {
			return fmt.Sprintf("capability %d can be regained", c)
		}
	}
	return ""
}

// allCapabilities is the attribute of a file that has them all (struct vfs_cap_data, revision 2, effective).
func allCapabilities() []byte {
	b := make([]byte, 20)
	binary.LittleEndian.PutUint32(b, 0x02000001)
	for _, at := range []int{4, 12} { // permitted; inheritable stays zero
		binary.LittleEndian.PutUint32(b[at:], 1<<21) // CAP_SYS_ADMIN, and in the upper half nothing that exists
	}
	binary.LittleEndian.PutUint32(b[12:], 0)
	return b
}

// privilegeAttempts try to gain privileges.
func privilegeAttempts() []attempt {
	return []attempt{
		{"have-capabilities", "privilege", func(attacker.Targets) verdict {
			if has := capabilities(); has != "" {
				return succeeded("%s", has)
			}
			return deniedf("all five sets are empty")
		}},
		{"raise-capabilities", "privilege", func(attacker.Targets) verdict {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			data[0].Effective, data[0].Permitted = 1<<unix.CAP_SYS_ADMIN, 1<<unix.CAP_SYS_ADMIN
			return judge(unix.Capset(&header, &data[0]), "CAP_SYS_ADMIN")
		}},
		{"raise-ambient-capabilities", "privilege", func(attacker.Targets) verdict {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err := unix.Capget(&header, &data[0]); err != nil {
				return denied(err)
			}
			data[0].Inheritable = data[0].Permitted
			unix.Capset(&header, &data[0])
			return judge(unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN, 0, 0), "CAP_NET_ADMIN")
		}},
		{"new-privileges", "privilege", func(attacker.Targets) verdict {
			value, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
			if err == nil && value == 1 {
				err = errors.New("no_new_privs is set")
				if unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) == nil {
					err = nil
				}
			}
			return judge(err, "programs may give privileges")
		}},
		{"keep-capabilities", "privilege", func(attacker.Targets) verdict {
			const noRoot = 1 // SECBIT_NOROOT
			return judge(unix.Prctl(unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0), "secure bits were set")
		}},
		{"no-system-call-filter", "privilege", func(attacker.Targets) verdict {
			mode := statusLine("Seccomp")
			if mode == "" { // there is no /proc
				n, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
				if err != nil {
					return denied(err)
				}
				mode = strconv.Itoa(n)
			}
			if mode != "2" {
				return succeeded("Seccomp: %s", mode)
			}
			if unix.Prctl(unix.PR_SET_SECCOMP, 0, 0, 0, 0) == nil {
				return succeeded("the filter was taken off")
			}
			return deniedf("there is a filter, and it stays")
		}},
		{"become-root", "privilege", func(attacker.Targets) verdict {
			return judge(onThread(func() error { return errnoOf(call(unix.SYS_SETRESUID, 0, 0, 0)) }), "uid 0")
		}},
		{"become-another-user", "privilege", func(attacker.Targets) verdict {
			for _, id := range []uintptr{1, 65534, 1 << 31, 4294967294} {
				if onThread(func() error { return errnoOf(call(unix.SYS_SETRESUID, id, id, id)) }) == nil && uintptr(os.Getuid()) != id {
					return succeeded("uid %d", id)
				}
			}
			return deniedf("no other uid")
		}},
		{"become-another-group", "privilege", func(attacker.Targets) verdict {
			return judge(onThread(func() error { return errnoOf(call(unix.SYS_SETRESGID, 0, 0, 0)) }), "gid 0")
		}},
		{"set-groups", "privilege", func(attacker.Targets) verdict {
			groups := []uint32{0}
			return judge(onThread(func() error {
				return errnoOf(call(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&groups[0]))))
			}), "group 0")
		}},
		{"set-user-id-program", "privilege", func(t attacker.Targets) verdict {
			return gains(t.SetUID, fmt.Sprintf("euid=%d ", os.Geteuid()))
		}},
		{"capable-program", "privilege", func(t attacker.Targets) verdict { return gains(t.FileCaps, "CapEff="+statusLine("CapEff")) }},
		{"make-capable-program", "privilege", func(t attacker.Targets) verdict {
			name := filepath.Join(t.Scratch, "capable")
			if err := os.WriteFile(name, nil, 0o755); err != nil {
				return notApplicable("%v", err)
			}
			defer os.Remove(name)
			return judge(unix.Setxattr(name, "security.capability", allCapabilities(), 0), "a file with capabilities")
		}},
		{"real-time-scheduling", "privilege", func(attacker.Targets) verdict {
			priority := int32(1)
			const fifo = 1
			return judge(onThread(func() error {
				return errnoOf(call(unix.SYS_SCHED_SETSCHEDULER, 0, fifo, uintptr(unsafe.Pointer(&priority))))
			}), "SCHED_FIFO")
		}},
		{"raise-priority", "privilege", func(attacker.Targets) verdict {
			return judge(onThread(func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -10) }), "nice -10")
		}},
		{"raise-limits", "privilege", raiseLimits},
		{"lock-memory", "privilege", func(attacker.Targets) verdict {
			size := 256 << 20
			memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
			if err != nil {
				return denied(err)
			}
			const onFault = 1 // MLOCK_ONFAULT: nothing is taken
			_, err = call(unix.SYS_MLOCK2, addressOf(memory), uintptr(size), onFault)
			return judge(err, "256 MiB may be locked")
		}},
	}
}

func errnoOf(_ uintptr, err error) error { return err }

// gains runs a privileged program, which is this one, and sees whether it says anything else than has.
func gains(program, has string) verdict {
	if program == "" {
		return notApplicable("no target")
	}
	out, err := exec.Command(program, "whoami").Output()
	if err != nil {
		return denied(err)
	}
	if strings.Contains(string(out), has) {
		return deniedf("it has %s", strings.TrimSpace(string(out)))
	}
	return succeeded("it has %s", strings.TrimSpace(string(out)))
}

// raiseLimits raises a hard limit that is not infinite already.
func raiseLimits(attacker.Targets) verdict {
	last := errors.New("all limits are infinite already")
	for _, which := range []int{unix.RLIMIT_CORE, unix.RLIMIT_NOFILE, unix.RLIMIT_MEMLOCK, unix.RLIMIT_MSGQUEUE, unix.RLIMIT_NICE, unix.RLIMIT_RTPRIO} {
		var now unix.Rlimit
		if err := unix.Getrlimit(which, &now); err != nil || now.Max == ^uint64(0) {
			continue
		}
		more := unix.Rlimit{Cur: now.Cur, Max: now.Max + 1}
		if last = unix.Prlimit(0, which, &more, nil); last == nil {
			return succeeded("limit %d raised from %d", which, now.Max)
		}
	}
	return denied(last)
}
