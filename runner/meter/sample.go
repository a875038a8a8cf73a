package meter

import "time"

// Source is where samples come from.
type Source interface {
	// Sample reads the counters as they are. It may know fewer of them than before: Sample.Known tells.
	Sample() (Sample, error)
	// Accounting names the mechanism for runner.Usage.Accounting.
	Accounting() string
	// Close gives up what the Source holds open.
	Close() error
}

// Field names a value of a Sample. Fields are joined by |.
type Field uint32

// The fields.
const (
	CPU Field = 1 << iota
	Memory
	MemoryPeak
	Unreclaimable
	MemoryFull
	Killed
	IO
	Processes
	ForksRefused
	PressureCPU
	PressureMemory
	PressureIO
	Log
	RefusedSyscalls
	RefusedNetwork
)

// counters are the fields that never go down.
const counters = CPU | MemoryPeak | MemoryFull | Killed | IO | ForksRefused | PressureCPU | PressureMemory | PressureIO |
	Log | RefusedSyscalls | RefusedNetwork

// Sample is one reading. Counters count from the start of what is read, which is the execution's unless said otherwise.
type Sample struct {
	At    time.Duration // since the Meter was started; set by the Meter
	Known Field         // which of the following were read: counters ever, the others now; what is not known is zero

	CPU           time.Duration // counter: user and system time
	Memory        int64         // bytes now; with a cgroup, files in memory count as well
	MemoryPeak    int64         // bytes, the most there ever were: from the kernel, or else of the samples
	Unreclaimable int64         // bytes now that the kernel cannot take back: anonymous and shared memory; read from half of the limit on
	MemoryFull    int64         // counter: how often the limit was reached, which reading files may do as well
	Killed        int64         // counter: processes killed for memory
	IORead        int64         // counter: bytes from block devices
	IOWrite       int64         // counter: bytes to block devices
	Processes     int64         // now, with threads
	ForksRefused  int64         // counter: forks that the limit of processes refused

	// Counters: time in which some process was stalled for want of CPU, and in which all were for want of memory, or I/O
	// (Linux: Documentation/accounting/psi.rst).
	PressureCPU, PressureMemory, PressureIO time.Duration

	Log             int64 // counter: bytes of stdout and stderr
	RefusedSyscalls int64 // counter
	RefusedNetwork  int64 // counter
}

// Knows reports whether all of the fields were read.
func (s Sample) Knows(f Field) bool { return s.Known&f == f }

// set records the value of a field that is one number.
func (s *Sample) set(f Field, v int64) {
	if p := s.value(f); p != nil && v >= 0 {
		*p = v
		s.Known |= f
	}
}

// setTime records the value of a field that is a duration.
func (s *Sample) setTime(f Field, v time.Duration) {
	if p := s.duration(f); p != nil && v >= 0 {
		*p = v
		s.Known |= f
	}
}

// count records what a counter that the driver keeps says; nil counts nothing.
func (s *Sample) count(f Field, counter func() int64) {
	if counter != nil {
		s.set(f, counter())
	}
}

// value returns where the number of a field is; nil if it is none.
func (s *Sample) value(f Field) *int64 {
	switch f {
	case Memory:
		return &s.Memory
	case MemoryPeak:
		return &s.MemoryPeak
	case Unreclaimable:
		return &s.Unreclaimable
	case MemoryFull:
		return &s.MemoryFull
	case Killed:
		return &s.Killed
	case Processes:
		return &s.Processes
	case ForksRefused:
		return &s.ForksRefused
	case Log:
		return &s.Log
	case RefusedSyscalls:
		return &s.RefusedSyscalls
	case RefusedNetwork:
		return &s.RefusedNetwork
	}
	return nil
}

func (s *Sample) duration(f Field) *time.Duration {
	switch f {
	case CPU:
		return &s.CPU
	case PressureCPU:
		return &s.PressureCPU
	case PressureMemory:
		return &s.PressureMemory
	case PressureIO:
		return &s.PressureIO
	}
	return nil
}

// after carries over from the sample before: counters that were not read or went down, and the peak.
func (s *Sample) after(last Sample) {
	for f := CPU; f <= RefusedNetwork; f <<= 1 {
		if counters&f == 0 {
			continue
		}
		if now, before := s.value(f), last.value(f); now != nil {
			*now = max(*now, *before)
		}
		if now, before := s.duration(f), last.duration(f); now != nil {
			*now = max(*now, *before)
		}
	}
	s.IORead, s.IOWrite = max(s.IORead, last.IORead), max(s.IOWrite, last.IOWrite)
	if s.Knows(Memory) {
		s.MemoryPeak = max(s.MemoryPeak, s.Memory)
		s.Known |= MemoryPeak
	}
	s.Known |= last.Known & counters
}

// setIO records what went from and to block devices.
func (s *Sample) setIO(read, written int64) {
	if read >= 0 && written >= 0 {
		s.IORead, s.IOWrite = read, written
		s.Known |= IO
	}
}
