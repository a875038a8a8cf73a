package systemd

import (
	"slices"

	"arch.network/runner"
)

// The system calls and address families that units may use, as systemd.exec(5) names groups of them. What is not
// listed fails with EPERM; what systemd does not know fails with ENOSYS.

// innerCalls are for units in which the inner layer is made: that of a service, what making namespaces and file systems
// takes, and what shifting a clock takes. The inner layer's own filter then refuses nearly all of the additions to the commands.
var innerCalls = []string{
	"@system-service", "@mount", "@pkey", "unshare", "sethostname", "setdomainname", "seccomp",
	"ptrace", "process_vm_readv", "process_vm_writev",
}

// innerFamilies are those that the inner layer's filter lets through.
var innerFamilies = []string{"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}

// families returns those of the unit for spec: with network, the inner layer sees by packets what is tried.
func families(spec runner.Spec) []string {
	if spec.Network.IsZero() {
		return innerFamilies
	}
	return append(slices.Clone(innerFamilies), "AF_PACKET")
}

// workerCalls are for the units of a Pool: one static program that computes, reads files and talks over the sockets it
// was given. There is no other program, and it can neither make a socket of the internet, nor send signals
// to other units (whose user ids differ anyway).
var workerCalls = []string{
	"@default", "@basic-io", "@io-event", "@file-system", "@sync", "@timer",
	"clone", "clone3", // by the runtime's threads
	"execve", "setgroups", "setresgid", "setresuid", // by the first process, to become the unit's user and then the program
	"tgkill", "gettid", "getpid", "mprotect", "madvise", "mlock", "munlock", "mincore", "mremap", "msync",
	"sched_getaffinity", "sched_yield", "sigaltstack", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
	"prctl", "arch_prctl", "set_robust_list", "rseq", "uname", "getrlimit", "setrlimit", "prlimit64", "getrusage", "getrandom",
	"fcntl", "ioctl", "dup", "dup2", "dup3", "pipe", "pipe2", "memfd_create", "capget",
	"sendmsg", "recvmsg", "sendto", "recvfrom", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt", "socketpair",
}

// workerFamilies are the families of sockets that a unit of a Pool may make: pairs.
var workerFamilies = []string{"AF_UNIX"}
