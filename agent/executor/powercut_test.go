package executor_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"arch.network/agent"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/tests/powercut"
)

// cutWorld is a directory with jobs for nodes whose power goes, which needs no disk: what a power cut leaves of one is made up.
func cutWorld(t *testing.T, jobs int) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "arch-node-")
	if err != nil {
		dir = tempDir(t)
	}
	t.Cleanup(func() { nar.RemoveAll(dir) })
	writeJobs(t, dir, jobs)
	if err := os.RemoveAll(filepath.Join(dir, "state")); err != nil { // the first node makes it
		t.Fatal(err)
	}
	return dir
}

// recordNode records a node that takes and runs all jobs.
func recordNode(t *testing.T, dir string, jobs int, inject ...string) *powercut.Trace {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, childArgument, dir, "0", strconv.Itoa(jobs), "power")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	trace, err := powercut.Record(dir, cmd, inject...)
	if errors.Is(err, powercut.ErrNoTracer) {
		t.Skipf("cannot run here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	// A fault may hit the Go runtime's own descriptor, by which it wakes its poller: then the process ends as if it were killed.
	if strings.Contains(stderr.String(), "panic") && !strings.Contains(stderr.String(), "netpollBreak write failed") {
		t.Fatal(stderr.String())
	}
	return trace
}

// livesOn starts a node on what a power cut has left: it knows what was accepted, what had ended stays so, and after each job was handed in again
// everything is as if nothing had happened.
func livesOn(t *testing.T, dir string, jobs int) func(powercut.Image) error {
	return func(im powercut.Image) error {
		return powercut.Try(t, func(t testing.TB) {
			accepted, ended := map[string]bool{}, map[string]bool{}
			n := newNode(t, setup{dir: dir, driver: direct(recorded(dir, 0, longText))})
			for line := range strings.Lines(im.Said) {
				word, id, whole := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
				if !whole || !strings.HasSuffix(line, "\n") {
					continue
				}
				j, err := n.Job(t.Context(), id)
				if err != nil {
					t.Fatalf("the job that it %s is lost: %v", word, err)
				}
				if word == "ended" && !j.State.Ended() {
					t.Errorf("a job that had ended is %s", j.State)
				}
				map[string]map[string]bool{"accepted": accepted, "ended": ended}[word][id] = true
			}
			ids := make([]digest.SHA256, jobs)
			for i := range ids {
				envelope, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("job-%d", i)))
				if err != nil {
					t.Fatal(err)
				}
				ids[i] = n.submit(envelope).ID
			}
			for _, id := range ids {
				for _, a := range n.await(id).Attempts {
					if printed := n.log(id, agent.LogQuery{Attempt: a.Number, Stream: "stderr"}); a.Reason != "" && printed != longText {
						t.Errorf("of what execution %d printed %d bytes are there, and it printed %d", a.Number, len(printed), len(longText))
					}
				}
			}
			n.stop()
			checkWhole(t, dir, accepted, ended, jobs)
		})
	}
}

// A power cut at any time loses no job that was accepted, and none runs twice without a record.
func TestPowerCut(t *testing.T) {
	const jobs = 2
	dir := cutWorld(t, jobs)
	images := recordNode(t, dir, jobs).Images(1, powercut.Some(30))
	if err := powercut.Check(dir, images, livesOn(t, dir, jobs)); err != nil {
		t.Error(err)
	}
	t.Logf("%d images", len(images))
}

// A sync that fails is not made good by the next one: whatever the node says afterwards is true after a power cut.
func TestPowerCutAfterFailedSync(t *testing.T) {
	const jobs = 2
	step := 8
	if powercut.Some(1) < 0 {
		step = 1
	}
	for _, call := range []string{"fdatasync", "fsync"} {
		for when, misses := 1, 0; misses < 2; when += step {
			dir := cutWorld(t, jobs)
			trace := recordNode(t, dir, jobs, fmt.Sprintf("%s:error=EIO:when=%d", call, when))
			if err := powercut.Check(dir, trace.Images(3, powercut.Some(8)), livesOn(t, dir, jobs)); err != nil {
				t.Errorf("the %s %d of a thread fails: %v", call, when, err)
			}
			if !trace.Failed() {
				misses++
			}
		}
	}
}

// Whatever call fails, in whatever way, what the node says is true, and the next one goes on.
func TestPowerCutAfterFailedCalls(t *testing.T) {
	const jobs = 2
	step := 30
	if powercut.Some(1) < 0 {
		step = 1
	}
	for _, fault := range []string{
		"pwrite64:error=ENOSPC", "pwrite64:error=EIO", "pwrite64:error=EINTR", "write:error=ENOSPC", "openat:error=EMFILE", "openat:error=EINTR",
		"ftruncate:error=ENOSPC", "renameat,linkat:error=EIO",
	} {
		for when := 1; when < 60; when += step {
			dir := cutWorld(t, jobs)
			trace := recordNode(t, dir, jobs, fmt.Sprintf("%s:when=%d", fault, when))
			if err := powercut.Check(dir, trace.Images(4, powercut.Some(2)), livesOn(t, dir, jobs)); err != nil {
				t.Errorf("%s:when=%d: %v", fault, when, err)
			}
		}
	}
}

// A node that forgets to sync something loses what it said, and TestPowerCut sees it.
func TestPowerCutFindsForgottenSyncs(t *testing.T) {
	const jobs = 2
	dir := cutWorld(t, jobs)
	trace := recordNode(t, dir, jobs)
	for name, path := range map[string]func(string) bool{
		"state file":             func(p string) bool { return p == "state/state.db" },
		"journal":                func(p string) bool { return strings.HasPrefix(p, "state/journal.") },
		"new state file":         func(p string) bool { return p == "state/state.db.new" },
		"directory of the state": func(p string) bool { return p == "state" },
		"directory above":        func(p string) bool { return p == "." },
		"log of an execution":    func(p string) bool { return strings.HasSuffix(p, ".stderr") },
		"directory of the logs":  func(p string) bool { return p == "state/logs" },
		"objects in the store":   func(p string) bool { return strings.HasPrefix(p, "store/") },
	} {
		forgetful, ok := trace.Without(path)
		if !ok {
			t.Errorf("nothing of the %s is synced", name)
		}
		if err := powercut.Check(dir, forgetful.Images(2, -1), livesOn(t, dir, jobs)); err == nil {
			t.Errorf("without a sync of the %s nothing is lost", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}
