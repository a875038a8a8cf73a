package sequencer_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"arch.network/attest/ledger/sequencer"
)

// kills is how many processes TestKill kills; ARCH_LEDGER_KILLS says another number.
func kills(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("ARCH_LEDGER_KILLS"))
	if err != nil {
		return 8
	}
	return n
}

// Writers are killed while they write, with two processes on one log in half of the rounds: nothing that was acknowledged is lost, no number is missing
// or used twice, every proof holds, and the next writer goes on.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	opts := options(t, dir)
	rounds, all, refused, lost := kills(t), 0, 0, 0
	for round := range rounds {
		writers := 1 + round%2
		type result struct {
			acks []sequencer.Entry
			exit int
		}
		results := make(chan result)
		for range writers {
			go func() {
				acks, exit := killedWriter(t, dir)
				results <- result{acks, exit}
			}()
		}
		var acks []sequencer.Entry
		for range writers {
			r := <-results
			acks = append(acks, r.acks...)
			switch {
			case r.exit == childInUse:
				refused++
			case r.exit != -1:
				t.Errorf("round %d: a writer ended with %d", round, r.exit)
			}
		}
		closeLog(t, open(t, opts)) // what the journal has is put into the tiles
		all += len(acks)
		lost += verifyAcks(t, opts, acks)
		if t.Failed() {
			return
		}
	}
	if report := check(t, opts, true); !report.OK() {
		t.Errorf("%+v", report.Faults)
	}
	l := open(t, opts)
	defer l.Close(t.Context())
	next := recorder(t, l).Next()
	tree, err := l.Tree()
	if err != nil || next != tree.Size+1 {
		t.Errorf("the next decision is %d in a log of %d: %v", next, tree.Size, err)
	}
	t.Logf("%d rounds, %d decisions acknowledged, %d lost, %d in the log; %d second writers were refused", rounds, all, lost, tree.Size, refused)
	if all == 0 || refused == 0 {
		t.Error("nothing was acknowledged, or nobody refused")
	}
}

// killedWriter runs a writer, kills it at some moment after its first acknowledgement, and returns what it acknowledged.
func killedWriter(t *testing.T, dir string) ([]sequencer.Entry, int) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childEnv+"="+dir)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Error(err)
		return nil, 0
	}
	if err := c.Start(); err != nil {
		t.Error(err)
		return nil, 0
	}
	var acks []sequencer.Entry
	for lines := bufio.NewScanner(out); lines.Scan(); {
		e, err := parseAck(lines.Text())
		if err != nil {
			break // cut off by the kill
		}
		if acks = append(acks, e); len(acks) == 1 {
			time.AfterFunc(time.Duration(rand.IntN(250))*time.Millisecond, func() { c.Process.Kill() })
		}
	}
	err = c.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() != childInUse && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("a writer: %v\n%s", err, stderr.String())
	}
	return acks, c.ProcessState.ExitCode()
}

// sweep runs a writer of a few decisions under strace, which makes one system call fail or kills the process at it, and lets a second writer go on.
func sweep(t *testing.T, call, effect string, when int) (hit bool) {
	t.Helper()
	dir := t.TempDir()
	opts := options(t, dir)
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("cannot run here: strace is not installed")
	}
	trace := filepath.Join(dir, "trace")
	var acks []sequencer.Entry
	run := func(name string, args ...string) (string, int) {
		c := exec.Command(name, args...)
		c.Env = append(os.Environ(), childEnv+"="+dir, "ARCH_TEST_COUNT=4")
		var stderr bytes.Buffer
		c.Stderr = &stderr
		out, err := c.Output()
		if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if e, err := parseAck(line); err == nil && strings.HasSuffix(line, "\n") {
				acks = append(acks, e)
			}
		}
		return stderr.String(), c.ProcessState.ExitCode()
	}
	run(strace, "-f", "-qq", "-o", trace, "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call, effect, when), os.Args[0])
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	hit = bytes.Contains(data, []byte("(INJECTED)")) || bytes.Contains(data, []byte("killed by SIGKILL"))
	if stderr, status := run(os.Args[0]); status != 0 {
		t.Errorf("%s %s when=%d: the next writer ends with %d: %s", call, effect, when, status, stderr)
	}
	seen := map[int64]bool{}
	for _, e := range acks {
		if seen[e.Sequence] {
			t.Errorf("%s %s when=%d: sequence %d was acknowledged twice", call, effect, when, e.Sequence)
		}
		seen[e.Sequence] = true
	}
	if lost := verifyAcks(t, opts, acks); lost > 0 {
		t.Errorf("%s %s when=%d: %d of %d acknowledged decisions are lost", call, effect, when, lost, len(acks))
	}
	if report := check(t, opts, true); !report.OK() {
		t.Errorf("%s %s when=%d: %+v", call, effect, when, report.Faults)
	}
	return hit
}

// Each way in which the disk can refuse: what was acknowledged is there, and the next writer goes on. ARCH_LEDGER_SWEEP=1 tries every call, else one in
// several. What a kill at a call leaves is among the images of TestPowerCut, and a sync that fails among those of TestPowerCutAfterFailedSync.
func TestFaultSweep(t *testing.T) {
	step := 3
	if os.Getenv("ARCH_LEDGER_SWEEP") != "" {
		step = 1
	}
	for _, tt := range []struct{ call, effect string }{
		{"write", "error=ENOSPC"},
		{"renameat", "error=EIO"},
	} {
		t.Run(tt.call+" "+tt.effect, func(t *testing.T) {
			hits, misses := 0, 0
			for when := 1; when < 200 && misses < 2; when += step {
				if sweep(t, tt.call, tt.effect, when) {
					hits++
				} else {
					misses++
				}
			}
			t.Logf("%d faults", hits)
			if hits == 0 {
				t.Error("no call was made to fail")
			}
		})
	}
}
