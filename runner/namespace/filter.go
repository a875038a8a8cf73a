package namespace

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// The system call filter refuses what no build and no job needs and what has been the way out of confinements before.
// It lets the rest through, since a list of all that any compiler may call would never be complete; the namespaces and
// the missing capabilities bound what the rest can reach.
//
// denied calls fail with EPERM. Names that an architecture does not have are left out there.
var denied = []string{
	// Mounts: the file system must stay what the Spec says.
	"mount", "umount", "umount2", "pivot_root", "chroot", "open_tree", "open_tree_attr", "move_mount", "fsopen",
	"fsconfig", "fsmount", "fspick", "mount_setattr", "listmount", "statmount", "swapon", "swapoff", "quotactl", "quotactl_fd",
	// Namespaces: each opens kernel code that otherwise only root reaches.
	"unshare", "setns",
	// Other processes' memory and descriptors.
	"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
	// Files by handle escape bind mounts.
	"open_by_handle_at", "name_to_handle_at",
	// Large kernel attack surfaces.
	"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
	"fanotify_init", "lookup_dcookie", "vmsplice", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
	// Keyrings are shared across namespaces.
	"add_key", "request_key", "keyctl",
	// The kernel and the machine.
	"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module",
	"get_kernel_syms", "query_module", "reboot", "syslog", "acct", "nfsservctl", "_sysctl", "uselib", "vhangup",
	"iopl", "ioperm", "modify_ldt", "vm86", "vm86old", "migrate_pages", "move_pages", "mbind", "set_mempolicy",
	"set_mempolicy_home_node", "adjtimex", "clock_adjtime", "clock_settime", "settimeofday", "stime",
}

// absent calls fail with ENOSYS, so that programs fall back to the calls whose arguments the filter can see. Those of modes
// are openat2 as well.
var absent = []string{"clone3"}

// variant says what a filter depends on.
type variant struct {
	// network lets sockets other than local ones through. Without it they are refused: for where there is no network
	// namespace to do it.
	network bool
	// setID lets a file be made that gives its owner's rights to whoever executes it. In a mount of the host that is writable
	// it would be one of the caller's.
	setID bool
	// counted takes away the calls by which a process holds memory that no counting of processes and sockets finds.
	counted bool
}

// uncounted are those calls: files and segments of memory, which stay whether they are mapped or not. A program that does without
// them takes files in /dev/shm.
var uncounted = []string{"memfd_create", "memfd_secret", "shmget"}

// variantOf returns the filter that spec needs in mode m. counted says that its limit of memory is kept by counting.
func variantOf(spec runner.Spec, m mode, counted bool) variant {
	writable := func(b runner.Mount) bool { return b.Kind == runner.Bind && b.Writable }
	inside := m != modeLandlock
	return variant{network: inside, setID: inside && !slices.ContainsFunc(spec.Mounts, writable), counted: counted}
}

// setID are the bits of a file's mode by which a program gets its owner's rights.
const setID = unix.S_ISUID | unix.S_ISGID

// modes are the calls that set a file's mode: the number of the argument, and of the one with flags that say whether it counts.
var modes = []struct {
	name        string
	mode, flags uint32
}{
	{"chmod", 1, 0},
	{"fchmod", 1, 0},
	{"fchmodat", 2, 0},
	{"fchmodat2", 2, 0},
	{"creat", 1, 0},
	{"mknod", 1, 0},
	{"mknodat", 2, 0},
	{"open", 2, 1},
	{"openat", 3, 2},
}

// families are the address families of sockets that may be made: local ones, and those that programs probe for.
// The network namespace has no interface that is up; all other families are code that nobody should reach.
var families = []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// namespaceFlags are the flags of clone that make namespaces.
const namespaceFlags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// policy returns the filter by names.
func policy(v variant) (seccomp.Policy, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return seccomp.Policy{}, err
	}
	allowed := families
	if !v.network {
		allowed = families[:1]
	}
	gone := absent
	if v.counted {
		gone = slices.Concat(gone, uncounted)
	}
	var conditions []seccomp.NameWithConditions
	if !v.setID {
		gone = append(slices.Clone(gone), "openat2")
		conditions = modeConditions(info)
	}
	var family, persona seccomp.ArgumentConditions
	for _, f := range allowed {
		family = append(family, seccomp.Condition{Argument: 0, Operation: seccomp.NotEqual, Value: f})
	}
	for _, p := range []uint64{0, 0xffffffff} { // 0xffffffff asks for the current one
		persona = append(persona, seccomp.Condition{Argument: 0, Operation: seccomp.NotEqual, Value: p})
	}
	namespaces := seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: namespaceFlags}}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: known(info, gone)},
			{Action: seccomp.ActionErrno, Names: known(info, denied)},
			{Action: seccomp.ActionErrno, NamesWithCondtions: append(conditions, []seccomp.NameWithConditions{
				{Name: "clone", Conditions: namespaces},
				{Name: "personality", Conditions: persona},
				{Name: "socket", Conditions: family},
				{Name: "socket", Conditions: seccomp.ArgumentConditions{ // other protocols of netlink configure the kernel
					{Argument: 0, Operation: seccomp.Equal, Value: unix.AF_NETLINK},
					{Argument: 2, Operation: seccomp.NotEqual, Value: unix.NETLINK_ROUTE},
				}},
			}...)},
		},
	}, nil
}

