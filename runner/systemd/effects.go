package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The probe units.
const (
	probeJob    = "job"    // as those of Run
	probeWorker = "worker" // as those of a Pool
	probeLimits = "limits" // the first with tight limits; killed at its end if they hold
)

// The limits of the last one.
const (
	probeMemory = 32 << 20 // bytes, to which ownMemory is added
	probeTasks  = 8        // to which ownTasks is added
	probeQuota  = 200      // thousandths of a processor
	probeEat    = 160 << 20
)

// finding is what a probe unit says of one effect, as a line of JSON.
type finding struct {
	Name  string
	Holds bool
	Seen  string
}

// check finds out whether an effect is there, and says what it has seen.
type check struct {
	name string
	try  func() (holds bool, seen string)
}

// probeEffects is the life of a probe unit: args are its kind, and the network namespace of its driver.
func probeEffects(args []string) error {
	if len(args) != 2 {
		return errors.New("a probe takes two arguments")
	}
	out := json.NewEncoder(os.Stdout)
	for _, c := range checks(args[0], args[1]) {
		holds, seen := c.try()
		if err := out.Encode(finding{c.name, holds, seen}); err != nil {
			return err
		}
	}
	return nil
}

func checks(kind, network string) []check {
	switch kind {
	case probeJob:
		return []check{
			{"unit-root", hasOwnRoot},
			{"unit-read-only", func() (bool, string) { return refused(unix.EROFS, os.WriteFile(slots+"/x", nil, 0o600)) }},
			{"unit-capabilities", func() (bool, string) { return hasCapabilities(setIDs) }},
			{"unit-privileges", hasNoNewPrivileges},
			{"unit-system-calls", fetchOwnDescriptor},
			{"unit-personality", changePersonality},
			{"unit-families", func() (bool, string) { return socket(unix.AF_PACKET, unix.SOCK_DGRAM, unix.EAFNOSUPPORT) }},
			{"unit-network", func() (bool, string) { return hasOtherNetwork(network) }},
			{"unit-addresses", sendToSelf},
			{"unit-devices", openDevice},
			{"unit-user", becomeNobody},
			{"unit-inner", makeNamespace},
		}
	case probeWorker:
		return []check{
			{"worker-namespaces", func() (bool, string) { return refused(unix.EPERM, cloneNamespace()) }},
			{"worker-families", func() (bool, string) { return socket(unix.AF_INET, unix.SOCK_STREAM, unix.EPERM) }},
			{"worker-executable", mapExecutable},
			{"worker-system-calls", fetchOwnDescriptor},
		}
	case probeLimits:
		return []check{{"processes", forkMany}, {"cpu", burn}, {"memory", eat}}
	}
	return nil
}

// refused reports whether err is the one that the confinement gives.
func refused(want error, err error) (bool, string) {
	if err == nil {
		return false, "it was allowed"
	}
	return errors.Is(err, want), err.Error()
}

func hasOwnRoot() (bool, string) {
	if list, err := os.ReadDir("/usr"); err == nil && len(list) > 0 {
		return false, "the host's /usr is there"
	}
	return true, "the host's /usr is not there"
}

func hasCapabilities(want uint64) (bool, string) {
	h, err := inspect()
	if err != nil {
		return false, err.Error()
	}
	text := fmt.Sprintf("%016x", want)
	return h.Bounding == text && h.Capabilities == text, "bounding set " + h.Bounding + ", effective set " + h.Capabilities
}

func hasNoNewPrivileges() (bool, string) {
	h, err := inspect()
	if err != nil {
		return false, err.Error()
	}
	return h.NoNewPrivs, fmt.Sprintf("NoNewPrivs: %v", h.NoNewPrivs)
}

// fetchOwnDescriptor makes a call that needs no privilege here, and is in no list of ours: pidfd_getfd(2).
func fetchOwnDescriptor() (bool, string) {
	pidfd, _, errno := unix.RawSyscall(unix.SYS_PIDFD_OPEN, uintptr(os.Getpid()), 0, 0)
	if errno != 0 {
		return errno == unix.EPERM, "pidfd_open: " + errno.Error()
	}
	defer unix.Close(int(pidfd))
	fd, _, errno := unix.RawSyscall(unix.SYS_PIDFD_GETFD, pidfd, 1, 0)
	if errno == 0 {
		unix.Close(int(fd))
		return false, "pidfd_getfd was allowed"
	}
	return errno == unix.EPERM, "pidfd_getfd: " + errno.Error()
}

// changePersonality asks for READ_IMPLIES_EXEC on a thread that then ends.
func changePersonality() (holds bool, seen string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
		_, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, 0x0400000, 0, 0)
		if errno == 0 {
			holds, seen = false, "personality was allowed"
			return
		}
		holds, seen = errno == unix.EPERM, "personality: "+errno.Error()
	}()
	<-done
	return holds, seen
}

