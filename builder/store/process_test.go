package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/digest"
)

// TestMain lets the test binary be another process that uses a store.
func TestMain(m *testing.M) {
	role, dir := os.Getenv("ARCH_STORE_ROLE"), os.Getenv("ARCH_STORE_DIR")
	if role == "" {
		os.Exit(m.Run())
	}
	roles := map[string]func(context.Context, *Store) error{"add": addMany, "collect": collectMany, "stall": stall}
	s, err := Open(dir)
	if err == nil {
		err = roles[role](context.Background(), s)
	}
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		fmt.Println("store process:", err)
		os.Exit(1)
	}
}

// addMany adds the same few objects as every other process, and looks whether they stay while it holds a lease.
func addMany(ctx context.Context, s *Store) error {
	for i := range 60 {
		text := fmt.Sprint("object ", i%5)
		lease, err := s.Lease(ctx)
		if err != nil {
			return err
		}
		blob, _, err := s.AddBlob(ctx, strings.NewReader(text), digest.Of([]byte(text)))
		if err != nil {
			return err
		}
		fill := func(dir string) error { return os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644) }
		tree, err := s.AddTreeFunc(ctx, fill, digest.SHA256{})
		if err != nil {
			return err
		}
		path, _ := s.TreePath(tree)
		got, err := os.ReadFile(filepath.Join(path, "f"))
		if err != nil || string(got) != text {
			return fmt.Errorf("tree under lease: %q, %w", got, err)
		}
		f, err := s.OpenBlob(blob)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := s.Remember("test", "key", []byte(text)); err != nil {
			return err
		}
		if _, ok, err := s.Recall("test", "key"); !ok || err != nil {
			return fmt.Errorf("recall: %v, %w", ok, err)
		}
		if err := lease.Release(); err != nil {
			return err
		}
	}
	return nil
}

func collectMany(ctx context.Context, s *Store) error {
	for range 60 {
		if _, err := s.GC(ctx, GCOptions{Age: -1}); err != nil {
			return err
		}
	}
	return nil
}

// stall begins a blob that ends only when stdin does.
func stall(ctx context.Context, s *Store) error {
	_, _, err := s.AddBlob(ctx, io.MultiReader(strings.NewReader("begun"), announce{}, os.Stdin), digest.SHA256{})
	return err
}

// announce is an empty reader that tells on stdout that what comes before it was read.
type announce struct{}

func (announce) Read([]byte) (int, error) {
	fmt.Println("stalled")
	return 0, io.EOF
}

func process(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "ARCH_STORE_ROLE="+role, "ARCH_STORE_DIR="+dir)
	return cmd
}

// Processes that add the same objects while others collect garbage never lose what they hold a lease for.
func TestProcessesShareAStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	var running []*exec.Cmd
	var outputs []*bytes.Buffer
	for _, role := range []string{"add", "collect", "add"} {
		cmd, out := process(t, role, dir), new(bytes.Buffer)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running, outputs = append(running, cmd), append(outputs, out)
	}
	for i, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v\n%s", i, err, outputs[i])
		}
	}
	s := openTest(t, dir)
	report, err := s.Verify(t.Context(), VerifyOptions{})
	if err != nil || !report.OK() {
		t.Errorf("verify: %+v, %v", report, err)
	}
	if _, err := s.GC(t.Context(), GCOptions{Age: -1}); err != nil {
		t.Error(err)
	}
	wantEmpty(t, s)
}

// What a live process is writing is never swept; what a killed one left is.
func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	cmd := process(t, "stall", dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "stalled\n" {
		t.Fatalf("the process says %q, %v", line, err)
	}
	s := openTest(t, dir)
	if _, err := s.sweep(); err != nil {
		t.Fatal(err)
	}
	if left := temporary(t, dir); len(left) != 1 {
		t.Errorf("temporary files beside a live process: %q; want its one", left)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	report, err := s.GC(t.Context(), GCOptions{})
	if err != nil || report.Swept != 1 {
		t.Errorf("GC after the process died: %+v, %v; want 1 swept", report, err)
	}
	wantEmpty(t, s)
}
