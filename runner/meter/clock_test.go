package meter

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cpu.stat", "usage_usec 1500\nuser_usec 1000\n")
	for _, c := range []struct {
		paths CgroupPaths
		want  time.Duration
	}{
		{CgroupPaths{Unified: dir}, 1500 * time.Microsecond},
		{CgroupPaths{Unified: dir, CPU: filepath.Join(dir, "absent")}, 1500 * time.Microsecond},
		{CgroupPaths{Unified: dir, CPU: dir}, 7 * time.Nanosecond},
	} {
		if c.paths.CPU == dir {
			write("cpuacct.usage", "7\n")
		}
		clock, err := OpenClock(c.paths)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := clock.Read(); got != c.want || err != nil {
			t.Errorf("%+v: got %v, %v, want %v", c.paths, got, err, c.want)
		}
		clock.Close()
	}
	if _, err := OpenClock(CgroupPaths{}); err == nil {
		t.Error("opened a clock of nothing")
	}
	write("cpuacct.usage", "many\n")
	clock, err := OpenClock(CgroupPaths{CPU: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer clock.Close()
	if _, err := clock.Read(); err == nil {
		t.Error("read a time that is none")
	}
}
