package guest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/tests/guest"
)

// TestSystemd shows that a guest has a systemd whose confinement and limits have effect.
func TestSystemd(t *testing.T) { guest.Suite(t, suite, guest.Namespaces, guest.UML) }

func suite(t *testing.T) {
	t.Run("the first process is systemd", func(t *testing.T) {
		comm, err := os.ReadFile("/proc/1/comm")
		if err != nil || string(comm) != "systemd\n" {
			t.Errorf("got %q, %v", comm, err)
		}
	})
	for _, test := range unitTests() {
		t.Run(test.name, func(t *testing.T) { test.run(t) })
	}
	t.Run("only loopback", func(t *testing.T) {
		links, err := os.ReadDir("/sys/class/net")
		if err != nil || len(links) != 1 || links[0].Name() != "lo" {
			t.Errorf("got %v, %v", links, err)
		}
	})
	t.Run("nothing failed", func(t *testing.T) {
		// systemd-run --wait returns when its unit has failed; systemd collects the unit some turns of its loop later.
		var out []byte
		var err error
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			out, err = exec.Command("systemctl", "list-units", "--failed", "--plain", "--no-legend").CombinedOutput()
			if err == nil && len(out) == 0 {
				return
			}
		}
		t.Errorf("got %q, %v", out, err)
	})
}

// killed stands for any exit status but 0: what systemd-run says of a killed unit depends on the version of control groups.
const killed = -1

// unitTest runs a shell command in a transient unit.
type unitTest struct {
	name       string
	properties []string
	command    string
	want       string
	exit       int
}

func unitTests() []unitTest {
	const credential = "00000000000000000000000061726368\n"
	return []unitTest{
		{"exit status", nil, "echo out; echo err >&2; exit 3", "out\nerr\n", 3},
		{"ProtectSystem", []string{"ProtectSystem=strict"}, "touch /etc/x 2>&1 | grep -o 'Read-only'", "Read-only\n", 0},
		{"DynamicUser", []string{"DynamicUser=yes"}, "[ $(id -u) -gt 60000 ] && echo yes", "yes\n", 0},
		{"LoadCredential", []string{"LoadCredential=x:/etc/machine-id"}, "cat $CREDENTIALS_DIRECTORY/x", credential, 0},
		{"PrivateNetwork", []string{"PrivateNetwork=yes"}, "ls /sys/class/net", "lo\n", 0},
		{
			"RestrictAddressFamilies",
			[]string{"RestrictAddressFamilies=AF_UNIX"},
			"bash -c 'echo > /dev/tcp/127.0.0.1/1' 2>&1 | grep -o -m 1 'not supported'", "not supported\n", 0,
		},
		{"MemoryMax", []string{"MemoryMax=24M", "MemorySwapMax=0"}, "exec tail /dev/zero", "", killed},
		{"MemoryMax is enough", []string{"MemoryMax=512M"}, "head -c 50M /dev/zero | tail | wc -c", "52428800\n", 0},
		{"TasksMax", []string{"TasksMax=1"}, "exec 2>&1; (exit 0); echo forked", "sh: 1: Cannot fork\n", 2},
	}
}

func (u unitTest) run(t *testing.T) {
	args := []string{"--quiet", "--wait", "--pipe", "--collect"}
	for _, p := range u.properties {
		args = append(args, "--property="+p)
	}
	cmd := exec.Command("systemd-run", append(args, "sh", "-c", u.command)...)
	out, _ := cmd.CombinedOutput()
	if diff := cmp.Diff(u.want, strings.TrimPrefix(string(out), "/usr/bin/")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := cmd.ProcessState.ExitCode(); got != u.exit && !(u.exit == killed && got != 0) {
		t.Errorf("exit status %d, want %d", got, u.exit)
	}
}

// TestTest runs another package's tests in a guest: here the launcher's own.
func TestTest(t *testing.T) {
	guest.Test(t, guest.Namespaces, filepath.Join("run"), "^TestParse")
}
