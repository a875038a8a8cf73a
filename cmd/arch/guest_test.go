package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/tests/guest"
)

// TestUnderSystemd has arch choose the systemd driver by itself, and doctor look at a machine that has everything.
func TestUnderSystemd(t *testing.T) {
	if guest.Inside() != "" {
		t.Run("run", underSystemd)
		t.Run("doctor", doctorUnderSystemd)
		return
	}
	var files []string
	for _, name := range []string{"wordcount.yaml", "wordcount.wasm", "text"} {
		path, err := filepath.Abs(filepath.Join("../../tests/examples/jobs", name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	files = append(files, buildWorker(t))
	guest.Run(t, guest.Config{Mode: guest.Namespaces, Pattern: "^TestUnderSystemd$", Files: files, Static: true})
}

// inGuest runs the compiled arch in a new home.
func inGuest(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errout strings.Builder
	cmd := exec.CommandContext(t.Context(), filepath.Join(guest.InsideDir, "arch"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), &out, &errout
	cmd.Env = append(os.Environ(), "HOME="+cmd.Dir)
	if err := cmd.Run(); err != nil {
		t.Fatalf("arch %q: %v\n%s%s", args, err, out.String(), errout.String())
	}
	return out.String(), errout.String()
}

func underSystemd(t *testing.T) {
	out, _ := inGuest(t, "run", "--json", filepath.Join(guest.InsideDir, "wordcount.yaml"))
	var byUnit, byNamespace runResult
	if err := json.Unmarshal([]byte(out), &byUnit); err != nil {
		t.Fatal(err)
	}
	out, _ = inGuest(t, "run", "--json", "--driver", "namespace", filepath.Join(guest.InsideDir, "wordcount.yaml"))
	if err := json.Unmarshal([]byte(out), &byNamespace); err != nil {
		t.Fatal(err)
	}
	if byUnit.Confinement.Driver != driverSystemd || byNamespace.Confinement.Driver != driverNamespace {
		t.Errorf("drivers %q and %q", byUnit.Confinement.Driver, byNamespace.Confinement.Driver)
	}
	if byUnit.Result == nil || byNamespace.Result == nil || *byUnit.Result != *byNamespace.Result {
		t.Errorf("two drivers, two results: %v and %v", byUnit.Result, byNamespace.Result)
	}
}

func doctorUnderSystemd(t *testing.T) {
	out, _ := inGuest(t, "doctor", "--json")
	var res doctorResult
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		t.Fatal(err)
	}
	if !res.OK || res.Driver != driverSystemd || len(res.Checks) < 15 {
		t.Errorf("%+v", res)
	}
	for _, f := range res.Checks {
		if f.Name == "systemd" && (f.State != holds || !strings.Contains(f.Seen, "unit-system-calls")) {
			t.Errorf("systemd: %+v", f)
		}
		if f.State != holds && f.Cure == "" {
			t.Errorf("%s does not hold, and there is no cure", f.Name)
		}
	}
}
