package egress

import "golang.org/x/sys/unix"

// architecture is what seccomp calls this one.
const architecture = unix.AUDIT_ARCH_X86_64
