package systemd_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"arch.network/runner"
	"arch.network/runner/systemd"
	"arch.network/runner/systemd/testdata/peer"
)

// parentVariable makes the test binary run a Spec and be killed; its value is the program of units, and the directory of the pipe.
const parentVariable = "ARCH_TEST_PARENT"

// talksVariable makes the parent talk with the job, and stallsVariable makes it take no output to its end.
const (
	talksVariable  = "ARCH_TEST_PARENT_TALKS"
	stallsVariable = "ARCH_TEST_PARENT_STALLS"
)

// parent runs the job of adoption in another process.
func parent(value string) int {
	binary, gate := filepath.Split(value)
	r, err := systemd.New(context.Background(), systemd.Options{Executable: os.Getenv(parentVariable + "_BINARY")})
	if err == nil {
		spec := waitingJob(os.Getenv(parentVariable+"_BINARY"), filepath.Join(binary, gate))
		spec.Stdout, spec.Stderr = os.Stdout, os.Stdout
		if os.Getenv(talksVariable) != "" {
			spec.Exchange = func(conn *os.File) error {
				_, err := io.Copy(io.Discard, conn)
				return err
			}
		}
		if os.Getenv(stallsVariable) != "" {
			spec.Collect = func(_ runner.Output, nar io.Reader) error {
				_, err := io.ReadFull(nar, make([]byte, 8))
				fmt.Println("collecting", err)
				select {}
			}
		}
		_, err = r.Run(context.Background(), spec)
	}
	fmt.Println("the parent was not killed:", err)
	return 1
}

// waitingJob waits until somebody writes to the pipe in the directory gate, and has one output.
func waitingJob(binary, gate string) runner.Spec {
	return runner.Spec{
		Name:     "waiting",
		Commands: []runner.Command{{Argv: []string{"/bin/job", peer.Job, "/gate/pipe", "/build/out"}}},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: binary, Target: "/bin/job"},
			{Kind: runner.Bind, Source: gate, Target: "/gate"},
			{Kind: runner.Tmpfs, Target: "/build"},
		},
		Outputs: []runner.Output{{Name: "out", Path: "/build/out"}},
		Collect: func(_ runner.Output, nar io.Reader) error {
			_, err := io.Copy(io.Discard, nar)
			return err
		},
		Limits: runner.Limits{Memory: 256 << 20, Wall: time.Minute},
	}
}

// newGate makes a directory with a pipe that everyone may use.
func newGate(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// orphan starts a job in another process, which it kills when the job runs.
func orphan(t *testing.T, binary, gate string, env ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), append(env, parentVariable+"="+gate, parentVariable+"_BINARY="+binary)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The job says that it waits when its pipe is open, so when somebody has opened the other end as well.
	pipe := openGate(t, gate)
	lines := bufio.NewReader(out)
	wantLine := func(want string) {
		if line, err := lines.ReadString('\n'); err != nil || line != want {
			t.Errorf("the parent says %q, %v; want %q", line, err, want)
		}
	}
	wantLine("waiting\n")
	if slices.Contains(env, stallsVariable+"=1") {
		pipe.WriteString("text")
		pipe.Close()
		wantLine("go on\n")
		wantLine("collecting <nil>\n")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	t.Cleanup(func() { pipe.Close() })
	gates.Store(gate, pipe)
}

// gates are the open ends by directory.
var gates sync.Map

func openGate(t *testing.T, gate string) *os.File {
	t.Helper()
	pipe, err := os.OpenFile(filepath.Join(gate, "pipe"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return pipe
}

// testAdoption kills drivers and goes on in their places. What was used is all that depends on the version of control groups.
func testAdoption(t *testing.T, options systemd.Options) {
	r := driver(t, options)
	adopt := func(t *testing.T, gate string, env ...string) *systemd.Running {
		orphan(t, options.Executable, gate, env...)
		list, err := r.Adopt(t.Context())
		if err != nil || len(list) != 1 || list[0].Name != "waiting" {
			t.Fatalf("got %v, %v", list, err)
		}
		return list[0]
	}
	var got []byte
	spec := waitingJob(options.Executable, t.TempDir())
	spec.Collect = func(_ runner.Output, nar io.Reader) (err error) {
		got, err = io.ReadAll(nar)
		return err
	}
	t.Run("what was used and what was printed", func(t *testing.T) {
		gate := newGate(t)
		running := adopt(t, gate)
		pipe, _ := gates.Load(gate)
		if _, err := pipe.(*os.File).WriteString("text"); err != nil {
			t.Fatal(err)
		}
		pipe.(*os.File).Close()
		var printed bytes.Buffer
		spec.Stdout = &printed
		result, err := running.Wait(t.Context(), spec, runner.Kept{Stdout: int64(len("waiting\n"))})
		if err != nil || !result.OK() || len(result.Outputs) != 1 {
			t.Errorf("got %+v, %v", result, err)
		}
		if printed.String() != "go on\n" { // while there was no driver
			t.Errorf("printed %q", printed.String())
		}
		if !bytes.Contains(got, []byte("text")) {
			t.Errorf("output %q", got)
		}
		if result.CPU <= 0 || result.MemoryPeak <= 0 {
			t.Errorf("usage %+v", result.Usage)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		running := adopt(t, newGate(t))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if result, err := running.Wait(ctx, spec, runner.Kept{}); err != nil || result.Reason != runner.ReasonCancelled {
			t.Errorf("got %+v, %v", result, err)
		}
	})
	t.Run("killed within an output", func(t *testing.T) {
		running := adopt(t, newGate(t), stallsVariable+"=1")
		got = nil
		result, err := running.Wait(t.Context(), spec, runner.Kept{Stdout: int64(len("waiting\ngo on\n"))})
		if err != nil || !result.OK() || len(result.Outputs) != 1 || !bytes.Contains(got, []byte("text")) {
			t.Errorf("got %+v, %v, %q", result, err, got)
		}
	})
	t.Run("ended", func(t *testing.T) {
		if err := adopt(t, newGate(t)).Kill(t.Context()); err != nil {
			t.Error(err)
		}
		if list, err := r.Adopt(t.Context()); err != nil || len(list) != 0 {
			t.Fatalf("got %v, %v", list, err)
		}
	})
}

// testNoAdoption wants the end of a unit whose commands talk with a driver that is gone.
func testNoAdoption(t *testing.T, options systemd.Options) {
	r := driver(t, options)
	orphan(t, options.Executable, newGate(t), talksVariable+"=1")
	for {
		list, err := r.Adopt(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func testStopAll(t *testing.T, options systemd.Options) {
	r := driver(t, options)
	var runs sync.WaitGroup
	started := make(chan struct{}, 4)
	results := make([]string, 4)
	for n := range results {
		runs.Go(func() {
			gate := newGate(t)
			spec := waitingJob(options.Executable, gate)
			spec.Name = fmt.Sprint("n", n)
			var pipe *os.File
			go func() {
				pipe = openGate(t, gate)
				started <- struct{}{}
			}()
			result, err := r.Run(t.Context(), spec)
			results[n] = fmt.Sprint(result.Reason, err)
			pipe.Close() // not before: the job would go on
		})
	}
	for range results {
		<-started
	}
	if err := r.StopAll(t.Context()); err != nil {
		t.Error(err)
	}
	runs.Wait()
	want := "cancelled<nil>"
	if diff := cmp.Diff([]string{want, want, want, want}, results); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
