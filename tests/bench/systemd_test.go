package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"arch.network/runner"
	"arch.network/runner/systemd"
	"arch.network/tests/guest"
)

// unitVariable names the binary of units, inside a guest.
const unitVariable = "ARCH_BENCH_UNIT"

// BenchmarkSystemd compares, in a guest with a real systemd, medians of time on the clock in milliseconds, each measured in turn with
// the others: a process without anything around it; a transient unit without any confinement; one with the 28 properties that
// systemd has for confining services; the same effects with an own root directory instead of the properties that it makes
// superfluous; a Run; and handing a job to a worker of a Pool and having its answer, with and without limits.
func BenchmarkSystemd(b *testing.B) {
	if guest.Inside() != "" {
		benchmarkUnits(b)
		return
	}
	w := newWorkshop(b)
	if err := os.Chmod(w.dir, 0o755); err != nil {
		b.Fatal(err)
	}
	w.compile(b, filepath.Join(w.dir, "unit"), "arch.network/runner/systemd/testdata/unit")
	test := exec.CommandContext(b.Context(), "go", "test", "-c", "-o", filepath.Join(w.dir, "test"), ".")
	test.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := test.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	const inside = "/run/arch-test"
	cmd := exec.CommandContext(b.Context(), guest.Launcher(b), "ns", "-b", w.dir+":"+inside, inside+"/test",
		"-test.run=^$", "-test.bench=^BenchmarkSystemd$", "-test.benchtime=40x")
	cmd.Env = append(os.Environ(), unitVariable+"="+inside+"/unit")
	out, err := cmd.Output()
	if err != nil {
		b.Skipf("cannot run here: %v\n%s", err, out)
	}
	repeatMetrics(b, out)
}

// repeatMetrics reports what another process's benchmark has reported.
func repeatMetrics(b *testing.B, out []byte) {
	b.Helper()
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "BenchmarkSystemd") {
			continue
		}
		for n := 2; n+1 < len(fields); n += 2 {
			if value, err := strconv.ParseFloat(fields[n], 64); err == nil {
				b.ReportMetric(value, fields[n+1])
			}
		}
	}
}

func benchmarkUnits(b *testing.B) {
	unit := os.Getenv(unitVariable)
	r, err := systemd.New(b.Context(), systemd.Options{Executable: unit})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	conn, err := sd.NewSystemConnectionContext(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	pool, err := r.NewPool(b.Context(), systemd.PoolOptions{Size: 2, Class: runner.Spec{
		Commands: []runner.Command{{Argv: []string{"/bin/worker", "arch-test-worker"}}},
		Mounts:   []runner.Mount{{Kind: runner.Bind, Source: unit, Target: "/bin/worker"}},
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	root := ownRoot(b)
	number := 0
	start := func(properties []sd.Property) {
		number++
		plainUnit(b, conn, fmt.Sprintf("bench-%d.service", number), properties)
	}
	t := times{}
	measure := func(name string, f func()) {
		before := time.Now()
		f()
		t.add(name, time.Since(before))
	}
	for b.Loop() {
		measure("exec", func() { exec.CommandContext(b.Context(), "/usr/bin/true").Run() })
		measure("unit", func() { start(nil) })
		measure("properties", func() { start(allProperties()) })
		measure("own-root", func() { start(root) })
		measure("run", func() {
			spec := confinedTrue()
			spec.Limits = runner.Limits{Memory: 256 << 20, Processes: 64}
			if result, err := r.Run(b.Context(), spec); err != nil || !result.OK() {
				b.Fatalf("%+v, %v", result, err)
			}
		})
		handOver(b, pool, "pool", t, runner.Limits{})
		handOver(b, pool, "pool-limits", t, runner.Limits{Memory: 256 << 20, Processes: 64, CPU: 1000})
	}
	t.report(b)
	b.ReportMetric(t.median("run")/t.median("own-root"), "run/own-root")
	b.ReportMetric(t.median("run")/t.median("properties"), "run/properties")
	b.ReportMetric(t.median("pool")/t.median("exec"), "pool/exec")
}

// handOver measures until a worker that is ready has answered; it is replaced outside of that.
func handOver(b *testing.B, pool *systemd.Pool, name string, t times, l runner.Limits) {
	b.Helper()
	time.Sleep(200 * time.Millisecond) // the pool is filled: what is measured is a warm one
	before := time.Now()
	w, err := pool.Take(b.Context(), l)
	if err != nil {
		b.Fatal(err)
	}
	fmt.Fprintln(w.Conn(), "echo")
	var answer [5]byte
	if _, err := w.Conn().Read(answer[:]); err != nil {
		b.Fatal(err)
	}
	t.add(name, time.Since(before))
	if _, err := w.Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// plainUnit runs true in a transient unit and returns when it has ended.
func plainUnit(b *testing.B, conn *sd.Conn, name string, properties []sd.Property) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	done := make(chan string, 1)
	all := append([]sd.Property{sd.PropExecStart([]string{"/usr/bin/true"}, false), sd.PropType("oneshot")}, properties...)
	if _, err := conn.StartTransientUnitContext(ctx, name, "fail", all, done); err != nil {
		b.Fatal(err)
	}
	if result := <-done; result != "done" {
		b.Fatalf("unit %s: %s", name, result)
	}
}

func property(name string, value any) sd.Property {
	return sd.Property{Name: name, Value: dbus.MakeVariant(value)}
}

type nameList struct {
	Allow bool
	Names []string
}

// sharedProperties have no replacement in an own root directory.
func sharedProperties() []sd.Property {
	return []sd.Property{
		property("DynamicUser", true), property("PrivateNetwork", true), property("LockPersonality", true),
		property("RestrictRealtime", true), property("RestrictSUIDSGID", true), property("NoNewPrivileges", true),
		property("RestrictNamespaces", uint64(0)), property("MemoryDenyWriteExecute", true),
		property("SystemCallArchitectures", []string{"native"}),
		property("RestrictAddressFamilies", nameList{true, []string{"AF_UNIX"}}),
		property("SystemCallFilter", nameList{true, []string{"@system-service"}}),
		property("SystemCallErrorNumber", int32(unix.EPERM)), property("CapabilityBoundingSet", uint64(0)),
		property("UMask", uint32(0o077)), property("MemoryMax", uint64(256<<20)), property("TasksMax", uint64(64)),
		property("LimitCORE", uint64(0)), property("DevicePolicy", "closed"),
	}
}

// allProperties confine a service in the host's root directory.
func allProperties() []sd.Property {
	return append(sharedProperties(),
		property("PrivateTmp", true), property("ProtectSystem", "strict"), property("ProtectHome", "yes"),
		property("PrivateDevices", true), property("ProtectKernelTunables", true), property("ProtectKernelModules", true),
		property("ProtectKernelLogs", true), property("ProtectControlGroups", true), property("ProtectClock", true),
		property("ProtectHostname", true))
}

// ownRoot does it in one that holds only the programs.
func ownRoot(b *testing.B) []sd.Property {
	b.Helper()
	dir := "/run/bench-root"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	type bind struct {
		Source, Target string
		Ignore         bool
		Flags          uint64
	}
	var binds []bind
	for _, name := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if _, err := os.Stat(name); err == nil {
			binds = append(binds, bind{name, name, false, unix.MS_REC})
		}
	}
	return append(sharedProperties(), property("RootDirectory", dir), property("MountAPIVFS", true),
		property("PrivateDevices", true), property("ProtectHostname", true), property("BindReadOnlyPaths", binds))
}
