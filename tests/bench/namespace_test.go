package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"arch.network/runner"
	"arch.network/runner/namespace"
)

// TestMain lets the namespace driver start this binary as the first process of a confinement.
func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// BenchmarkNamespaceStart runs true in a confinement that sees the host's /usr, beside bubblewrap with the same mounts and
// namespaces, and beside nothing around it, whose cost is subtracted from the others'. The first process of "arch" is this large
// binary, as it is for the arch command by default; that of "small" is runner/namespace/first. It reports medians: CPU time (user
// and system, of the caller and of all that it starts, whoever waits for it) and time on the clock.
func BenchmarkNamespaceStart(b *testing.B) {
	ways := map[string]func() error{
		"plain": func() error { return exec.CommandContext(b.Context(), "/usr/bin/true").Run() },
		"arch":  confined(b, namespace.Options{}),
		"small": confined(b, namespace.Options{Executable: buildFirst(b)}),
	}
	if bwrap, err := exec.LookPath("bwrap"); err == nil {
		ways["bwrap"] = func() error { return exec.CommandContext(b.Context(), bwrap, bwrapTrue...).Run() }
	}
	costs := map[string][]cost{}
	clock := account(b)
	for b.Loop() {
		for name, run := range ways { // in turn, so that the machine's other load hits all alike
			before, start := clock(), time.Now()
			if err := run(); err != nil {
				b.Fatal(err)
			}
			wall := time.Since(start)
			costs[name] = append(costs[name], cost{clock() - before, wall})
		}
	}
	reportStarts(b, costs)
}

// confined returns a function that runs true with these options.
func confined(b *testing.B, options namespace.Options) func() error {
	b.Helper()
	r, err := namespace.New(options)
	if err != nil {
		b.Fatal(err)
	}
	return func() error {
		result, err := r.Run(b.Context(), confinedTrue())
		if err == nil && !result.OK() {
			b.Fatalf("run true: %+v", result)
		}
		return err
	}
}

// buildFirst builds runner/namespace/first.
func buildFirst(b *testing.B) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "first")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-o", program, "arch.network/runner/namespace/first")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build first process: %v\n%s", err, out)
	}
	return program
}

func confinedTrue() runner.Spec {
	spec := runner.Spec{Commands: []runner.Command{{Argv: []string{"/usr/bin/true"}}}}
	for _, dir := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if _, err := os.Stat(dir); err == nil {
			spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Bind, Source: dir, Target: dir})
		}
	}
	spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Tmpfs, Target: "/build"})
	return spec
}

var bwrapTrue = []string{
	"--unshare-all", "--die-with-parent", "--new-session", "--uid", "1000", "--gid", "100", "--clearenv",
	"--ro-bind", "/usr", "/usr", "--ro-bind-try", "/bin", "/bin", "--ro-bind-try", "/lib", "/lib", "--ro-bind-try", "/lib64", "/lib64",
	"--proc", "/proc", "--dev", "/dev", "--tmpfs", "/build", "--", "/usr/bin/true",
}

// withChildren measures f with the processes that it starts and waits for.
func withChildren(b *testing.B, f func() error) cost {
	b.Helper()
	before, start := treeCPU(b), time.Now()
	if err := f(); err != nil {
		b.Fatal(err)
	}
	return cost{treeCPU(b) - before, time.Since(start)}
}

func treeCPU(b *testing.B) time.Duration {
	b.Helper()
	var children syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children); err != nil {
		b.Fatal(err)
	}
	return selfCPU(b) + time.Duration(children.Utime.Nano()+children.Stime.Nano())
}

func reportStarts(b *testing.B, costs map[string][]cost) {
	middle := map[string]cost{}
	for name, list := range costs {
		var cpu, wall []time.Duration
		for _, c := range list {
			cpu, wall = append(cpu, c.cpu), append(wall, c.wall)
		}
		slices.Sort(cpu)
		slices.Sort(wall)
		middle[name] = cost{cpu[len(cpu)/2], wall[len(wall)/2]}
		b.ReportMetric(middle[name].cpu.Seconds()*1000, "cpu-ms/"+name)
		b.ReportMetric(middle[name].wall.Seconds()*1000, "wall-ms/"+name)
	}
	for _, name := range []string{"arch", "small", "bwrap"} {
		if _, ok := middle[name]; !ok {
			continue
		}
		b.ReportMetric((middle[name].cpu-middle["plain"].cpu).Seconds()*1000, "cpu-ms-over-exec/"+name)
		if theirs, ok := middle["bwrap"]; ok && name != "bwrap" {
			b.ReportMetric(middle[name].cpu.Seconds()/theirs.cpu.Seconds(), "cpu/bwrap-"+name)
			b.ReportMetric(middle[name].wall.Seconds()/theirs.wall.Seconds(), "wall/bwrap-"+name)
		}
	}
}
