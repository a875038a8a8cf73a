package debroot

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// guixSocket is where guix-daemon listens if nobody says otherwise.
const guixSocket = "/var/guix/daemon-socket/socket"

// StartGuix starts guix-daemon, which fetches nothing, and waits until it answers. Flags are added to its own.
func (m *Machine) StartGuix(t testing.TB, flags ...string) {
	t.Helper()
	const users = `set -e
groupadd --system guixbuild
for i in 1 2; do
	useradd --system --gid guixbuild --groups guixbuild --home-dir /var/empty --shell /usr/sbin/nologin "guixbuilder$i"
done
mkdir -p /var/guix/daemon-socket`
	if out, err := m.Command(t.Context(), "sh", "-c", users).CombinedOutput(); err != nil {
		t.Fatalf("make users for guix-daemon: %v\n%s", err, out)
	}
	m.StartGuixAt(t, guixSocket, flags...)
}

// StartGuixAt starts another guix-daemon, in a system where StartGuix was called, that listens at a socket, and returns that.
func (m *Machine) StartGuixAt(t testing.TB, socket string, flags ...string) string {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log")) // a file: the daemon outlives nsenter, and would hold a pipe open
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon := m.Command(t.Context(), append([]string{"guix-daemon", "--no-substitutes", "--build-users-group=guixbuild", "--listen=" + socket}, flags...)...)
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		daemon.Process.Kill()
		daemon.Wait()
	})
	const wait = `until [ -S "$GUIX_DAEMON_SOCKET" ]; do busybox usleep 20000; done; exec guile --no-auto-compile -c '
(use-modules (guix store)) (with-store store (display (store-connection? store)))'`
	if out, err := m.Command(t.Context(), "env", "GUIX_DAEMON_SOCKET="+socket, "sh", "-c", wait).CombinedOutput(); err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("wait for guix-daemon: %v\n%s\n%s", err, out, text)
	}
	return socket
}

// StartPublish starts `guix publish` with flags, in a system where StartGuix was called, and returns its URL when it answers. It signs with a key of
// its own, whose public half is returned, too, as an S-expression.
func (m *Machine) StartPublish(t testing.TB, flags ...string) (url, key string) {
	t.Helper()
	free := m.Listen(t)
	port := free.Addr().(*net.TCPAddr).Port
	if err := free.Close(); err != nil { // nobody else listens in this system
		t.Fatal(err)
	}
	at := fmt.Sprintf("/etc/guix/publish-%d", port)
	const generate = `guix archive --generate-key 2>/dev/null; mv /etc/guix/signing-key.pub "$0.pub"; mv /etc/guix/signing-key.sec "$0.sec"; exec cat "$0.pub"`
	public, err := m.Command(t.Context(), "sh", "-ec", generate, at).Output()
	if err != nil {
		t.Fatalf("generate a key for guix publish: %v", err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := []string{"guix", "publish", "--listen=127.0.0.1", fmt.Sprintf("--port=%d", port), "--user=nobody", "--public-key=" + at + ".pub", "--private-key=" + at + ".sec"}
	server := m.Command(t.Context(), append(args, flags...)...)
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	url = fmt.Sprintf("http://127.0.0.1:%d", port)
	const wait = `n=0; until busybox wget -q -O /dev/null "$0/nix-cache-info"; do n=$((n+1)); [ $n -lt 3000 ]; busybox usleep 20000; done`
	if out, err := m.Command(t.Context(), "sh", "-ec", wait, url).CombinedOutput(); err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("wait for guix publish: %v\n%s\n%s", err, out, text)
	}
	return url, string(public)
}
