package attacker_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
	"arch.network/tests/guest"
)

// scene is what an attacker aims at, on the host, and what tells whether it was hit.
type scene struct {
	targets attacker.Targets
	dir     string
	input   string // on the host
	shared  string // on the host

	victim *exec.Cmd
	kill   io.Closer     // ends the victim
	tale   *bufio.Reader // what the victim says

	before string // state of the host
}

// newScene makes the targets, all of them with the rights of this process.
func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{dir: openDir(t)}
	token := "token-" + rand.Text()
	s.targets = attacker.Targets{
		Token:  token,
		Canary: filepath.Join(s.dir, "canary"), DropOff: filepath.Join(s.dir, "drop-off"),
		Abstract: "arch-attacker-" + token, SHM: 0x61000000 | int(binary.LittleEndian.Uint32([]byte(rand.Text()))&0xffffff),
		Queue: "arch-" + token, Key: "arch-" + token,
		Input: "/inputs/data", Shared: "/shared", Scratch: "/build", SetUID: "/inputs/set-uid", FileCaps: "/inputs/capable",
		Metadata: guest.Inside() != "",
	}
	s.input, s.shared = filepath.Join(s.dir, "input"), filepath.Join(s.dir, "shared")
	for _, d := range []string{s.targets.DropOff, s.shared} {
		must(t, os.Mkdir(d, 0o755))
		must(t, os.Chmod(d, 0o777))
	}
	for _, f := range []string{s.targets.Canary, s.input} {
		must(t, os.WriteFile(f, []byte(token), 0o644))
	}
	t.Setenv(secretVariable, token)
	s.serve(t)
	s.share(t)
	s.startVictim(t)
	s.before = s.state(t)
	return s
}

// secretVariable is one of the runner's own environment; its value is the token.
const secretVariable = "ARCH_ATTACK_SECRET"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve listens at the targets and tells everyone the token.
func (s *scene) serve(t *testing.T) {
	t.Helper()
	token := []byte(s.targets.Token)
	listen := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				conn.Write(token)
				conn.Close()
			}
		}()
		return l
	}
	listen("unix", "@"+s.targets.Abstract)
	s.targets.TCP = listen("tcp", "127.0.0.1:0").Addr().(*net.TCPAddr).Port
	if s.targets.Metadata && os.Geteuid() == 0 {
		listen("tcp", "169.254.169.254:80")
		if hasIPv6() {
			listen("tcp", "[fd00:ec2::254]:80")
		}
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { packets.Close() })
	s.targets.UDP = packets.LocalAddr().(*net.UDPAddr).Port
	go func() {
		for {
			_, from, err := packets.ReadFrom(make([]byte, 64))
			if err != nil {
				return
			}
			packets.WriteTo(token, from)
		}
	}()
}

// share makes what processes share beside files.
func (s *scene) share(t *testing.T) {
	t.Helper()
	id, err := unix.SysvShmGet(s.targets.SHM, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o666)
	must(t, err)
	t.Cleanup(func() { unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	memory, err := unix.SysvShmAttach(id, 0, 0)
	must(t, err)
	copy(memory, s.targets.Token)
	must(t, unix.SysvShmDetach(memory))

	name := append([]byte(s.targets.Queue), 0)
	fd, _, errno := syscall.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_CREAT|unix.O_RDWR, 0o666, 0, 0, 0)
	if errno != 0 {
		s.targets.Queue = ""
		t.Logf("no message queues here: %v", errno)
	} else {
		unix.Close(int(fd))
		t.Cleanup(func() { syscall.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(&name[0])), 0, 0) })
	}
	s.addKey(t)

	file := filepath.Join("/dev/shm", s.targets.Token)
	must(t, os.WriteFile(file, []byte(s.targets.Token), 0o666))
	t.Cleanup(func() { os.Remove(file) })
}

// addKey puts a key that all of this user's processes may read, whatever their sessions, into the user keyring.
func (s *scene) addKey(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // a "process" keyring is a thread's, to Go
	defer runtime.UnlockOSThread()
	key, err := unix.AddKey("user", s.targets.Key, []byte(s.targets.Token), unix.KEY_SPEC_PROCESS_KEYRING)
	must(t, err)
	const userAll = 0x3f3f0000
	must(t, unix.KeyctlSetperm(key, userAll))
	_, err = unix.KeyctlInt(unix.KEYCTL_LINK, key, unix.KEY_SPEC_USER_KEYRING, 0, 0)
	must(t, err)
	t.Cleanup(func() { unix.KeyctlInt(unix.KEYCTL_UNLINK, key, unix.KEY_SPEC_USER_KEYRING, 0, 0) })
}

// victimArgument makes the test binary a victim; its next argument is the token.
const victimArgument = "be-victim"

