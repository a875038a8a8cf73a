package attacker_test

import (
	"bytes"
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
		{"fork", runner.Limits{Processes: 48, Wall: 20 * time.Second}, []runner.Reason{runner.ReasonLimit, runner.ReasonTimeout}, 0},
		{"threads", runner.Limits{Processes: 48, Wall: 20 * time.Second}, []runner.Reason{runner.ReasonLimit, runner.ReasonSignal, runner.ReasonExit}, 2},
		{"memory", runner.Limits{Memory: 96 << 20}, []runner.Reason{runner.ReasonOutOfMemory}, 0},
		{"disk", runner.Limits{Scratch: 16 << 20, Memory: 256 << 20}, []runner.Reason{runner.ReasonExit}, 3},
		{"shared", runner.Limits{Scratch: 16 << 20, Memory: 128 << 20}, []runner.Reason{runner.ReasonExit, runner.ReasonOutOfMemory}, 3},
		{"inodes", runner.Limits{Scratch: 16 << 20, Memory: 128 << 20, Wall: time.Minute}, []runner.Reason{runner.ReasonExit, runner.ReasonOutOfMemory}, 3},
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
			t.Logf("reason %q, exit %d, %s; wall %v, peak %d MiB", result.Reason, result.Exit, result.Detail, result.Wall, result.MemoryPeak>>20)
			if !slices.Contains(b.reasons, result.Reason) || result.Reason == runner.ReasonExit && result.Exit != b.exit {
				t.Errorf("got reason %q, exit %d, %s; want %q, exit %d\n%s", result.Reason, result.Exit, result.Detail, b.reasons, b.exit, text)
			}
			if int64(log.Len()) > max(b.limits.Log, 64<<20) {
				t.Errorf("%d bytes of log", log.Len())
			}
			s.unharmed(t)
		})
	}
}
