package meter

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CgroupPaths are the directories of one execution's control groups. Empty: there is none. Where version 2 and version 1 both
// have a value, version 2's is taken; so a group of version 2 without controllers, as in the hybrid layout, adds
// CPU time and pressure to what the controllers of version 1 tell.
type CgroupPaths struct {
	Unified string // version 2: cpu.stat, memory.current, io.stat, pids.current, *.pressure
	CPU     string // version 1, controller cpuacct: cpuacct.usage
	Memory  string // version 1, controller memory: memory.usage_in_bytes
	IO      string // version 1, controller blkio: blkio.throttle.io_service_bytes_recursive
	PIDs    string // version 1, controller pids: pids.current
}

// maxCounterFile bounds what is read of one file. The longest is memory.stat, or io.stat with many devices.
const maxCounterFile = 64 << 10

// counterFile is one open file of a group, and what it is read into.
type counterFile struct {
	fd    int
	parse func(text []byte, s *Sample)
}

// cgroupSource reads the files of control groups through descriptors that stay open: a sample opens nothing.
type cgroupSource struct {
	files      []counterFile
	stat       *counterFile // the breakdown of memory, read only when there is much of it
	limit      int64        // bytes, of the group; zero: none
	accounting string
	buf        []byte
}

// counterSpec says which file of which version holds which fields.
type counterSpec struct {
	version int
	dir     string
	name    string
	fields  Field
	parse   func(text []byte, s *Sample)
}

// Cgroup returns a Source that reads control groups. It is an error if there is neither CPU time nor memory to read.
func Cgroup(paths CgroupPaths) (Source, error) {
	c := &cgroupSource{buf: make([]byte, 4<<10)}
	var known Field
	versions := map[int]bool{}
	for _, spec := range counterSpecs(paths) {
		if spec.dir == "" || known&spec.fields == spec.fields {
			continue
		}
		fd, err := openCounter(spec.dir, spec.name)
		if err != nil {
			continue // not there in this kernel, or the controller is not enabled
		}
		c.files = append(c.files, counterFile{fd, spec.parse})
		known |= spec.fields
		if spec.fields&(CPU|Memory|IO|Processes) != 0 {
			versions[spec.version] = true
		}
	}
	if known&(CPU|Memory) == 0 {
		c.Close()
		return nil, fmt.Errorf("read control groups %+v: neither CPU time nor memory is accounted there", paths)
	}
	c.openBreakdown(paths)
	var names []string
	for _, v := range []int{1, 2} {
		if versions[v] {
			names = append(names, fmt.Sprintf("cgroup-v%d", v))
		}
	}
	c.accounting = strings.Join(names, "+")
	return c, nil
}

// counterSpecs lists the files in the order of preference: Documentation/admin-guide/cgroup-v2.rst, then cgroup-v1/*.rst.
func counterSpecs(p CgroupPaths) []counterSpec {
	return []counterSpec{
		{2, p.Unified, "cpu.stat", CPU, func(b []byte, s *Sample) { s.setTime(CPU, micros(keyed(b, "usage_usec"))) }},
		{2, p.Unified, "memory.current", Memory, func(b []byte, s *Sample) { s.set(Memory, number(b)) }},
		{2, p.Unified, "memory.peak", MemoryPeak, func(b []byte, s *Sample) { s.set(MemoryPeak, number(b)) }},
		{2, p.Unified, "memory.events", MemoryFull | Killed, func(b []byte, s *Sample) {
			s.set(MemoryFull, keyed(b, "max"))
			s.set(Killed, keyed(b, "oom_kill"))
		}},
		{2, p.Unified, "io.stat", IO, parseIOStat},
		{2, p.Unified, "pids.current", Processes, func(b []byte, s *Sample) { s.set(Processes, number(b)) }},
		{2, p.Unified, "pids.events", ForksRefused, func(b []byte, s *Sample) { s.set(ForksRefused, keyed(b, "max")) }},
		{2, p.Unified, "cpu.pressure", PressureCPU, func(b []byte, s *Sample) { s.setTime(PressureCPU, stalled(b, "some")) }},
		{2, p.Unified, "memory.pressure", PressureMemory, func(b []byte, s *Sample) { s.setTime(PressureMemory, stalled(b, "full")) }},
		{2, p.Unified, "io.pressure", PressureIO, func(b []byte, s *Sample) { s.setTime(PressureIO, stalled(b, "full")) }},

		{1, p.CPU, "cpuacct.usage", CPU, func(b []byte, s *Sample) { s.setTime(CPU, time.Duration(number(b))) }},
		{1, p.Memory, "memory.usage_in_bytes", Memory, func(b []byte, s *Sample) { s.set(Memory, number(b)) }},
		{1, p.Memory, "memory.max_usage_in_bytes", MemoryPeak, func(b []byte, s *Sample) { s.set(MemoryPeak, number(b)) }},
		{1, p.Memory, "memory.failcnt", MemoryFull, func(b []byte, s *Sample) { s.set(MemoryFull, number(b)) }},
		{1, p.Memory, "memory.oom_control", Killed, func(b []byte, s *Sample) { s.set(Killed, keyed(b, "oom_kill")) }},
		{1, p.IO, "blkio.throttle.io_service_bytes_recursive", IO, parseBlkIO},
		{1, p.IO, "blkio.throttle.io_service_bytes", IO, parseBlkIO},
		{1, p.PIDs, "pids.current", Processes, func(b []byte, s *Sample) { s.set(Processes, number(b)) }},
		{1, p.PIDs, "pids.events", ForksRefused, func(b []byte, s *Sample) { s.set(ForksRefused, keyed(b, "max")) }},
	}
}

