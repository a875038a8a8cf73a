package namespace

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// watchInterval is the time between two looks at memory and processes where the kernel does not keep the limit. At
// 50 ms a process that touches 2 GiB a second overshoots by 100 MiB.
const watchInterval = 50 * time.Millisecond

// watchdog counts the memory and the processes of a confinement from inside, and kills them above a limit.
type watchdog struct {
	memory    int64 // bytes; zero: no limit
	processes int   // zero: no limit
	kill      func()
	sockets   func() (int64, error) // bytes that wait in sockets; nil: not known

	mu       sync.Mutex // guards the rest
	peak     int64      // bytes
	exceeded *ending    // the limit that was passed
}

// run looks until the process ends.
func (w *watchdog) run(list func() ([]int, error)) {
	if w.memory == 0 && w.processes == 0 {
		return
	}
	for range time.Tick(watchInterval) {
		pids, err := list()
		if err != nil {
			continue // out of descriptors or memory for a moment: the next look will tell
		}
		if w.look(pids) {
			w.kill()
		}
	}
}

// look takes one sample and reports whether a limit is passed.
func (w *watchdog) look(pids []int) bool {
	var memory int64
	var threads int
	for _, pid := range pids {
		memory += privateMemory(pid)
		if w.processes > 0 {
			threads += countThreads(pid)
		}
	}
	if w.sockets != nil && w.memory > 0 {
		if waiting, err := w.sockets(); err == nil {
			memory += waiting
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peak = max(w.peak, memory)
	switch {
	case w.exceeded != nil:
	case w.memory > 0 && memory > w.memory:
		w.exceeded = &ending{Reason: runner.ReasonOutOfMemory, Detail: fmt.Sprintf("memory: more than %d bytes", w.memory)}
	case w.processes > 0 && threads > w.processes:
		w.exceeded = &ending{Reason: runner.ReasonLimit, Detail: fmt.Sprintf("processes: more than %d", w.processes)}
	}
	return w.exceeded != nil
}

// verdict changes e if a limit was passed, and adds the highest sample.
func (w *watchdog) verdict(e ending) ending {
	w.mu.Lock()
	defer w.mu.Unlock()
	e.MemoryPeak = w.peak
	if w.exceeded != nil {
		e.Reason, e.Detail, e.Exit, e.Signal = w.exceeded.Reason, w.exceeded.Detail, 0, ""
	}
	return e
}

// privateMemory returns the resident bytes of pid that no file backs (proc_pid_statm(5)); zero if it is gone.
func privateMemory(pid int) int64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 3 {
		return 0
	}
	resident, _ := strconv.ParseInt(fields[1], 10, 64)
	shared, _ := strconv.ParseInt(fields[2], 10, 64)
	return (resident - shared) * int64(os.Getpagesize())
}

func countThreads(pid int) int {
	f := statFields(pid)
	if len(f) < 18 {
		return 0
	}
	n, _ := strconv.Atoi(f[17]) // num_threads, field 20
	return n
}

// statFields returns the fields of /proc/PID/stat from the third on, behind the name, which may hold anything.
func statFields(pid int) []string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	return strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
}

// others lists the processes of this process namespace but the first one.
func others() ([]int, error) {
	pids, err := allProcesses()
	if err != nil {
		return nil, err
	}
	if len(pids) > 0 && pids[0] == 1 {
		pids = pids[1:]
	}
	return pids, nil
}

// allProcesses lists what /proc shows, in the order of the ids.
func allProcesses() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// warmThreads makes n threads and leaves them to the runtime, which then has no reason to make more. A new one could
// take the process id that a command is to get; and once RLIMIT_NPROC is in force and the commands have used it
// up, no more could be made, and the first process would die of that.
func warmThreads(n int) {
	var ready, hold, done sync.WaitGroup
	hold.Add(1)
	for range n {
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread() // so that no two of them share a thread
			defer runtime.UnlockOSThread()
			ready.Done()
			hold.Wait()
		})
	}
	ready.Wait()
	hold.Done()
	done.Wait()
}

// limitProcesses sets RLIMIT_NPROC to n on top of the threads that this process has. In a user namespace the kernel
// counts only what runs in it (since Linux 5.14).
func limitProcesses(n int) error {
	limit := uint64(n + countThreads(os.Getpid()))
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &have); err != nil {
		return err
	}
	limit = min(limit, have.Max)
	return unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: limit, Max: limit})
}
