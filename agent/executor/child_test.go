package executor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"arch.network/agent"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// childArgument makes this program a node that is made to be killed: DIR FROM TO KIND. KIND is real for real confinement, fake for jobs that do nothing, power for such whose journals are synced and that print much. It hands in the jobs FROM to TO-1 that lie in
// DIR, writes "accepted ID" for each that was taken, and "ended ID" for each that has come to its end, and goes on until it is killed, or all have
// ended.
const childArgument = "arch-node-child"

// lostTB is what a node in a child process has for a test.
type lostTB struct{ testing.TB }

func (lostTB) Helper()                  {}
func (lostTB) Log(...any)               {}
func (lostTB) Cleanup(func())           {}
func (lostTB) Context() context.Context { return context.Background() }
func (lostTB) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (lostTB) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(3)
}

func child(args []string) int {
	dir := args[0]
	from, err1 := strconv.Atoi(args[1])
	to, err2 := strconv.Atoi(args[2])
	if err := errors.Join(err1, err2); err != nil {
		return 2
	}
	s := setup{dir: dir}
	switch args[3] {
	case "fake":
		s.driver = direct(recorded(dir, 0, ""))
	case "power":
		s.driver, s.journal = direct(recorded(dir, os.O_SYNC, longText)), os.O_SYNC
		s.died = func(err error) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(4)
		}
	}
	n, err := startNode(lostTB{}, s)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	for i := from; i < to; i++ {
		envelope, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("job-%d", i)))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 3
		}
		j, err := n.Submit(context.Background(), envelope, "uid:1")
		for try := 0; err != nil && args[3] == "power" && try < 20; try++ { // as one who lives with failures
			fmt.Fprintln(os.Stderr, err)
			j, err = n.Submit(context.Background(), envelope, "uid:1")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 3
		}
		fmt.Println("accepted", j.ID.Hex())
	}
	list, err := n.Jobs(context.Background(), agent.Query{Limit: 1000})
	if err != nil {
		return 3
	}
	for _, j := range list {
		fmt.Println("ended", n.await(j.ID).ID.Hex())
	}
	n.stop()
	fmt.Println("done")
	return 0
}

// longText is more than what is kept of a log in the state file.
var longText = strings.Repeat("what is printed to a file of its own\n", 1<<9)

// recorded is a runner that leaves a line for each execution, so that what ran can be compared with what is on record.
func recorded(dir string, flag int, prints string) runFunc {
	return func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		f, err := os.OpenFile(filepath.Join(dir, "ran"), os.O_CREATE|os.O_WRONLY|os.O_APPEND|flag, 0o600)
		if err != nil {
			return runner.Result{}, err
		}
		defer f.Close()
		if _, err := f.WriteString(spec.Name + "\n"); err != nil {
			return runner.Result{}, err
		}
		io.WriteString(spec.Stderr, prints)
		return exits(ctx, spec)
	}
}

// life is one process of a node, until it ends or is killed.
type life struct {
	accepted, ended []string
	done            bool
	stderr          string
}

