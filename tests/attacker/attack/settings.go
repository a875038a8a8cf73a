package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// settings try to change how the machine is set.
func settings() []attempt {
	proc := func(name, path string) attempt {
		return attempt{name, "setting", func(attacker.Targets) verdict { return rewrite(path) }}
	}
	return []attempt{
		proc("core-pattern", "/proc/sys/kernel/core_pattern"),
		proc("overcommit", "/proc/sys/vm/overcommit_memory"),
		proc("module-loader", "/proc/sys/kernel/modprobe"),
		proc("forwarding", "/proc/sys/net/ipv4/ip_forward"),
		proc("scheduling-group", "/proc/sys/kernel/sched_autogroup_enabled"),
		proc("misc-programs", "/proc/sys/fs/binfmt_misc/status"),
		{"any-kernel-setting", "setting", func(attacker.Targets) verdict { return anyWritable("/proc/sys") }},
		{"any-system-attribute", "setting", func(attacker.Targets) verdict { return anyWritable("/sys") }},
		{"magic-keys", "setting", func(attacker.Targets) verdict {
			if masked("/proc/sysrq-trigger") {
				return deniedf("it is covered")
			}
			return judge(os.WriteFile("/proc/sysrq-trigger", []byte("h"), 0), "the kernel wrote its help")
		}},
		{"host-name", "setting", func(attacker.Targets) verdict {
			name, _ := os.Hostname()
			return judge(unix.Sethostname([]byte(name)), "set")
		}},
		{"domain-name", "setting", func(attacker.Targets) verdict { return judge(unix.Setdomainname([]byte("attack")), "set") }},
		{"clock", "setting", func(attacker.Targets) verdict {
			now := unix.NsecToTimespec(time.Now().UnixNano())
			return judge(unix.ClockSettime(unix.CLOCK_REALTIME, &now), "set")
		}},
		{"clock-by-day", "setting", func(attacker.Targets) verdict {
			now := unix.NsecToTimeval(time.Now().UnixNano())
			return judge(unix.Settimeofday(&now), "set")
		}},
		{"clock-rate", "setting", func(attacker.Targets) verdict {
			var now unix.Timex
			if _, err := unix.Adjtimex(&now); err != nil {
				return denied(err)
			}
			now.Modes = unix.ADJ_TICK
			_, err := unix.Adjtimex(&now)
			return judge(err, "set, to what it was")
		}},
		{"control-group-make", "control-group", func(attacker.Targets) verdict {
			return eachGroup(func(dir string) error {
				name := filepath.Join(dir, "attack")
				if err := os.Mkdir(name, 0o755); err != nil {
					return err
				}
				return os.Remove(name)
			})
		}},
		{"control-group-leave", "control-group", func(attacker.Targets) verdict {
			return eachGroup(func(dir string) error {
				f, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
				if err == nil {
					f.Close()
				}
				return err
			})
		}},
		{"control-group-limits", "control-group", func(attacker.Targets) verdict {
			return eachGroup(func(dir string) error {
				err := error(fs.ErrNotExist)
				for _, name := range []string{"memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max", "cpu.cfs_quota_us"} {
					f, openErr := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
					if openErr == nil {
						return f.Close()
					}
					err = openErr
				}
				return err
			})
		}},
		{"control-group-release-agent", "control-group", func(attacker.Targets) verdict {
			return eachGroup(func(dir string) error {
				f, err := os.OpenFile(filepath.Join(dir, "release_agent"), os.O_WRONLY, 0)
				if err == nil {
					f.Close()
				}
				return err
			})
		}},
	}
}

// masked reports whether something of no effect covers a file of /proc.
func masked(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// rewrite writes to a setting what it holds.
func rewrite(path string) verdict {
	if masked(path) {
		return deniedf("it is covered")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return denied(err)
	}
	return judge(os.WriteFile(path, data, 0), "set, to what it was")
}

// anyWritable opens settings for writing, without writing.
func anyWritable(root string) verdict {
	found := ""
	seen := 0
	filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir
		}
		if d.Type().IsRegular() {
			if seen++; seen > 20000 || found != "" {
				return fs.SkipAll
			}
			if f, err := os.OpenFile(p, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
				f.Close()
				found = p
			}
		}
		return nil
	})
	if found != "" {
		return succeeded("%s was opened for writing", found)
	}
	return deniedf("none of %d files", seen)
}

// eachGroup tries something with each directory of control groups that is seen, until it succeeds.
func eachGroup(try func(dir string) error) verdict {
	last := deniedf("no control groups are seen")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	points := []string{"/sys/fs/cgroup"}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); strings.HasPrefix(after, "cgroup") && len(f) > 4 {
			points = append(points, f[4])
		}
	}
	for _, point := range points {
		filepath.WalkDir(point, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return fs.SkipDir
			}
			if d.IsDir() {
				if last = judge(try(p), p); last.outcome == attacker.Succeeded {
					return fs.SkipAll
				}
			}
			return nil
		})
		if last.outcome == attacker.Succeeded {
			break
		}
	}
	return last
}