// socket tries to make one of a family that is not let through, and wants to be refused by that error: it is not the
// one that a missing capability gives.
func socket(family, kind int, want error) (bool, string) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
		return false, "socket was allowed"
	}
	return errors.Is(err, want), "socket: " + err.Error()
}

func hasOtherNetwork(host string) (bool, string) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return false, err.Error()
	}
	return host != "" && own != host, "namespace " + own + ", the driver's " + host
}

// sendToSelf sends a datagram over the loopback interface, which systemd brings up.
func sendToSelf() (bool, string) {
	c, err := net.Dial("udp4", "127.0.0.1:9")
	if err != nil {
		return false, err.Error()
	}
	defer c.Close()
	_, err = c.Write([]byte("x"))
	if errors.Is(err, unix.ECONNREFUSED) {
		err = nil // it went out
	}
	return refused(unix.EPERM, err)
}

// deviceCandidates are devices that root may open on most hosts without any capability, and that a unit must not. The
// terminal of a process that has none says ENXIO, but only to those who may open it.
var deviceCandidates = []string{"/dev/tty", "/dev/fuse", "/dev/net/tun", "/dev/loop-control", "/dev/kvm", "/dev/vda", "/dev/sda"}

func openDevice() (bool, string) {
	tried := "there is no device to try"
	for _, name := range deviceCandidates {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err == nil {
			unix.Close(fd)
			return false, name + " can be opened"
		}
		if errors.Is(err, unix.EPERM) {
			return true, name + ": " + err.Error()
		}
		if !errors.Is(err, unix.ENOENT) {
			tried = name + ": " + err.Error()
		}
	}
	return false, tried
}

func becomeNobody() (bool, string) {
	if err := become(0, 0); err != nil {
		return false, err.Error()
	}
	h, err := inspect()
	if err != nil {
		return false, err.Error()
	}
	return os.Getuid() >= ownIDs && strings.Trim(h.Capabilities, "0") == "", fmt.Sprintf("user %d, capabilities %s", os.Getuid(), h.Capabilities)
}

// makeNamespace is what the inner layer begins with.
func makeNamespace() (bool, string) {
	if err := cloneNamespace(); err != nil {
		return false, err.Error()
	}
	return true, "a user namespace can be made"
}

// cloneNamespace starts this program in a user namespace, where it ends at once.
func cloneNamespace() error {
	program := "/proc/self/exe"
	if _, err := os.Stat(program); err != nil {
		program = programSlot
	}
	p, err := os.StartProcess(program, []string{argument0, modeNothing}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER},
	})
	if err != nil {
		return err
	}
	_, err = p.Wait()
	return err
}

func mapExecutable() (bool, string) {
	m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		unix.Munmap(m)
	}
	return refused(unix.EPERM, err)
}

// forkMany starts processes that do nothing until one is refused.
func forkMany() (bool, string) {
	const most = ownTasks + probeTasks + 16
	var children []uintptr
	var errno syscall.Errno
	for len(children) < most && errno == 0 {
		var pid uintptr
		syscall.ForkLock.Lock()
		pid, errno = forkIdle()
		syscall.ForkLock.Unlock()
		if errno == 0 {
			children = append(children, pid)
		}
	}
	for _, pid := range children {
		unix.Kill(int(pid), unix.SIGKILL)
		unix.Wait4(int(pid), nil, 0, nil)
	}
	if errno == 0 {
		return false, fmt.Sprintf("%d processes could be started", most)
	}
	return errno == unix.EAGAIN, fmt.Sprintf("after %d processes: %v", len(children), errno)
}

// forkIdle forks a child that waits to be killed. It makes nothing but raw system calls: Go does not run in it.
//
//go:norace
//go:nocheckptr
//go:noinline
func forkIdle() (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	for {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

// burn computes for a while and compares the processor time that it got with the time that passed. On a busy machine it
// does not get much without a limit either: the best of several times counts.
func burn() (bool, string) {
	var best float64
	for range 3 {
		start, before := time.Now(), ownTime()
		for time.Since(start) < 300*time.Millisecond {
		}
		best = max(best, float64(ownTime()-before)/float64(time.Since(start)))
	}
	return best < 0.33, fmt.Sprintf("%.0f %% of a processor, of %d %% that are allowed", 100*best, probeQuota/10)
}

func ownTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// eat uses more memory than the unit may have. It returns only if it may.
func eat() (bool, string) {
	m, err := unix.Mmap(-1, 0, probeEat, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return false, err.Error()
	}
	for n := 0; n < len(m); n += os.Getpagesize() {
		m[n] = 1
	}
	return false, fmt.Sprintf("%d MiB could be used", probeEat>>20)
}

// networkOf names the network namespace of this process.
func networkOf() string {
	name, _ := os.Readlink(filepath.Join("/proc/self/ns/net")) // empty: then the probe fails
	return name
}
