package sequencer_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"arch.network/attest/ledger/sequencer"
	"arch.network/tests/powercut"
)

// memoryDir is a directory that needs no disk, since what a power cut leaves of one is made up.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "arch-ledger-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// recordWriter records a writer of a few decisions.
func recordWriter(t *testing.T, dir string, count int, inject ...string) *powercut.Trace {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childEnv+"="+dir, fmt.Sprint("ARCH_TEST_COUNT=", count))
	trace, err := powercut.Record(dir, c, inject...)
	if errors.Is(err, powercut.ErrNoTracer) {
		t.Skipf("cannot run here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

// comesBack opens the log that a power cut has left, and wants each decision that was acknowledged in it, no fault, and that it goes on.
func comesBack(t *testing.T, dir string) func(powercut.Image) error {
	opts := options(t, dir)
	return func(im powercut.Image) error {
		if err := recordOne(t, opts); err != nil {
			return err
		}
		var acks []sequencer.Entry
		for line := range strings.Lines(im.Said) {
			if e, err := parseAck(line); err == nil && strings.HasSuffix(line, "\n") {
				acks = append(acks, e)
			}
		}
		if err := errors.Join(lostAcks(t, opts, acks)...); err != nil {
			return err
		}
		if report := check(t, opts, true); !report.OK() {
			return fmt.Errorf("%+v", report.Faults)
		}
		return nil
	}
}

// recordOne opens a log, records a decision more, and closes it.
func recordOne(t *testing.T, opts sequencer.Options) error {
	l, err := sequencer.Open(t.Context(), opts)
	if err != nil {
		return err
	}
	r, err := sequencer.NewRecorder(t.Context(), l, sequencer.RecorderOptions{Signer: nodeKey(t, 1)})
	if err == nil {
		d, subject := decision(1 << 20)
		_, err = r.Record(t.Context(), d, subject)
	}
	return errors.Join(err, l.Close(t.Context()))
}

// A power cut at any time loses nothing that was acknowledged, and leaves a log that is whole and goes on; so does another one while the next
// writer puts the journal of the first into the tiles.
func TestPowerCut(t *testing.T) {
	dir := memoryDir(t)
	first := recordWriter(t, dir, 3)
	images := first.Images(1, powercut.Some(20))
	if err := powercut.Check(dir, images, comesBack(t, dir)); err != nil {
		t.Fatal(err)
	}
	journaled := first.Images(1, 3)[2] // at a word, when only what was synced is there
	if err := journaled.Restore(dir); err != nil {
		t.Fatal(err)
	}
	second := recordWriter(t, dir, 2)
	later := second.Images(2, powercut.Some(20))
	for i := range later {
		later[i].Said = journaled.Said + later[i].Said
	}
	if err := powercut.Check(dir, later, comesBack(t, dir)); err != nil {
		t.Error(err)
	}
	t.Logf("%d images, and %d of a second writer", len(images), len(later))
}

// A sync that fails is not made good by the next: what was acknowledged lies elsewhere by then.
func TestPowerCutAfterFailedSync(t *testing.T) {
	step := 5
	if powercut.Some(1) < 0 {
		step = 1
	}
	for when, misses := 1, 0; misses < 2; when += step {
		dir := memoryDir(t)
		trace := recordWriter(t, dir, 2, fmt.Sprintf("fsync:error=EIO:when=%d", when))
		if err := powercut.Check(dir, trace.Images(3, 4), comesBack(t, dir)); err != nil {
			t.Errorf("the sync %d of a thread fails: %v", when, err)
		}
		if !trace.Failed() {
			misses++
		}
	}
}

// A writer that forgets to sync something loses what it acknowledged, or its log, and TestPowerCut sees it.
func TestPowerCutFindsForgottenSyncs(t *testing.T) {
	dir := memoryDir(t)
	trace := recordWriter(t, dir, 3)
	for name, path := range map[string]func(string) bool{
		"journal":                  func(p string) bool { return strings.HasPrefix(p, "log/.state/journal.") },
		"directory of the journal": func(p string) bool { return p == "log/.state" },
		"directory of the log":     func(p string) bool { return p == "log" },
		"record":                   func(p string) bool { return strings.HasPrefix(p, "state/.signed") },
		"tiles":                    func(p string) bool { return strings.HasPrefix(p, "log/tile/") },
		"tree":                     func(p string) bool { return strings.HasPrefix(p, "log/.state/treeState") },
		"checkpoint":               func(p string) bool { return strings.HasPrefix(p, "log/checkpoint") },
	} {
		forgetful, ok := trace.Without(path)
		if !ok {
			t.Errorf("nothing of the %s is synced", name)
		}
		if err := powercut.Check(dir, forgetful.Images(2, -1), comesBack(t, dir)); err == nil {
			t.Errorf("without a sync of the %s nothing is lost", name)
		}
	}
}
