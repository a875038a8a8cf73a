package debroot_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/tests/debroot"
)

func TestMachine(t *testing.T) {
	read, write := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(read, "in"), []byte("from outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := debroot.Start(t, debroot.Options{Read: []string{read}, Write: []string{write}})
	run := func(script string) string {
		t.Helper()
		out, err := m.Command(t.Context(), "sh", "-ec", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	run("cp " + read + "/in " + write + "/out; ! touch " + read + "/x; touch /changed /usr/changed")
	if data, err := os.ReadFile(filepath.Join(write, "out")); err != nil || string(data) != "from outside" {
		t.Errorf("from inside came %q, %v", data, err)
	}
	for script, want := range map[string]string{
		"cat /proc/1/comm":         "busybox",
		"ls /.outside":             "",
		"ls /sys/class/net":        "lo",
		"cat /etc/debian_version":  "sid",
		"guix --version | head -1": "guix (GNU Guix)",
		"nix --version":            "nix (Nix)",
		"unshare --user --mount --map-root-user mount -t tmpfs tmpfs /mnt && echo a sandbox works": "a sandbox works",
	} {
		if out := run(script); !strings.Contains(out, want) {
			t.Errorf("%s: %q, want %q", script, out, want)
		}
	}
	other := debroot.Start(t, debroot.Options{})
	if out, err := other.Command(t.Context(), "ls", "/changed", "/usr/changed").CombinedOutput(); err == nil {
		t.Errorf("another machine sees what was changed in the first: %s", out)
	}
}
