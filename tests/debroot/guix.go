package debroot

import (
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