// modeConditions refuses set-ID bits.
func modeConditions(info *arch.Info) (list []seccomp.NameWithConditions) {
	for _, m := range modes {
		if _, ok := info.SyscallNames[m.name]; !ok {
			continue
		}
		c := seccomp.ArgumentConditions{{Argument: m.mode, Operation: seccomp.BitsSet, Value: setID}}
		if m.flags != 0 {
			const creates = unix.O_CREAT | unix.O_TMPFILE&^unix.O_DIRECTORY
			c = append(c, seccomp.Condition{Argument: m.flags, Operation: seccomp.BitsSet, Value: creates})
		}
		list = append(list, seccomp.NameWithConditions{Name: m.name, Conditions: c})
	}
	return list
}

// known returns the names that the architecture has.
func known(info *arch.Info, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, ok := info.SyscallNames[name]
		return !ok
	})
}

// newFilter makes the filter's program, which takes the library a third of a millisecond: see Runner.filter.
func newFilter(v variant) (program, error) {
	p, err := policy(v)
	if err != nil {
		return nil, fmt.Errorf("make system call filter: %w", err)
	}
	list, err := p.Assemble()
	if err != nil {
		return nil, fmt.Errorf("make system call filter: %w", err)
	}
	filter, err := gate()
	if err != nil {
		return nil, fmt.Errorf("make system call filter: %w", err)
	}
	for _, i := range list {
		raw, err := i.Assemble()
		if err != nil {
			return nil, fmt.Errorf("make system call filter: %w", err)
		}
		filter = append(filter, unix.SockFilter{Code: raw.Op, Jt: raw.Jt, Jf: raw.Jf, K: raw.K})
	}
	return filter, nil
}

// program is a filter's program. As text it is as short as can be.
type program []unix.SockFilter

// sizeOfInstruction is that of struct sock_filter (linux/filter.h).
const sizeOfInstruction = 8

// MarshalText writes struct sock_filter in a row, in hexadecimal digits.
func (p program) MarshalText() ([]byte, error) {
	var b []byte
	for _, i := range p {
		b = binary.BigEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.BigEndian.AppendUint32(b, i.K)
	}
	return hex.AppendEncode(nil, b), nil
}

// UnmarshalText reads what MarshalText writes.
func (p *program) UnmarshalText(text []byte) error {
	b, err := hex.AppendDecode(nil, text)
	if err != nil || len(b)%sizeOfInstruction != 0 {
		return fmt.Errorf("read filter of %d bytes: it is not one", len(text))
	}
	list := make(program, 0, len(b)/sizeOfInstruction)
	for ; len(b) > 0; b = b[sizeOfInstruction:] {
		list = append(list, unix.SockFilter{Code: binary.BigEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.BigEndian.Uint32(b[4:])})
	}
	*p = list
	return nil
}

// socketFilter refuses, with EPERM, the families that policy refuses. It is for within another filter that refuses them with another error
// (RestrictAddressFamilies= of systemd.exec(5): EAFNOSUPPORT): of filters that refuse, the one that was loaded last has the word,
// but one that asks (see tally) has none.
func socketFilter(network bool) program {
	allowed := families
	if !network {
		allowed = families[:1]
	}
	n := uint8(len(allowed))
	p := program{
		{Code: filterLoad, K: dataNumber},
		{Code: filterEqual, K: uint32(unix.SYS_SOCKET), Jf: n + 4},
		{Code: filterLoad, K: dataArgument + 4}, // the high half: what is there makes other families of them
		{Code: filterEqual, K: 0, Jf: n + 1},
		{Code: filterLoad, K: dataArgument},
	}
	for i, f := range allowed {
		p = append(p, unix.SockFilter{Code: filterEqual, K: uint32(f), Jt: n - uint8(i)})
	}
	return append(p,
		unix.SockFilter{Code: filterReturn, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		unix.SockFilter{Code: filterReturn, K: unix.SECCOMP_RET_ALLOW})
}

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	dataNumber   = 0
	dataArch     = 4
	dataArgument = 16 // of argument 0; eight bytes each
)

// Instructions of filters (linux/bpf_common.h).
const (
	filterLoad    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	filterAnd     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	filterReturn  = unix.BPF_RET | unix.BPF_K
	filterEqual   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	filterGreater = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
)

// gate is the beginning of the filter: what the library's part cannot say. That lets foreign architectures (32-bit calls on
// amd64) through, which would undo the list above: they kill the process here. It compares all 64 bits of an argument where the
// kernel looks at 32, so that ioctl(TIOCSTI) would pass with a higher bit set. And calls newer than its table must not
// exist, so that a program finds the same ones on every host.
func gate() (program, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	newest := slices.Max(slices.Collect(maps.Keys(info.SyscallNumbers)))
	low := uint32(dataArgument + 8) // the low half of argument 1: the supported architectures are little-endian
	return program{
		{Code: filterLoad, K: dataArch},
		{Code: filterEqual, K: uint32(info.ID), Jt: 1},
		{Code: filterReturn, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: filterLoad, K: dataNumber},
		{Code: filterGreater, K: uint32(newest), Jf: 1},
		{Code: filterReturn, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: filterEqual, K: uint32(unix.SYS_IOCTL), Jf: 4},
		{Code: filterLoad, K: low},
		{Code: filterEqual, K: unix.TIOCSTI, Jt: 1},
		{Code: filterEqual, K: unix.TIOCLINUX, Jf: 1},
		{Code: filterReturn, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	}, nil
}

// load puts one more filter on the calling thread, which must have no_new_privs; its children inherit it. Of all filters the
// strictest answer counts.
func (p program) load() error {
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(p)
	if errno != 0 {
		return fmt.Errorf("load system call filter: %w", errno)
	}
	return nil
}
