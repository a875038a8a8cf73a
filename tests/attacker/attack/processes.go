package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// processes try to reach other processes.
func processes() []attempt {
	return []attempt{
		{"ptrace-attach", "process", func(attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict {
				n, _ := strconv.Atoi(pid)
				if n == 1 { // stopping the first process would stop the control as well
					_, err := call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1, 0, 0)
					return judge(err, "the first process is traced")
				}
				err := onThread(func() error {
					if _, err := call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(n), 0, 0); err != nil {
						return err
					}
					return nil
				})
				return judge(err, "it is traced")
			})
		}},
		{"read-other-memory", "process", func(attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict {
				f, err := os.Open("/proc/" + pid + "/mem")
				if err == nil {
					f.Close()
				}
				return judge(err, "its memory was opened")
			})
		}},
		{"read-other-memory-directly", "process", readVM},
		{"read-other-environment", "process", func(attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict { return readSome("/proc/" + pid + "/environ") })
		}},
		{"read-other-maps", "process", func(attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict { return readSome("/proc/" + pid + "/maps") })
		}},
		{"see-victim", "process", func(t attacker.Targets) verdict {
			if t.Victim == 0 {
				return notApplicable("no target")
			}
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", t.Victim))
			if err == nil && !bytes.Contains(line, []byte(t.Token)) {
				err = fmt.Errorf("process %d is another one", t.Victim)
			}
			return judge(err, "its command line is seen")
		}},
		{"steal-descriptor", "process", func(attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict {
				n, _ := strconv.Atoi(pid)
				fd, err := unix.PidfdOpen(n, 0)
				if err == nil {
					_, err = unix.PidfdGetfd(fd, 0, 0)
				}
				return judge(err, "its descriptor 0")
			})
		}},
		{"compare-processes", "process", func(attacker.Targets) verdict {
			const kcmpVM = 1
			return eachProcess(func(pid string) verdict {
				n, _ := strconv.Atoi(pid)
				return judgeCall(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(n), kcmpVM, 0, 0)
			})
		}},
		{"signal-victim", "process", func(t attacker.Targets) verdict {
			return onVictim(t, func(pid int) error { return unix.Kill(pid, unix.SIGUSR1) })
		}},
		{"signal-victim-by-descriptor", "process", func(t attacker.Targets) verdict {
			return onVictim(t, func(pid int) error {
				fd, err := unix.PidfdOpen(pid, 0)
				if err != nil {
					return err
				}
				return unix.PidfdSendSignal(fd, unix.SIGUSR1, nil, 0)
			})
		}},
		{"slow-victim", "process", func(t attacker.Targets) verdict {
			return onVictim(t, func(pid int) error { return unix.Setpriority(unix.PRIO_PROCESS, pid, 19) })
		}},
		{"pin-victim", "process", func(t attacker.Targets) verdict {
			return onVictim(t, func(pid int) error {
				var all unix.CPUSet
				if err := unix.SchedGetaffinity(pid, &all); err != nil {
					return err
				}
				return unix.SchedSetaffinity(pid, &all)
			})
		}},
		{"limit-victim", "process", func(t attacker.Targets) verdict {
			return onVictim(t, func(pid int) error {
				var now unix.Rlimit
				if err := unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &now); err != nil {
					return err
				}
				return unix.Prlimit(pid, unix.RLIMIT_CORE, &now, nil)
			})
		}},
		{"signal-all", "process", signalAll},
		{"escape-the-oom-killer", "process", func(attacker.Targets) verdict {
			return judge(os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0), "others are killed first")
		}},
		{"choose-who-is-killed", "process", func(attacker.Targets) verdict {
			return eachProcess(func(pid string) verdict { return openForWriting("/proc/" + pid + "/oom_score_adj") })
		}},
	}
}

// readVM reads a little of each process's program.
func readVM(attacker.Targets) verdict {
	return eachProcess(func(pid string) verdict {
		n, _ := strconv.Atoi(pid)
		start := mappingOf(pid)
		buffer := make([]byte, 16)
		local := []unix.Iovec{{Base: &buffer[0], Len: uint64(len(buffer))}}
		got, err := unix.ProcessVMReadv(n, local, []unix.RemoteIovec{{Base: start, Len: len(buffer)}}, 0)
		return judge(err, fmt.Sprintf("%d bytes at %#x", got, start))
	})
}

// mappingOf returns where a process has its first mapping, if that can be seen, or where programs usually have it.
func mappingOf(pid string) uintptr {
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	var start uintptr
	if err == nil {
		fmt.Sscanf(string(maps), "%x-", &start)
	}
	if start == 0 {
		start = 0x400000
	}
	return start
}

// onVictim does something to the victim. If another process has its number here, nothing is done.
func onVictim(t attacker.Targets, act func(pid int) error) verdict {
	if t.Victim == 0 {
		return notApplicable("no target")
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", t.Victim))
	if err == nil && !bytes.Contains(line, []byte(t.Token)) {
		return deniedf("process %d is another one here", t.Victim)
	}
	return judge(act(t.Victim), "the kernel did it") // the victim's own account of it is looked at as well
}

// signalAll sends a harmless signal to all processes that the kernel lets it, and sees whether there were any.
func signalAll(t attacker.Targets) verdict {
	if t.Victim == 0 {
		return notApplicable("no target")
	}
	for _, pid := range strangers() {
		n, _ := strconv.Atoi(pid)
		if n != 1 && syscall.Kill(n, 0) == nil {
			return succeeded("process %d can be signalled", n)
		}
	}
	return deniedf("no other process can be signalled")
}
