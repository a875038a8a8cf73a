package namespace

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
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

// absent calls fail with ENOSYS, so that a C library falls back to the call whose arguments the filter can see.
var absent = []string{"clone3"}

// families are the address families of sockets that may be made: local ones, and those that programs probe for.
// The network namespace has no interface that is up; all other families are code that nobody should reach.
var families = []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// namespaceFlags are the flags of clone that make namespaces.
const namespaceFlags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// policy returns the filter by names. Without network, sockets other than local ones are refused as well: for where
// there is no network namespace to do it.
func policy(network bool) (seccomp.Policy, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return seccomp.Policy{}, err
	}
	allowed := families
	if !network {
		allowed = families[:1]
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
			{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: known(info, absent)},
			{Action: seccomp.ActionErrno, Names: known(info, denied)},
			{Action: seccomp.ActionErrno, NamesWithCondtions: []seccomp.NameWithConditions{
				{Name: "clone", Conditions: namespaces},
				{Name: "personality", Conditions: persona},
				{Name: "socket", Conditions: family},
			}},
		},
	}, nil
}

// known returns the names that the architecture has.
func known(info *arch.Info, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, ok := info.SyscallNames[name]
		return !ok
	})
}

// loadFilter puts the filter on the calling thread, which must have no_new_privs; its children inherit it.
func loadFilter(network bool) error {
	p, err := policy(network)
	if err != nil {
		return fmt.Errorf("make system call filter: %w", err)
	}
	if err := seccomp.LoadFilter(seccomp.Filter{Policy: p}); err != nil {
		return err
	}
	return loadGate()
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

// loadGate adds what the library's filter cannot say. It lets foreign architectures (32-bit calls on amd64) through,
// which would undo the list above: they kill the process here. It compares all 64 bits of an argument where the
// kernel looks at 32, so that ioctl(TIOCSTI) would pass with a higher bit set. And calls newer than its table must not
// exist, so that a program finds the same ones on every host.
func loadGate() error {
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	newest := slices.Max(slices.Collect(maps.Keys(info.SyscallNumbers)))
	low := uint32(dataArgument + 8) // the low half of argument 1: the supported architectures are little-endian
	return loadProgram([]unix.SockFilter{
		{Code: filterLoad, K: dataArch},
		{Code: filterEqual, K: uint32(info.ID), Jt: 1},
		{Code: filterReturn, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: filterLoad, K: dataNumber},
		{Code: filterGreater, K: uint32(newest), Jf: 1},
		{Code: filterReturn, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: filterEqual, K: uint32(unix.SYS_IOCTL), Jf: 5},
		{Code: filterLoad, K: low},
		{Code: filterEqual, K: unix.TIOCSTI, Jt: 2},
		{Code: filterEqual, K: unix.TIOCLINUX, Jt: 1},
		{Code: filterReturn, K: unix.SECCOMP_RET_ALLOW},
		{Code: filterReturn, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: filterReturn, K: unix.SECCOMP_RET_ALLOW},
	})
}

// loadProgram puts one more filter on the calling thread; of all filters the strictest answer counts.
func loadProgram(program []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("load system call filter: %w", errno)
	}
	return nil
}
