package namespace

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// switchFile is a kernel setting that refuses user namespaces while it has a certain value.
type switchFile struct {
	path    string // below /proc/sys
	refuses string
	cure    string
}

// switches are the settings by which hosts refuse user namespaces to ordinary users, most likely first.
var switches = []switchFile{
	{"user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"},
	{"kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"},                         // Debian's kernels
	{"kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"}, // Ubuntu 23.10 and later
}

// cureMaskedProc tells how a container's /proc gets uncovered.
const cureMaskedProc = "the container that this process runs in covers parts of its /proc: start it with --security-opt systempaths=unconfined"

// cure tells how the host whose root directory is root can be made to allow user namespaces, after err. It only reads
// settings, so that it may be asked at any time.
func cure(root string, err error) string {
	for _, s := range switches {
		value, rerr := os.ReadFile(filepath.Join(root, "proc/sys", s.path))
		if rerr == nil && strings.TrimSpace(string(value)) == s.refuses {
			return "let the host's operator run: " + s.cure
		}
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EUSERS):
		return "let the host's operator raise user.max_user_namespaces, or end other confinements: their number has reached the limit"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "allow user namespaces to this process: its container, seccomp filter, chroot or security module refuses them (docker run --security-opt seccomp=unconfined)"
	default:
		return "run on a kernel with CONFIG_USER_NS, Linux 5.12 or later"
	}
}

// countsPerNamespace reports whether RLIMIT_NPROC counts the processes of a user namespace apart: since Linux 5.14.
func countsPerNamespace() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	major, rest, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	return err1 == nil && err2 == nil && (a > 5 || a == 5 && b >= 14)
}
