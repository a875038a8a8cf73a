package meter

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"arch.network/runner"
)

// EnergyMeter tells how much energy an execution used.
type EnergyMeter interface {
	// Add accounts for the time between two samples.
	Add(before, now Sample)
	// Energy is the sum so far; nil if nothing could be measured.
	Energy() *runner.Energy
}

// Model estimates energy from CPU time and memory, where there is no counter. What the machine uses when it is idle is nobody's.
//
//	joules = CoreWatts × CPU seconds + GiBWatts × GiB × seconds
type Model struct {
	CoreWatts float64 // watts of a busy processor (hardware thread)
	GiBWatts  float64 // watts of a GiB of memory in use

	joules float64
	known  bool
}

// NewModel returns the default model. Its parameters are those of the Cloud Carbon Footprint methodology
// (https://www.cloudcarbonfootprint.org/docs/methodology/, "Compute" and "Memory"): 0.74 W for an idle and 3.5 W for a busy virtual
// processor of a server, so 2.76 W for the work; 0.392 W for a GB of memory, 0.421 W for a GiB.
func NewModel() *Model { return &Model{CoreWatts: 3.5 - 0.74, GiBWatts: 0.421} }

// Add implements EnergyMeter. Memory counts as the mean of both samples.
func (m *Model) Add(before, now Sample) {
	if now.Knows(CPU) {
		m.known = true
	}
	gib := float64(before.Memory+now.Memory) / 2 / (1 << 30)
	m.joules += m.CoreWatts*(now.CPU-before.CPU).Seconds() + m.GiBWatts*gib*(now.At-before.At).Seconds()
}

// Energy implements EnergyMeter.
func (m *Model) Energy() *runner.Energy {
	if !m.known {
		return nil
	}
	return &runner.Energy{Joules: m.joules, Source: fmt.Sprintf("model: %.3g W per busy processor, %.3g W per GiB of memory", m.CoreWatts, m.GiBWatts)}
}

// RAPL reads the energy counters of processor packages and memory (Linux: Documentation/power/powercap/powercap.rst).
//
// They count the whole machine. An execution is given the share that its CPU time has in that of all processes, at most
// all of it; so it also bears its share of what the machine uses when idle.
type RAPL struct {
	domains []domain
	stat    string // "/proc/stat"
	busy    time.Duration
	joules  float64
	known   bool
	// What is accounted for up to from; to is the last sample.
	from, to Sample
}

// domain is one counter.
type domain struct {
	file  string
	wraps uint64 // microjoules after which it starts again at zero
	last  uint64
}

// OpenEnergy returns RAPL if its counters can be read below root ("/"), the default Model otherwise.
func OpenEnergy(root string) EnergyMeter {
	if r := openRAPL(root); r != nil {
		return r
	}
	return NewModel()
}

// openRAPL takes the packages, and of their parts only memory, which the package does not include. "psys" includes both.
func openRAPL(root string) *RAPL {
	dir := filepath.Join(root, "sys/class/powercap")
	r := &RAPL{stat: filepath.Join(root, "proc/stat")}
	list := names(dir)
	slices.Sort(list)
	for _, name := range list {
		if !strings.HasPrefix(name, "intel-rapl:") {
			continue
		}
		kind, err := readText(filepath.Join(dir, name, "name"))
		kind = strings.TrimSpace(kind)
		if err != nil || !strings.HasPrefix(kind, "package-") && kind != "dram" {
			continue
		}
		d := domain{file: filepath.Join(dir, name, "energy_uj")}
		now, ok := readCounter(d.file)
		if !ok {
			return nil // readable by root alone since Linux 5.10
		}
		d.last = now
		d.wraps, _ = readCounter(filepath.Join(dir, name, "max_energy_range_uj"))
		r.domains = append(r.domains, d)
	}
	busy, ok := busyTime(r.stat)
	if len(r.domains) == 0 || !ok {
		return nil
	}
	r.busy = busy
	return r
}

func readCounter(name string) (uint64, bool) {
	data, err := os.ReadFile(name)
	n := number(data)
	return uint64(n), err == nil && n >= 0
}

// busyTime returns the CPU time of all processes since the machine started: user, nice, system, irq, softirq (proc_stat(5)).
func busyTime(name string) (time.Duration, bool) {
	text, err := readText(name)
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, false
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7} {
		ticks += max(number([]byte(fields[i])), 0)
	}
	return time.Duration(ticks) * clockTick, true
}

// raplStep is how often the counters are read at most: they and /proc/stat are too coarse for more.
const raplStep = 100 * time.Millisecond

// Add implements EnergyMeter.
func (r *RAPL) Add(before, now Sample) {
	if !now.Knows(CPU) {
		return
	}
	if !r.known {
		r.known, r.from = true, before
	}
	r.to = now
	if now.At-r.from.At >= raplStep {
		r.account()
	}
}

// account reads the counters for the time since they were read last.
func (r *RAPL) account() {
	var used uint64
	for i := range r.domains {
		d := &r.domains[i]
		value, ok := readCounter(d.file)
		if !ok {
			return
		}
		used += d.advance(value)
	}
	busy, ok := busyTime(r.stat)
	if !ok {
		return
	}
	r.joules += float64(used) / 1e6 * share(r.to.CPU-r.from.CPU, busy-r.busy, r.to.At-r.from.At)
	r.busy, r.from = busy, r.to
}

// advance returns how much was used since the last reading.
func (d *domain) advance(value uint64) uint64 {
	used := value - d.last
	if value < d.last {
		used = d.wraps - min(d.last, d.wraps) + value
	}
	d.last = value
	return used
}

// share is the execution's part of all CPU time. The machine's is counted in ticks and may lag behind.
func share(own, all, wall time.Duration) float64 {
	if own <= 0 {
		return 0
	}
	if most := wall * time.Duration(runtime.NumCPU()); all <= 0 && most > 0 {
		all = most
	}
	return min(1, own.Seconds()/max(all.Seconds(), own.Seconds()))
}

// Energy implements EnergyMeter.
func (r *RAPL) Energy() *runner.Energy {
	if !r.known {
		return nil
	}
	if r.to.At > r.from.At {
		r.account()
	}
	return &runner.Energy{Joules: r.joules, Source: "rapl"}
}
