package checkpoint_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/checkpoint"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
	"arch.network/tests/guest"
)

// left is all that a job leaves where nothing outlives its confinement but what it hands over.
type left struct {
	Reason  runner.Reason
	Exit    int
	Gas     uint64
	Said    string
	Outputs digest.SHA256 // of the NAR of /outputs
}

// TestDrivers stops jobs whose files are in memory, and resumes each in another confinement: of the namespace driver, and in a unit of a real systemd.
func TestDrivers(t *testing.T) {
	if guest.Inside() != "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		d, err := systemd.New(t.Context(), systemd.Options{Executable: self})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, name := range []string{"c", "go"} {
			module, err := os.ReadFile(filepath.Join(guest.InsideDir, name+".prepared"))
			if err != nil {
				t.Fatal(err)
			}
			t.Run(name, func(t *testing.T) { stopAndGoOn(t, d, self, module) })
		}
		return
	}
	var files []string
	for _, name := range []string{"c", "go"} {
		file := filepath.Join(t.TempDir(), name+".prepared")
		if err := os.WriteFile(file, prepared(t, name), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	t.Run("namespace", func(t *testing.T) {
		d, err := namespace.New(namespace.Options{Executable: compile(t, "worker")})
		if err != nil {
			t.Fatal(err)
		}
		stopAndGoOn(t, d, compile(t, "worker"), prepared(t, "c"))
	})
	t.Run("systemd", func(t *testing.T) {
		guest.Run(t, guest.Config{Mode: guest.Namespaces, Pattern: "^TestDrivers$", Files: files, Static: true})
	})
}

func stopAndGoOn(t *testing.T, d runner.Runner, worker string, module []byte) {
	r, err := wasm.New(wasm.Options{Driver: d, Worker: worker, Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	j := newJob(t, r, module)
	j.spec.Mounts[1] = runner.Mount{Kind: runner.Tmpfs, Target: "/outputs", Size: 16 << 20}
	j.spec.Module.Args = append(j.spec.Module.Args, "well")
	j.spec.Outputs = []runner.Output{{Name: "all", Path: "/outputs"}}
	var outputs bytes.Buffer
	j.spec.Collect = func(_ runner.Output, nar io.Reader) error {
		_, err := io.Copy(&outputs, nar)
		return err
	}
	part := func(o checkpoint.Options) (left, *checkpoint.Checkpoint) {
		outputs.Reset()
		result, c, said := j.run(t, o)
		return left{result.Reason, result.Exit, result.Gas, said, digest.Of(outputs.Bytes())}, c
	}
	want, _ := part(checkpoint.Options{})
	if want.Reason != runner.ReasonExit || want.Exit != 0 || outputs.Len() == 0 {
		t.Fatalf("unstopped: %+v", want)
	}
	first, c := part(checkpoint.Options{StopAt: want.Gas / 2})
	if c == nil || c.Snapshot == nil || len(c.Snapshot.Files) != 1 || outputs.Len() > 0 {
		t.Fatalf("not stopped with its files: %+v, %+v", first, c)
	}
	got, again := part(checkpoint.Options{From: reread(t, c)})
	got.Said = first.Said + got.Said
	if diff := cmp.Diff(want, got); diff != "" || again != nil {
		t.Errorf("(-unstopped +resumed):\n%s", diff)
	}
}

// reread is a checkpoint after it was kept as bytes.
func reread(t *testing.T, c *checkpoint.Checkpoint) *checkpoint.Checkpoint {
	t.Helper()
	c, err := checkpoint.Parse(c.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return c
}