// openBreakdown opens the memory.stat of the group that limits memory.
func (c *cgroupSource) openBreakdown(p CgroupPaths) {
	for _, g := range []struct{ dir, limit, anonymous, shared string }{
		{p.Unified, "memory.max", "anon", "shmem"},
		{p.Memory, "memory.limit_in_bytes", "total_rss", "total_shmem"},
	} {
		if g.dir == "" {
			continue
		}
		limit := readNumberOnce(g.dir, g.limit)
		fd, err := openCounter(g.dir, "memory.stat")
		if err != nil {
			continue
		}
		// Version 1 says "no limit" by the largest multiple of the page size.
		if limit > 0 && limit < math.MaxInt64/2 {
			c.limit = limit
		}
		c.stat = &counterFile{fd, func(b []byte, s *Sample) {
			if anonymous := keyed(b, g.anonymous); anonymous >= 0 {
				s.set(Unreclaimable, anonymous+max(keyed(b, g.shared), 0))
			}
		}}
		return
	}
}

func openCounter(dir, name string) (int, error) {
	return unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
}

// readNumberOnce returns the number in a file, or -1.
func readNumberOnce(dir, name string) int64 {
	fd, err := openCounter(dir, name)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	var buf [64]byte
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		return -1
	}
	return number(buf[:n])
}

// Sample implements Source. It fails when the groups are gone.
func (c *cgroupSource) Sample() (Sample, error) {
	var s Sample
	var first error
	for _, f := range c.files {
		if err := c.read(f, &s); err != nil && first == nil {
			first = err
		}
	}
	if c.stat != nil && c.limit > 0 && s.Memory >= c.limit/2 {
		c.read(*c.stat, &s)
	}
	if s.Known == 0 && first != nil {
		return Sample{}, fmt.Errorf("read control groups: %w", first)
	}
	return s, nil
}

// read reads one file from its start: the kernel makes its text anew for each read at offset zero.
func (c *cgroupSource) read(f counterFile, s *Sample) error {
	for {
		n, err := unix.Pread(f.fd, c.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == len(c.buf) && n < maxCounterFile:
			c.buf = make([]byte, 4*n)
			continue
		}
		f.parse(c.buf[:n], s)
		return nil
	}
}

func (c *cgroupSource) Accounting() string { return c.accounting }

// Close implements Source.
func (c *cgroupSource) Close() error {
	for _, f := range c.files {
		unix.Close(f.fd)
	}
	if c.stat != nil {
		unix.Close(c.stat.fd)
	}
	c.files, c.stat = nil, nil
	return nil
}

// number returns the number that text is, or -1.
func number(text []byte) int64 {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// micros turns microseconds into a duration; -1 and what does not fit stay negative.
func micros(n int64) time.Duration {
	if n < 0 || n > math.MaxInt64/int64(time.Microsecond) {
		return -1
	}
	return time.Duration(n) * time.Microsecond
}

// keyed returns the number after key in lines of "key number", or -1.
func keyed(text []byte, key string) int64 {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok && len(rest) > 0 && rest[0] == ' ' {
			return number(rest)
		}
	}
	return -1
}

// stalled returns the total of the line "some …" or "full …" of a pressure file, or -1.
func stalled(text []byte, line string) time.Duration {
	for l := range bytes.Lines(text) {
		rest, ok := bytes.CutPrefix(l, []byte(line+" "))
		if !ok {
			continue
		}
		if _, total, ok := bytes.Cut(rest, []byte("total=")); ok {
			return micros(number(total))
		}
	}
	return -1
}

// parseIOStat sums the devices of "8:0 rbytes=1 wbytes=2 …".
func parseIOStat(text []byte, s *Sample) {
	var read, written int64
	for field := range bytes.FieldsSeq(text) {
		if v, ok := bytes.CutPrefix(field, []byte("rbytes=")); ok {
			read += max(number(v), 0)
		} else if v, ok := bytes.CutPrefix(field, []byte("wbytes=")); ok {
			written += max(number(v), 0)
		}
	}
	s.setIO(read, written)
}

// parseBlkIO sums the devices of "8:0 Read 1", "8:0 Write 2".
func parseBlkIO(text []byte, s *Sample) {
	var read, written int64
	for line := range bytes.Lines(text) {
		if _, v, ok := bytes.Cut(line, []byte(" Read ")); ok {
			read += max(number(v), 0)
		} else if _, v, ok := bytes.Cut(line, []byte(" Write ")); ok {
			written += max(number(v), 0)
		}
	}
	s.setIO(read, written)
}
