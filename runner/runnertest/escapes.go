package runnertest

import (
	"context"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"arch.network/runner"
)

// escapes are the cases of what a hostile command tries.
func escapes() []testCase {
	return []testCase{
		{"dangerous system calls are refused", func(h *harness) {
			spec := h.spec("denied")
			spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Bind, Source: h.dir(), Target: "/out", Writable: true})
			result, out := h.run(spec) // set-ID files matter where the host can see them
			h.ended(result, runner.ReasonExit, 0)
			want := map[string]string{"clone3": "ENOSYS", "openat2": "ENOSYS", "a call of the future": "ENOSYS"}
			for _, line := range lines(out) {
				name, got := cut(line)
				expect := "EPERM"
				if w, ok := want[name]; ok {
					expect = w
				}
				if got != expect {
					h.Errorf("%s: got %s, want %s", name, got, expect)
				}
			}
			h.equal(len(lines(out)), 52)
		}},
		{"refused system calls are an anomaly", func(h *harness) {
			spec := h.spec("denied")
			spec.Limits.Wall = time.Minute
			result, out := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			found := slices.ContainsFunc(result.Anomalies, func(a runner.Anomaly) bool { return a.Kind == runner.AnomalyRefusedSyscall })
			missing := slices.ContainsFunc(result.Confinement.Missing, func(s string) bool { return strings.HasPrefix(s, "refused-syscalls: ") })
			if found == missing {
				h.Errorf("got anomalies %+v, missing %q\n%s", result.Anomalies, result.Confinement.Missing, out)
			}
			spec.Limits.Wall = 0
			_, unwatched := h.run(spec)
			h.equal(out, unwatched) // the commands see no difference
		}},
		{"32-bit system calls kill", func(h *harness) {
			if runtime.GOARCH != "amd64" {
				h.Skip("cannot run here: only amd64 has a second system call interface")
			}
			result, out := h.run(h.spec("bits32"))
			if !has32Bit(h.Context(), h.probe) {
				// There is nothing to refuse: the machine itself faults on such a call, and Go programs end with 2 then.
				h.ended(result, runner.ReasonExit, 2)
				h.equal(strings.Contains(out, "32-bit call:"), false)
				return
			}
			h.ended(result, runner.ReasonSignal, 0)
			h.equal(result.Signal, "SIGSYS")
		}},
		{"the first process is out of reach", func(h *harness) {
			h.says(h.spec("first"),
				"read mem: refused", "read environ: refused", "read exe: refused", "read root/: refused", "read cwd/: refused",
				"read fd/3: refused", "read fd/4: refused", "read maps: refused", "read task/1/mem: refused",
				"write mem: refused", "write exe: refused", "write uid_map: refused", "write oom_score_adj: refused", "write fd/4: refused",
				"write own program: true", "process_vm_readv: EPERM")
		}},
		{"signals do not stop the first process", func(h *harness) {
			result, _ := h.run(h.spec("signals"))
			h.ended(result, runner.ReasonExit, 7)
		}},
		{"kernel settings are read-only", func(h *harness) {
			paths := []string{"/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory", "/proc/self/oom_score_adj"}
			_, out := h.run(h.spec(append([]string{"write"}, paths...)...))
			var want []string
			for _, p := range paths {
				want = append(want, p+" write: EROFS", p+" chmod: EROFS", p+" rename: EROFS")
			}
			h.equal(lines(strings.ReplaceAll(out, "EACCES", "EROFS")), want) // which one depends on the user
		}},
	}
}

// has32Bit reports whether programs of this machine can make 32-bit system calls at all: some kernels are made or started
// without them, and some hypervisors do not pass them on.
func has32Bit(ctx context.Context, probe string) bool {
	out, err := exec.CommandContext(ctx, probe, "bits32").Output()
	return err == nil && strings.HasPrefix(string(out), "32-bit call:")
}