// live starts a child, and kills it when kill says so; after is called for each line that it writes.
func live(t *testing.T, dir string, from, to int, kind string, wrap []string, after func(lines int, kill func())) life {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := append(slices.Clone(wrap), self, childArgument, dir, strconv.Itoa(from), strconv.Itoa(to), kind)
	cmd := exec.Command(argv[0], argv[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var l life
	lines := 0
	for s := bufio.NewScanner(out); s.Scan(); lines++ {
		word, id, _ := strings.Cut(s.Text(), " ")
		switch word {
		case "accepted":
			l.accepted = append(l.accepted, id)
		case "ended":
			l.ended = append(l.ended, id)
		case "done":
			l.done = true
		}
		if after != nil {
			after(lines, func() { cmd.Process.Kill() })
		}
	}
	cmd.Wait()
	l.stderr = stderr.String()
	return l
}

// write puts jobs where children find them, and their content into the store.
func writeJobs(t *testing.T, dir string, count int) {
	t.Helper()
	n := newNode(t, setup{dir: dir, driver: direct(exits), idle: true})
	for i := range count {
		envelope := n.example("c-hello-wasm", nonce(i), func(j *manifest.Job) {
			j.Metadata.Name = fmt.Sprintf("job-%d", i)
			if i%3 == 0 {
				j.Spec.Retries = 2
			}
		})
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("job-%d", i)), envelope, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.stop()
}

// TestKilled kills a node at random (what a kill at a chosen call leaves is among the images of TestPowerCut), again and again, while it gets jobs and runs them, and wants at the end: everything that was accepted has
// ended, everything that was said to have ended stays so, nothing ran that no record tells of, and nothing ran twice but by a recorded retry.
func TestKilled(t *testing.T) {
	const jobs = 40
	lives := 25
	if testing.Short() {
		lives = 5
	}
	dir := tempDir(t)
	writeJobs(t, dir, jobs)
	r := rand.New(rand.NewPCG(11, 12))
	accepted, ended := map[string]bool{}, map[string]bool{}
	note := func(l life) {
		if strings.Contains(l.stderr, "panic") {
			t.Fatal(l.stderr)
		}
		for _, id := range l.accepted {
			accepted[id] = true
		}
		for _, id := range l.ended {
			ended[id] = true
		}
	}
	for i := range lives {
		at, to := r.IntN(2*jobs), min(jobs, (i+1)*jobs/lives+1)
		pause := time.Duration(r.IntN(20)) * time.Millisecond
		note(live(t, dir, 0, to, "fake", nil, func(lines int, kill func()) {
			if lines == at {
				time.AfterFunc(pause, kill)
			}
		}))
	}
	last := live(t, dir, 0, jobs, "fake", nil, nil)
	if note(last); !last.done {
		t.Fatalf("the last life did not end: %s", last.stderr)
	}
	checkWhole(t, dir, accepted, ended, jobs)
}

// wholeName is a line of ran that a power cut has not torn.
var wholeName = regexp.MustCompile(`(?m)\bjob-[0-9a-f]{24}-[0-9a-f]{12}$`)

// checkWhole looks at what is there after the last life.
func checkWhole(t testing.TB, dir string, accepted, ended map[string]bool, jobs int) {
	t.Helper()
	ran := map[string]int{}
	if data, err := os.ReadFile(filepath.Join(dir, "ran")); err == nil {
		for _, name := range wholeName.FindAllString(string(data), -1) {
			ran[name]++
		}
	}
	n := newNode(t, setup{dir: dir, driver: direct(exits), idle: true})
	list, err := n.Jobs(t.Context(), agent.Query{Limit: 1000})
	if err != nil || len(list) != jobs {
		t.Fatalf("%d jobs, want %d: %v", len(list), jobs, err)
	}
	attempts, states := map[string]bool{}, map[agent.State]int{}
	for _, j := range list {
		j, err := n.Job(t.Context(), j.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		states[j.State]++
		delete(accepted, j.ID.Hex())
		if !j.State.Ended() {
			t.Errorf("job %s is %s after all", j.Name, j.State)
		}
		checkLedger(t, n, j)
		for i, a := range j.Attempts {
			attempts[a.Name] = true
			if i < len(j.Attempts)-1 && (a.Reason != "" || a.Finished.IsZero()) {
				t.Errorf("job %s: execution %d was followed by another, but its end is %q", j.Name, a.Number, a.Reason)
			}
		}
	}
	if len(accepted) > 0 {
		t.Errorf("%d accepted jobs are lost", len(accepted))
	}
	for name, times := range ran {
		if !attempts[name] || times != 1 {
			t.Errorf("execution %s ran %d times; on record: %v", name, times, attempts[name])
		}
	}
	for id := range ended {
		if j, err := n.Job(t.Context(), id); err != nil || !j.State.Ended() {
			t.Errorf("a job that had ended is %s: %v", j.State, err)
		}
	}
	t.Logf("%d executions of %d jobs: %v", len(ran), len(list), states)
	collectAll(t, n)
	for _, j := range list {
		if j.State == agent.Archived {
			if entry, err := n.Entry(t.Context(), j.ID); err != nil || entry == nil {
				t.Errorf("job %s has no archive entry: %v", j.Name, err)
			}
		}
	}
	roots, err := n.store.Roots(t.Context())
	if err != nil || len(roots) != 1 {
		t.Errorf("%d roots, want that of the module: %v", len(roots), err)
	}
}

// checkLedger wants each step of a job to be in the ledger, with the kind that it must have.
func checkLedger(t testing.TB, n *node, j agent.Job) {
	t.Helper()
	list := n.journal.decisions()
	from := agent.State("")
	for _, s := range j.Steps {
		tr, err := agent.Step(from, s.State)
		if err != nil {
			t.Errorf("job %s: %v", j.Name, err)
		}
		switch {
		case tr.Entry == "" && s.Entry == nil:
		case s.Entry == nil || s.Entry.Index >= int64(len(list)):
			t.Errorf("job %s: its step to %s is not in the ledger", j.Name, s.State)
		case list[s.Entry.Index].Kind != tr.Entry || list[s.Entry.Index].Subject != j.ID:
			t.Errorf("job %s: its step to %s is in the ledger as %s of %s", j.Name, s.State, list[s.Entry.Index].Kind, list[s.Entry.Index].Subject)
		}
		from = s.State
	}
}

// TestKilledWhileModulesRun kills a node whose jobs are real, in confinement: nothing of them is left afterwards.
func TestKilledWhileModulesRun(t *testing.T) {
	const jobs = 12
	dir := tempDir(t)
	writeJobs(t, dir, jobs)
	for _, at := range []int{3, 9, jobs} {
		live(t, dir, 0, jobs, "real", nil, func(lines int, kill func()) {
			if lines == at {
				kill()
			}
		})
	}
	last := live(t, dir, 0, jobs, "real", nil, nil)
	if !last.done {
		t.Fatal(last.stderr)
	}
	checkWhole(t, dir, map[string]bool{}, map[string]bool{}, jobs)
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "state", "*")); err != nil || len(left) != 4 {
		t.Errorf("the state holds %q: %v", left, err)
	}
}

// processesOf lists the command lines of processes that have something to do with a directory.
func processesOf(t *testing.T, dir string) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		data, _ := io.ReadAll(f)
		f.Close()
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if strings.Contains(string(data), dir) || strings.Contains(string(cmdline), dir) {
			out = append(out, string(cmdline))
		}
	}
	return out
}
