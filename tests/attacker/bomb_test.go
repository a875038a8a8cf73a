package attacker_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"arch.network/runner"
)

// testBombs demands that using up a resource ends the job, by the reason that belongs to it, and nothing else.
func testBombs(t *testing.T, d driver) {
	bombs := []struct {
		kind    string
		limits  runner.Limits
		reasons []runner.Reason // any of them
		exit    int             // with runner.ReasonExit
	}{
		{"fork", runner.Limits{Processes: 48}, []runner.Reason{runner.ReasonLimit, runner.ReasonExit}, 3},
		{"threads", runner.Limits{Processes: 48}, []runner.Reason{runner.ReasonLimit, runner.ReasonSignal, runner.ReasonExit}, 2},
		{"memory", runner.Limits{Memory: 96 << 20}, []runner.Reason{runner.ReasonOutOfMemory}, 0},
		{"disk", runner.Limits{Scratch: 16 << 20, Memory: 256 << 20}, []runner.Reason{runner.ReasonExit}, 3},
		{"shared", runner.Limits{Scratch: 16 << 20, Memory: 128 << 20}, []runner.Reason{runner.ReasonExit, runner.ReasonOutOfMemory}, 3},
		{"inodes", runner.Limits{Scratch: 16 << 20, Memory: 128 << 20}, []runner.Reason{runner.ReasonExit, runner.ReasonOutOfMemory}, 3},
		{"sockets", runner.Limits{Memory: 128 << 20}, []runner.Reason{runner.ReasonExit, runner.ReasonOutOfMemory}, 3},
		{"pipes", runner.Limits{Memory: 128 << 20}, []runner.Reason{runner.ReasonExit, runner.ReasonOutOfMemory}, 3},
		{"memory-files", runner.Limits{Memory: 128 << 20}, []runner.Reason{runner.ReasonExit, runner.ReasonOutOfMemory}, 3},
		{"segments", runner.Limits{Memory: 128 << 20}, []runner.Reason{runner.ReasonExit, runner.ReasonOutOfMemory}, 3},
		{"messages", runner.Limits{Memory: 128 << 20}, []runner.Reason{runner.ReasonExit, runner.ReasonOutOfMemory}, 3},
		{"log", runner.Limits{Log: 1 << 20}, []runner.Reason{runner.ReasonLimit}, 0},
		{"time", runner.Limits{Wall: time.Second}, []runner.Reason{runner.ReasonTimeout}, 0},
	}
	for _, b := range bombs {
		t.Run(b.kind, func(t *testing.T) {
			s := newScene(t)
			spec := s.spec(t, "bomb", b.kind)
			spec.Limits = b.limits
			if spec.Limits.Wall == 0 {
				spec.Limits.Wall = time.Minute
			}
			var log bytes.Buffer
			spec.Stdout, spec.Stderr = &log, &log
			result, err := d.new(t).Run(t.Context(), spec)
			text := log.Bytes()[:min(log.Len(), 2000)]
			if err != nil {
				t.Fatalf("run: %v\n%s", err, text)
			}
			t.Logf("reason %q, exit %d, %s; wall %v, peak %d MiB; it says:\n%.200s",
				result.Reason, result.Exit, result.Detail, result.Wall, result.MemoryPeak>>20, text)
			if !slices.Contains(b.reasons, result.Reason) || result.Reason == runner.ReasonExit && result.Exit != b.exit {
				t.Errorf("got reason %q, exit %d, %s; want %q, exit %d\n%s", result.Reason, result.Exit, result.Detail, b.reasons, b.exit, text)
			}
			if int64(log.Len()) > max(b.limits.Log, 64<<20) {
				t.Errorf("%d bytes of log", log.Len())
			}
			// A file without content takes about a KiB of the kernel's memory, which limits must bound as well.
			var files int64
			if n, _ := fmt.Sscanf(string(text), "after %d files", &files); n == 1 && b.kind == "inodes" && files > b.limits.Memory>>10 {
				t.Errorf("%d files were made", files)
			}
			s.unharmed(t)
		})
	}
}