// beVictim waits for its end, and then tells what was done to it.
func beVictim() int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	nice, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	now, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
	switch {
	case len(signals) > 0:
		fmt.Println("signalled")
	case now != nice:
		fmt.Println("slowed")
	default:
		fmt.Println("unharmed")
	}
	return 0
}

func (s *scene) startVictim(t *testing.T) {
	t.Helper()
	s.victim = exec.Command("/proc/self/exe", victimArgument, s.targets.Token)
	in, err := s.victim.StdinPipe()
	must(t, err)
	out, err := s.victim.StdoutPipe()
	must(t, err)
	must(t, s.victim.Start())
	t.Cleanup(func() { s.victim.Process.Kill(); s.victim.Wait() })
	s.kill, s.tale = in, bufio.NewReader(out)
	s.targets.Victim = s.victim.Process.Pid
	if line, err := s.tale.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("start victim: %q, %v", line, err)
	}
}

// askVictim ends the victim and returns what it says.
func (s *scene) askVictim() string {
	s.kill.Close()
	line, err := s.tale.ReadString('\n')
	if err != nil {
		return "killed"
	}
	return strings.TrimSpace(line)
}

// state describes what attempts must not change.
func (s *scene) state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	filepath.WalkDir(s.dir, func(p string, _ os.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(p, &st))
		if p == s.shared {
			st.Mtim = unix.Timespec{} // it was given away
		}
		fmt.Fprintf(&b, "%s %o %d:%d links %d size %d at %v\n", p, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim)
		return nil
	})
	for _, name := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "/proc/self/mountinfo"} {
		data, err := os.ReadFile(name)
		must(t, err)
		fmt.Fprintf(&b, "%s: %s", name, data)
	}
	return b.String()
}

// privilegedVariable names the environment variable that holds a directory with what makePrivileged makes.
const privilegedVariable = "ARCH_TEST_PRIVILEGED"

// privileged returns programs that root made to give privileges; ok is false if there are none, since this is not root.
func privileged(t *testing.T, attack string) (setUID, capable string, ok bool) {
	t.Helper()
	dir := os.Getenv(privilegedVariable)
	if dir == "" {
		if os.Geteuid() != 0 {
			return "", "", false
		}
		dir = openDir(t)
		makePrivileged(t, attack, dir)
	}
	return filepath.Join(dir, "set-uid"), filepath.Join(dir, "capable"), true
}

// makePrivileged copies the attack with a set-user-ID bit, and with capabilities.
func makePrivileged(t *testing.T, attack, dir string) {
	t.Helper()
	copyProgram(t, attack, filepath.Join(dir, "set-uid"))
	must(t, unix.Chmod(filepath.Join(dir, "set-uid"), 0o6755))
	copyProgram(t, attack, filepath.Join(dir, "capable"))
	capabilities := make([]byte, 20) // struct vfs_cap_data, revision 2, effective: CAP_NET_ADMIN
	binary.LittleEndian.PutUint32(capabilities, 0x02000001)
	binary.LittleEndian.PutUint32(capabilities[4:], 1<<unix.CAP_NET_ADMIN)
	must(t, unix.Setxattr(filepath.Join(dir, "capable"), "security.capability", capabilities, 0))
}

// makeMetadata gives a guest's loopback interface the addresses that clouds have for their metadata.
func makeMetadata(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("cannot run here: " + err.Error() + ": apt-get install iproute2")
	}
	addresses := []string{"addr add 169.254.169.254/32 dev lo"}
	if hasIPv6() {
		addresses = append(addresses, "addr add fd00:ec2::254/128 dev lo nodad")
	}
	for _, args := range addresses {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil && !strings.Contains(string(out), "File exists") {
			t.Fatalf("ip %s: %v\n%s", args, err, out)
		}
	}
}

// hasIPv6 tells whether the kernel has it: that of UML has not.
func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

// alive lists the processes that were given the scene's targets and are not its victim.
func (s *scene) alive() []string {
	names, _ := filepath.Glob("/proc/[0-9]*/environ")
	var found []string
	for _, name := range names {
		pid := filepath.Base(filepath.Dir(name))
		env, err := os.ReadFile(name)
		if err != nil || pid == strconv.Itoa(s.targets.Victim) || !bytes.Contains(env, []byte(s.targets.Token)) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		found = append(found, pid+" "+strings.ReplaceAll(string(line), "\x00", " "))
	}
	return found
}

// groups lists the control groups that drivers in this process have made. In a guest, all units of jobs are this process's.
func groups() []string {
	own := fmt.Sprintf("arch-%d-", os.Getpid())
	var found []string
	filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		inGuest := guest.Inside() != "" && (strings.HasPrefix(d.Name(), "arch-job-") || strings.HasPrefix(d.Name(), "arch-pool-"))
		if strings.HasPrefix(d.Name(), own) || inGuest {
			found = append(found, p)
		}
		return nil
	})
	return found
}
