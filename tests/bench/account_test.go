package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metering "arch.network/runner/meter"
)

// account returns a clock of the CPU time of this process and of all that it starts from now on, in a control group made for that. What
// getrusage(2) tells is less: a process whose parent ended before it, as bubblewrap's does, is counted by nobody. Where no group can be
// made it is getrusage's all the same, and said so.
func account(b *testing.B) func() time.Duration {
	b.Helper()
	for _, controller := range []string{"cpuacct", ""} {
		dir, home, err := ownGroup(controller)
		if err != nil {
			continue
		}
		paths := metering.CgroupPaths{CPU: dir}
		if controller == "" {
			paths = metering.CgroupPaths{Unified: dir}
		}
		clock, err := metering.OpenClock(paths)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
		}
		if err != nil {
			os.Remove(dir)
			continue
		}
		b.Cleanup(func() {
			clock.Close()
			os.WriteFile(filepath.Join(home, "cgroup.procs"), []byte("0"), 0)
			for range 100 { // whom nobody waited for may still be ending
				if os.Remove(dir) == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		return func() time.Duration {
			t, err := clock.Read()
			if err != nil {
				b.Fatal(err)
			}
			return t
		}
	}
	b.Log("no control group can be made: processes whose parent did not wait for them are not counted")
	return func() time.Duration { return treeCPU(b) }
}

// ownGroup makes a group below this process's own in the hierarchy of a controller of version 1, or, for "", of version 2.
func ownGroup(controller string) (dir, home string, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] != controller {
			continue
		}
		home = filepath.Join("/sys/fs/cgroup", controller, fields[2])
		dir = filepath.Join(home, fmt.Sprintf("bench-%d", os.Getpid()))
		return dir, home, os.Mkdir(dir, 0o755)
	}
	return "", "", fmt.Errorf("no hierarchy of %q", controller)
}
