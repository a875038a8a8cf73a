package meter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxTree bounds how many processes of a tree are read for one sample. Of a larger tree the youngest are not seen.
const maxTree = 4096

// clockTick is what /proc counts CPU time in: USER_HZ is 100 on every architecture that Go runs on (proc_pid_stat(5)).
const clockTick = 10 * time.Millisecond

// processSource adds up a process and its descendants from /proc. It is the last resort: time is counted in steps of 10 ms, a
// process that lives between two samples is seen only once its parent has waited for it, and one whose parent died is
// lost unless the first process is the init of a process namespace. Memory is resident pages, those that processes share
// counted for each.
type processSource struct {
	root    string // "/proc"
	pid     int
	started uint64 // start time of pid: another process with the same number is not taken for it
	buf     []byte
	err     error // why pid could not be read at first
}

// Process returns a Source that reads a process and all its descendants from /proc. The process must not have been waited for.
func Process(pid int) Source { return newProcessSource("/proc", pid) }

func newProcessSource(root string, pid int) *processSource {
	p := &processSource{root: root, pid: pid, buf: make([]byte, 4<<10)}
	stat, err := p.stat(pid)
	p.started, p.err = stat.started, err
	return p
}

func (p *processSource) Accounting() string { return "rusage" }
func (p *processSource) Close() error       { return nil }

// Sample implements Source. It fails when the first process is gone.
func (p *processSource) Sample() (Sample, error) {
	if p.err != nil {
		return Sample{}, p.err
	}
	first, err := p.stat(p.pid)
	if err != nil {
		return Sample{}, err
	}
	if first.started != p.started {
		return Sample{}, fmt.Errorf("read process %d: it is another one now", p.pid)
	}
	tree, err := p.tree(first)
	if err != nil {
		return Sample{}, err
	}
	var s Sample
	var read, written int64
	for _, process := range tree {
		s.CPU += process.cpu
		s.Memory += process.memory
		s.Processes += process.threads
		r, w := p.io(process.pid)
		read, written = read+r, written+w
	}
	s.Known = CPU | Memory | Processes | IO
	s.IORead, s.IOWrite = read, written
	return s, nil
}

// processStat is what proc_pid_stat(5) says of one process.
type processStat struct {
	pid, parent int
	cpu         time.Duration // of itself and of the children it waited for
	memory      int64         // bytes resident
	threads     int64
	started     uint64
}

func (p *processSource) stat(pid int) (processStat, error) {
	text, err := p.read(filepath.Join(p.root, strconv.Itoa(pid), "stat"))
	if err != nil {
		return processStat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	s, err := parseStat(text)
	if err != nil {
		return processStat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return s, nil
}

// parseStat reads the line. The name in parentheses, which the process chooses, may hold anything: it ends at the last one.
func parseStat(text []byte) (processStat, error) {
	end := bytes.LastIndexByte(text, ')')
	start := bytes.IndexByte(text, ' ')
	if end < 0 || start < 0 || start > end {
		return processStat{}, errors.New("its stat file has no name in parentheses")
	}
	fields := bytes.Fields(text[end+1:]) // fields[0] is field 3, the state
	const first = 3
	if len(fields) < 25-first {
		return processStat{}, fmt.Errorf("its stat file has %d fields", len(fields)+first-1)
	}
	at := func(field int) int64 { return max(number(fields[field-first]), 0) }
	own := at(14) + at(15) // utime, stime
	waited := at(16) + at(17)
	return processStat{
		pid:     int(number(text[:start])),
		parent:  int(at(4)),
		cpu:     time.Duration(own+waited) * clockTick,
		threads: at(20),
		started: uint64(at(22)),
		memory:  at(24) * int64(os.Getpagesize()),
	}, nil
}

// tree lists first and its descendants.
func (p *processSource) tree(first processStat) ([]processStat, error) {
	if list, ok := p.byChildren(first); ok {
		return list, nil
	}
	return p.byParents(first)
}

// byChildren follows /proc/PID/task/TID/children, which kernels with CONFIG_PROC_CHILDREN have.
func (p *processSource) byChildren(first processStat) ([]processStat, bool) {
	list := []processStat{first}
	for i := 0; i < len(list) && len(list) < maxTree; i++ {
		dir := filepath.Join(p.root, strconv.Itoa(list[i].pid), "task")
		threads := []string{strconv.Itoa(list[i].pid)}
		if list[i].threads > 1 {
			threads = names(dir)
		}
		for _, thread := range threads {
			text, err := p.read(filepath.Join(dir, thread, "children"))
			if err != nil {
				if i == 0 && errors.Is(err, unix.ENOENT) && thread == strconv.Itoa(first.pid) {
					return nil, false
				}
				continue // it ended
			}
			for field := range bytes.FieldsSeq(bytes.Clone(text)) {
				if child, err := p.stat(int(number(field))); err == nil {
					list = append(list, child)
				}
			}
		}
	}
	return list, true
}

// byParents reads every process of the machine.
func (p *processSource) byParents(first processStat) ([]processStat, error) {
	children := map[int][]processStat{}
	for _, name := range names(p.root) {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, err := p.stat(pid); err == nil {
			children[s.parent] = append(children[s.parent], s)
		}
	}
	list := []processStat{first}
	for i := 0; i < len(list) && len(list) < maxTree; i++ {
		list = append(list, children[list[i].pid]...)
	}
	return list, nil
}

func names(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	list, _ := f.Readdirnames(-1)
	return list
}

// io returns the bytes from and to block devices, zero if this process may not know.
func (p *processSource) io(pid int) (read, written int64) {
	text, err := p.read(filepath.Join(p.root, strconv.Itoa(pid), "io"))
	if err != nil {
		return 0, 0
	}
	return max(keyed(text, "read_bytes:"), 0), max(keyed(text, "write_bytes:"), 0)
}

// read returns a small file's text, which is good until the next call.
func (p *processSource) read(name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, p.buf)
		if !errors.Is(err, unix.EINTR) {
			return p.buf[:max(n, 0)], err
		}
	}
}
