// Package debroot gives tests a private Debian system with programs that the machine's own Debian does not have, or only old: of Debian
// sid, Guix 1.5, the Shepherd 1.0 and Nix 2.34.
//
//	m := debroot.Start(t, debroot.Options{Read: []string{repository}})
//	out, err := m.Command(t.Context(), "guix", "--version").CombinedOutput()
//
// The system is made once, by mmdebstrap, from the mirror that the machine uses, with signatures checked: some minutes, and 1.5 GB in the
// user's cache directory. It is there whole or not at all, and two test programs that want it wait for each other. What a test changes in it,
// it changes in an overlay of its own that is thrown away. Remove the directory to have it made anew from today's sid.
//
// A Machine has its own mounts, processes and network (loopback only); its root is entered by pivot_root, since the sandboxes of Nix and Guix
// do not work in a chroot. When the test ends, whatever runs in it is killed.
//
// A system that cannot be had is a skip that says why; so it is a failure where ARCH_TEST_REQUIRE demands everything.
package debroot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// suite and packages are what the system is made of.
const (
	suite    = "sid"
	packages = "bash-static,busybox-static,ca-certificates,guile-3.0,guile-zstd,guix,nix-bin,procps,shepherd,xz-utils,zstd"
)

// Options says what a Machine sees of the host. The zero value is nothing.
type Options struct {
	Read  []string // directories that are there at the same paths, read-only
	Write []string // likewise, and can be written to
}

// Machine is a running system.
type Machine struct {
	pid int
}

// Start starts a system that runs until the test ends.
func Start(t testing.TB, o Options) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cannot run here: only root can make a Debian system")
	}
	root, err := system(t.Context())
	if err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	work := t.TempDir()
	cmd := exec.Command("/bin/sh", "-c", enter, "enter", root, work, strings.Join(o.Read, "\n"), strings.Join(o.Write, "\n"))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if _, err := cmd.StdinPipe(); err != nil { // the system ends when this end is closed: with the test, however that ends
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot run here: make namespaces: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() // it is the first process of its namespace: all others end with it
		cmd.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		cmd.Wait()
		t.Skipf("cannot run here: enter the Debian system: %s", strings.TrimSpace(stderr.String()))
	}
	return &Machine{cmd.Process.Pid}
}

// enter is run by the machine's shell as the first process: ROOT WORK READ WRITE.
const enter = `set -e
root=$1 work=$2 read=$3 write=$4
mount --make-rprivate /
mkdir "$work/upper" "$work/work" "$work/merged"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" "$work/merged"
cd "$work/merged"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs tmpfs run
IFS='
'
for dir in $read; do
	mkdir -p ".$dir"
	mount --bind "$dir" ".$dir"
	mount -o remount,bind,ro ".$dir"
done
for dir in $write; do
	mkdir -p ".$dir"
	mount --bind "$dir" ".$dir"
done
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
/bin/busybox ip link set lo up
echo ready
exec /bin/busybox cat >/dev/null
`

// Command returns a command that runs in the system, as root, in the directory / with a clean environment.
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	line := append([]string{"--target", strconv.Itoa(m.pid), "--mount", "--pid", "--net", "--ipc", "--uts", "--root", "--wd", "--"}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", line...)
	cmd.WaitDelay = time.Second // what nsenter started ends with the system, and may hold pipes until then
	cmd.Env = []string{"HOME=/root", "LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GUILE_AUTO_COMPILE=0"}
	return cmd
}

// system returns the directory of the system. It makes it if it is not there.
func system(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "arch-debroot")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	root := filepath.Join(dir, fmt.Sprintf("%s-%.6x", suite, sha256.Sum256([]byte(packages))))
	unlock, err := lock(root + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	return root, build(ctx, root)
}

// lock waits until nobody else has the file.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// build makes the system beside its place, and moves it there.
func build(ctx context.Context, root string) error {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return fmt.Errorf("there is no mmdebstrap to make a Debian system: %w", err)
	}
	temporary, err := os.MkdirTemp(filepath.Dir(root), "making-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	args := []string{
		"--variant=minbase", "--include=" + packages, `--aptopt=APT::Install-Recommends "false"`,
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/info/*",
	}
	if out, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire::Check-Valid-Until").Output(); err == nil && bytes.Contains(out, []byte(`"false"`)) {
		args = append(args, `--aptopt=Acquire::Check-Valid-Until "false"`) // as the machine's administrator has it
	}
	made := filepath.Join(temporary, "root")
	args = append(args, suite, made)
	if mirror := mirror(); mirror != "" {
		args = append(args, mirror)
	}
	if out, err := exec.CommandContext(ctx, "mmdebstrap", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("make a Debian system: %w: %s", err, lastLine(out))
	}
	return os.Rename(made, root)
}

// mirror returns where the machine gets its packages from; empty: unknown, mmdebstrap has one of its own.
func mirror() string {
	files, err := filepath.Glob("/etc/apt/sources.list.d/*.sources")
	if err != nil {
		return ""
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if uri, ok := strings.CutPrefix(line, "URIs:"); ok {
				first, _, _ := strings.Cut(strings.TrimSpace(uri), " ")
				return first
			}
		}
	}
	return ""
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// Listen listens on the loopback of the system, at a free port, for a server of the test. The caller closes it.
func (m *Machine) Listen(t testing.TB) net.Listener {
	t.Helper()
	type result struct {
		net.Listener
		error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread is of no use to anybody else, and ends with this goroutine
		there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.pid))
		if err != nil {
			done <- result{nil, err}
			return
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{nil, err}
			return
		}
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		done <- result{l, err}
	}()
	r := <-done
	if r.error != nil {
		t.Fatalf("listen in the Debian system: %v", r.error)
	}
	return r.Listener
}
