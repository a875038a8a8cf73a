package program_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/program"
)

const speak = "ARCH_TEST_SPEAK" // makes the test binary say that it runs, and nothing else

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if os.Getenv(speak) != "" {
		os.Stdout.WriteString("here I am\n")
		return
	}
	os.Exit(m.Run())
}

// The test binary starts again in a file system that holds nothing but what Self says: built as it is, which with the race
// detector means with libraries.
func TestSelf(t *testing.T) {
	p, err := program.Self()
	if err != nil {
		t.Fatal(err)
	}
	says(t, p)
}

// A program with libraries, and one without, by way of this test's own source.
func TestSelfBuilt(t *testing.T) {
	for name, cgo := range map[string]string{"static": "0", "dynamic": "1"} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("gcc"); cgo == "1" && err != nil {
				t.Skip("cannot run here: gcc is not installed, so nothing is linked with libraries")
			}
			binary := filepath.Join(t.TempDir(), "program.test")
			build := exec.Command("go", "test", "-c", "-o", binary, ".")
			build.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			static, err := program.Static(binary)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(binary, "-test.run=^TestSelf$", "-test.v").CombinedOutput(); err != nil {
				t.Errorf("static %v: %v\n%s", static, err, out)
			}
			if static != (cgo == "0") {
				t.Errorf("built with CGO_ENABLED=%s: static %v", cgo, static)
			}
		})
	}
}

func says(t *testing.T, p program.Program) {
	t.Helper()
	driver, err := namespace.New(namespace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	result, err := driver.Run(t.Context(), runner.Spec{
		Commands: []runner.Command{{Argv: []string{"/program"}, Env: append(p.Env, speak+"=1")}},
		Mounts:   append([]runner.Mount{{Kind: runner.Bind, Source: p.Path, Target: "/program"}}, p.Mounts...),
		Stdout:   &out, Stderr: &out,
	})
	if err != nil || !result.OK() || out.String() != "here I am\n" {
		t.Errorf("%+v, %v\n%s", result, err, out.String())
	}
}

func TestStatic(t *testing.T) {
	if _, err := program.Static(os.DevNull); err == nil {
		t.Error("what is no program is said to be one")
	}
}
