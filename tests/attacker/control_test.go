package attacker_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
	"arch.network/tests/guest"
)

// testControl makes every attempt unconfined, in a guest, as root and as an ordinary user. Each must succeed for one of them, but
// for those that the guest's kernel lacks what they need, or of which hopeless knows why they cannot.
func testControl(t *testing.T, attempts []string) {
	s := newScene(t)
	s.targets.Input, s.targets.Shared, s.targets.Scratch = s.input, s.shared, filepath.Join(s.dir, "scratch")
	must(t, os.Mkdir(s.targets.Scratch, 0o755))
	must(t, os.Chmod(s.targets.Scratch, 0o777))
	var ok bool
	if s.targets.SetUID, s.targets.FileCaps, ok = privileged(t, program(t)); !ok {
		t.Fatal("no programs with privileges could be made")
	}
	succeeded := 0
	for _, name := range attempts {
		var details []string
		for _, uid := range []uint32{0, nobody} {
			report := s.unconfined(t, name, uid)
			if details = append(details, report.Detail); report.Outcome == attacker.Succeeded {
				succeeded++
				details = nil
				break
			}
		}
		switch reason := hopeless[guest.Inside()][name]; {
		case details == nil:
		case reason != "":
			t.Logf("%s cannot succeed: %s (%q)", name, reason, details)
		case lacking(details):
			t.Logf("%s cannot succeed: this kernel lacks it (%q)", name, details)
		default:
			t.Errorf("%s fails even unconfined: %q", name, details)
		}
	}
	t.Logf("%d of %d attempts succeed unconfined", succeeded, len(attempts))
	if succeeded < len(attempts)/2 {
		t.Errorf("only %d of %d attempts succeed", succeeded, len(attempts))
	}
}

// testMeeting has two unconfined colluders meet.
func testMeeting(t *testing.T) {
	s := newScene(t)
	s.targets.Scratch = s.shared
	meet := "meet-" + rand.Text()
	var said []byte
	var jobs errgroup.Group
	for _, role := range []string{"giver", "taker"} {
		cmd := exec.CommandContext(t.Context(), program(t), "collude", role, meet)
		cmd.Env = []string{s.targets.Env()}
		jobs.Go(func() error {
			out, err := cmd.Output()
			if role == "taker" {
				said = out
			}
			return err
		})
	}
	must(t, jobs.Wait())
	reports, err := attacker.ReadReports(bytes.NewReader(said))
	must(t, err)
	for _, report := range reports {
		if report.Outcome != attacker.Succeeded && (report.Name != "collude-loopback-v6" || hasIPv6()) {
			t.Errorf("%s: %s: %s", report.Name, report.Outcome, report.Detail)
		}
	}
}

// lacking reports whether all errors say that the kernel, or the machine, does not have the thing at all.
func lacking(details []string) bool {
	return !slices.ContainsFunc(details, func(d string) bool {
		return !slices.ContainsFunc([]error{syscall.ENOSYS, syscall.ENOENT, syscall.ENODEV, syscall.ENXIO, syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT},
			func(e error) bool { return strings.HasSuffix(d, e.Error()) })
	})
}

// unconfined makes one attempt in a mount namespace of its own, so that it does not take the file system from the next one.
func (s *scene) unconfined(t *testing.T, name string, uid uint32) attacker.Report {
	t.Helper()
	args := []string{"one", name}
	if name == "inherited-descriptors" {
		args = []string{"leaks"}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t), args...)
	cmd.Dir = s.targets.Scratch
	cmd.Env = []string{s.targets.Env(), "PATH=/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: unix.CLONE_NEWNS, Credential: &syscall.Credential{Uid: uid, Gid: uid}, Setsid: true,
	}
	if name == "inherited-environment" {
		cmd.Env = append(cmd.Env, secretVariable+"="+s.targets.Token)
	}
	if name == "inherited-descriptors" {
		dir, err := os.Open("/")
		must(t, err)
		defer dir.Close()
		cmd.ExtraFiles = []*os.File{dir}
	}
	out, err := cmd.Output()
	reports, readErr := attacker.ReadReports(bytes.NewReader(out))
	if readErr != nil || len(reports) == 0 {
		return attacker.Report{Name: name, Outcome: attacker.Denied, Detail: strings.TrimSpace(string(out)) + errorText(err)}
	}
	return reports[0]
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// hopeless says of each guest which attempts cannot succeed there even without any confinement, and why. Those that it names of
// guest.Namespaces are made in guest.UML.
var hopeless = map[guest.Mode]map[string]string{
	guest.Namespaces: {
		"clock":                       noTime,
		"clock-by-day":                noTime,
		"clock-rate":                  noTime,
		"control-group-release-agent": "it is in the root of the host's hierarchy alone",
		"core-pattern":                readOnly,
		"overcommit":                  readOnly,
		"scheduling-group":            readOnly,
		"magic-keys":                  readOnly,
		"misc-programs":               readOnly,
		"module-loader":               readOnly,
		"escape-the-oom-killer":       noResource,
		"raise-limits":                noResource,
		"io-ports":                    noRaw,
		"io-privilege-level":          noRaw,
		"map-page-zero":               noRaw,
		"read-kcore":                  noRaw,
		"open-memory":                 noNode,
		"open-disks":                  noNode,
		"open-hypervisor":             noNode,
		"open-input":                  noNode,
		"open-kernel-log":             noNode,
		"open-loop":                   noNode,
		"load-module":                 noModule,
		"load-module-file":            noModule,
		"unload-module":               noModule,
		"read-kernel-addresses":       noLog,
		"read-kernel-log":             noLog,
		"real-time-scheduling":        noRealTime,
		"reboot":                      "it reboots the process namespace, which knows no keys",
		"replace-kernel":              "the kernel may be locked down",
		"x32-calls":                   "few kernels have them",
		"socket-alg":                  noModule,
	},
	guest.UML: {
		"32-bit-calls":                "its kernel takes them for 64-bit calls",
		"control-group-release-agent": "version 2 has none",
		"real-time-scheduling":        noRealTime,
		"unshare-time-namespace":      "its kernel has no time namespaces",
	},
}

// The reasons that several have in common.
const (
	noTime     = "the clock is the host's, and the guest goes without CAP_SYS_TIME"
	readOnly   = "the setting is the host's, and read-only"
	noResource = "the host may go without CAP_SYS_RESOURCE"
	noRaw      = "the guest goes without CAP_SYS_RAWIO"
	noNode     = "the guest has no such node"
	noModule   = "the guest goes without CAP_SYS_MODULE"
	noLog      = "the guest goes without CAP_SYSLOG"
	noRealTime = "its control group has no real-time bandwidth"
)
