package meter

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"arch.network/runner"
)

func TestModel(t *testing.T) {
	m := &Model{CoreWatts: 4, GiBWatts: 0.5}
	if m.Energy() != nil {
		t.Error("energy is known without a sample")
	}
	m.Add(Sample{}, Sample{At: 10 * time.Second, CPU: 5 * time.Second, Memory: 4 << 30, Known: CPU | Memory})
	want := &runner.Energy{Joules: 4*5 + 0.5*2*10, Source: "model: 4 W per busy processor, 0.5 W per GiB of memory"}
	if diff := cmp.Diff(want, m.Energy()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRAPL(t *testing.T) {
	const powercap = "sys/class/powercap/"
	files := map[string]string{
		"proc/stat":                     "cpu  100 0 100 5000 0 0 0 0 0 0\ncpu0 1\n",
		powercap + "intel-rapl/enabled": "1\n",
		powercap + "intel-rapl:0/name":  "package-0\n", powercap + "intel-rapl:0/energy_uj": "9000000\n", powercap + "intel-rapl:0/max_energy_range_uj": "10000000\n",
		powercap + "intel-rapl:0:0/name": "core\n", powercap + "intel-rapl:0:0/energy_uj": "1\n", powercap + "intel-rapl:0:0/max_energy_range_uj": "10000000\n",
		powercap + "intel-rapl:0:1/name": "dram\n", powercap + "intel-rapl:0:1/energy_uj": "100\n", powercap + "intel-rapl:0:1/max_energy_range_uj": "10000000\n",
		powercap + "intel-rapl:1/name": "psys\n", powercap + "intel-rapl:1/energy_uj": "1\n",
	}
	root := group(t, files)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, ok := OpenEnergy(root).(*RAPL)
	if !ok {
		t.Fatal("the counters were not found")
	}
	if r.Energy() != nil {
		t.Error("energy is known without a sample")
	}
	// The package used 3 J, past the end of its counter; memory 1 J. The execution had one of two seconds of CPU time.
	write(powercap+"intel-rapl:0/energy_uj", "2000000\n")
	write(powercap+"intel-rapl:0:1/energy_uj", "1000100\n")
	write("proc/stat", "cpu  200 0 200 5000 0 0 0 0 0 0\n")
	r.Add(Sample{Known: CPU}, Sample{At: 2 * time.Second, CPU: time.Second, Known: CPU})
	want := &runner.Energy{Joules: 2, Source: "rapl"}
	if diff := cmp.Diff(want, r.Energy(), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A step too short to be read is read in the end.
	write(powercap+"intel-rapl:0/energy_uj", "3000000\n")
	write("proc/stat", "cpu  201 0 200 5000 0 0 0 0 0 0\n")
	r.Add(Sample{At: 2 * time.Second, CPU: time.Second, Known: CPU}, Sample{At: 2010 * time.Millisecond, CPU: 1010 * time.Millisecond, Known: CPU})
	if got := r.Energy().Joules; got < 2.999 || got > 3.001 {
		t.Errorf("%v J, want 3", got)
	}

	write(powercap+"intel-rapl:0/energy_uj", "not a number\n")
	if _, ok := OpenEnergy(root).(*Model); !ok {
		t.Error("a counter that cannot be read is used")
	}
	if _, ok := OpenEnergy(t.TempDir()).(*Model); !ok {
		t.Error("a machine without counters has some")
	}
}

func TestShare(t *testing.T) {
	tests := []struct {
		name           string
		own, all, wall time.Duration
		want           float64
	}{
		{"nothing", 0, time.Second, time.Second, 0},
		{"half", time.Second, 2 * time.Second, time.Second, 0.5},
		{"more than all, for the machine's is behind", time.Second, time.Millisecond, time.Second, 1},
		{"no tick yet", time.Millisecond, 0, time.Millisecond, 1 / float64(runtime.NumCPU())},
	}
	for _, test := range tests {
		if got := share(test.own, test.all, test.wall); got < test.want-1e-9 || got > test.want+1e-9 {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
