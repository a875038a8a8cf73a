package debroot

import (
	"os"
	"path/filepath"
	"testing"
)

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
	log, err := os.Create(filepath.Join(t.TempDir(), "log")) // a file: the daemon outlives nsenter, and would hold a pipe open
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon := m.Command(t.Context(), append([]string{"guix-daemon", "--no-substitutes", "--build-users-group=guixbuild"}, flags...)...)
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		daemon.Process.Kill()
		daemon.Wait()
	})
	const wait = `until [ -S /var/guix/daemon-socket/socket ]; do busybox usleep 20000; done; exec guile --no-auto-compile -c '
(use-modules (guix store)) (with-store store (display (store-connection? store)))'`
	if out, err := m.Command(t.Context(), "sh", "-c", wait).CombinedOutput(); err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("wait for guix-daemon: %v\n%s\n%s", err, out, text)
	}
}
