package meter

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// statLine makes a line of proc_pid_stat(5).
func statLine(pid int, name string, parent, ticks, waited, threads, start, pages int) string {
	return fmt.Sprintf("%d (%s) S %d 1 1 0 -1 0 0 0 0 0 %d 0 %d 0 20 0 %d 0 %d 1000 %d 18446744073709551615 0 0\n", pid, name, parent, ticks, waited, threads, start, pages)
}

func TestProcessTree(t *testing.T) {
	files := map[string]string{
		"10/stat":             statLine(10, "a b) S 1 (", 1, 100, 20, 1, 500, 2),
		"10/io":               "rchar: 1\nwchar: 2\nread_bytes: 4096\nwrite_bytes: 8192\n",
		"11/stat":             statLine(11, "child", 10, 5, 0, 3, 501, 3),
		"12/stat":             statLine(12, "grandchild", 11, 5, 0, 1, 502, 1),
		"13/stat":             statLine(13, "stranger", 1, 999, 0, 9, 503, 99),
		"14/stat":             "14 (cut off) S 10 1",
		"10/task/10/children": "11 14 15 ",
		"11/task/11/children": "",
		"11/task/19/children": "12 ",
		"12/task/12/children": "",
		"self/x":              "",
	}
	page := int64(os.Getpagesize())
	want := Sample{
		Known: CPU | Memory | Processes | IO, CPU: 1300 * time.Millisecond, Memory: 6 * page, Processes: 5, IORead: 4096, IOWrite: 8192,
	}
	for _, test := range []string{"with lists of children", "without"} {
		t.Run(test, func(t *testing.T) {
			root := group(t, files)
			if test == "without" {
				if err := os.RemoveAll(root + "/10/task"); err != nil {
					t.Fatal(err)
				}
			}
			src := newProcessSource(root, 10)
			got, err := src.Sample()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			os.WriteFile(root+"/10/stat", []byte(statLine(10, "another", 1, 1, 1, 1, 900, 1)), 0o644)
			if _, err := src.Sample(); err == nil || !strings.Contains(err.Error(), "another one") {
				t.Errorf("got error %v for a number that was given again", err)
			}
		})
	}
	if _, err := newProcessSource(t.TempDir(), 10).Sample(); err == nil {
		t.Error("no error for a process that is not there")
	}
}

func TestRealProcess(t *testing.T) {
	c := exec.CommandContext(t.Context(), "sh", "-c", `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sh -c 'echo ready; read x' ; :`)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	m := Start(Process(c.Process.Pid), Options{})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	got := m.Stop()
	in.Close()
	c.Wait()
	if got.Last.Processes != 2 || got.Usage.CPU < 20*time.Millisecond || got.Usage.MemoryPeak < 100_000 || got.Usage.Accounting != "rusage" {
		t.Errorf("got %+v", got)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add(statLine(1, "init", 0, 1, 2, 3, 4, 5))
	f.Add(statLine(1, ") S 1 1 1 (", 0, 1, 2, 3, 4, 5))
	f.Add("1 () ")
	f.Add(")( ")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseStat([]byte(text))
		if err == nil && (s.threads < 0 || s.parent < 0) {
			t.Errorf("%q: %+v", text, s)
		}
	})
}

func FuzzCounterFiles(f *testing.F) {
	for _, text := range []string{psi, "usage_usec 1\nx", "8:0 rbytes=1 wbytes=-2", "8:0 Read 9223372036854775807\n8:1 Read 1\n", "99999999999999999999"} {
		f.Add(text)
	}
	specs := counterSpecs(CgroupPaths{})
	f.Fuzz(func(t *testing.T, text string) {
		for _, spec := range specs {
			var s Sample
			spec.parse([]byte(text), &s)
			if s.CPU < 0 || s.Memory < 0 || s.IORead < 0 || s.IOWrite < 0 || s.PressureIO < 0 || s.Killed < 0 {
				t.Errorf("%s %q: %+v", spec.name, text, s)
			}
		}
	})
}

func BenchmarkSampleOfProcess(b *testing.B) {
	src := Process(os.Getpid())
	for b.Loop() {
		if _, err := src.Sample(); err != nil {
			b.Fatal(err)
		}
	}
}
