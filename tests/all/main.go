// Command all runs every test of the repository and tells at the end what could not run here, and why.
//
//	go run ./tests/all [PACKAGE...]
//
// On a Debian machine it first installs, as root, what some tests compare with (nix-bin, bubblewrap, git, gcc, …).
// With ARCH_TEST_REQUIRE=all, as in CI, a test that could not run is a failure.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// peers are what tests use or compare with, programs by name and other files by path, and the Debian packages they come from.
var peers = map[string]string{
	"nix-store": "nix-bin", "nix-hash": "nix-bin", "bwrap": "bubblewrap", "git": "git", "gcc": "gcc", "strace": "strace",
	"tar": "tar", "diff": "diffutils",
	// The flake: its scripts, and the one of its test that boots a node.
	"unzip": "unzip", "python3": "python3-minimal", "setpriv": "util-linux",
	// A real systemd to test under; its kernel for User-Mode Linux is fetched by tests/guest.
	"systemctl": "systemd", "ip": "iproute2", "unshare": "util-linux", "systemd-analyze": "systemd", "dbus-daemon": "dbus",
	// WebAssembly from C, and the format's reference tools.
	"wasm-validate": "wabt", "wasm-opt": "binaryen", "clang-14": "clang-14", "wasm-ld": "lld", "/usr/include/wasm32-wasi/stdio.h": "wasi-libc",
	"/usr/lib/llvm-14/lib/clang/14.0.6/lib/wasi/libclang_rt.builtins-wasm32.a": "libclang-rt-14-dev-wasm32",
	// A browser that looks at the dashboard.
	"chromium": "chromium",
	// What runs yaml-language-server, which tests/editor fetches.
	"node": "nodejs", "npm": "npm",
	// A program that needs nothing: for images and closures.
	"/bin/busybox": "busybox-static", "/bin/bash-static": "bash-static",
	// A newer Debian in a directory, with newer programs.
	"mmdebstrap": "mmdebstrap", "nsenter": "util-linux",
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout))
}

func run(packages []string, out io.Writer) int {
	if len(packages) == 0 {
		packages = []string{"./tests", "./..."} // what takes longest first: it runs beside all the others
	}
	setUp(out)
	res, err := test(packages, out)
	if err != nil {
		fmt.Fprintf(out, "all: %v\n", err)
	}
	fmt.Fprintf(out, "\n%d tests passed, %d failed, %d could not run here\n", res.passed, len(res.failed), len(res.skipped))
	for _, name := range slices.Sorted(maps.Keys(res.skipped)) {
		fmt.Fprintf(out, "  not run: %s: %s\n", name, res.skipped[name])
	}
	for _, name := range res.failed {
		fmt.Fprintf(out, "  FAILED: %s\n", name)
	}
	switch {
	case err != nil || len(res.failed) > 0:
		return 1
	case len(res.skipped) > 0 && os.Getenv("ARCH_TEST_REQUIRE") == "all":
		fmt.Fprintln(out, "ARCH_TEST_REQUIRE=all: what could not run is a failure")
		return 1
	}
	return 0
}

func has(peer string) bool {
	if path.IsAbs(peer) {
		_, err := os.Stat(peer)
		return err == nil
	}
	_, err := exec.LookPath(peer)
	return err == nil
}

// setUp installs missing peers where that is possible; where not, the tests that need them say so.
func setUp(out io.Writer) {
	var missing []string
	for peer, pkg := range peers {
		if !has(peer) && !slices.Contains(missing, pkg) {
			missing = append(missing, pkg)
		}
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 || len(missing) == 0 {
		return
	}
	slices.Sort(missing)
	fmt.Fprintf(out, "installing %s\n", strings.Join(missing, " "))
	install := append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)
	for _, args := range [][]string{{"update", "-qq"}, install} {
		cmd := exec.Command("apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if text, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(out, "apt-get %s: %v\n%s", args[0], err, text)
		}
	}
}

// results are what became of the tests, by package and name.
type results struct {
	passed  int
	failed  []string
	skipped map[string]string // reason
}

// event is a line of go test -json (cmd/test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// test runs go test and follows its events.
func test(packages []string, out io.Writer) (results, error) {
	res := results{skipped: map[string]string{}}
	// Three packages at a time: many wait for the disk or for a guest. No vet: .ci/run has go vet look at everything, and more
	// thoroughly; here it would check types of every package once more.
	args := append([]string{"test", "-json", "-race", "-vet=off", "-shuffle=on", "-timeout=60m", "-p=3", "-exec=env -u GOGC"}, packages...)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOGC=400") // for the compiler, which saves a tenth of its time by it; tests run as users run programs
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return res, err
	}
	if err := cmd.Start(); err != nil {
		return res, err
	}
	output := map[string]*strings.Builder{}
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			res.add(e, output, out)
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	if err != nil && len(res.failed) > 0 {
		err = nil // the failures say it
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return res, err
}

func (r *results) add(e event, output map[string]*strings.Builder, out io.Writer) {
	name := e.Package
	if e.Test != "" {
		name += "." + e.Test
	}
	switch e.Action {
	case "output", "build-output":
		name = cmp.Or(name, "build")
		if output[name] == nil {
			output[name] = &strings.Builder{}
		}
		output[name].WriteString(e.Output)
	case "pass":
		if e.Test == "" {
			fmt.Fprintf(out, "ok    %s (%.1fs)\n", e.Package, e.Elapsed)
			return
		}
		r.passed++
		delete(output, name)
	case "skip":
		if e.Test != "" {
			r.skipped[name] = reason(output[name])
		}
	case "fail":
		r.failed = append(r.failed, name)
		fmt.Fprintf(out, "FAIL  %s\n", name)
		if text := output[name]; text != nil {
			io.WriteString(out, text.String())
		}
		if text := output["build"]; text != nil && e.Test == "" {
			io.WriteString(out, text.String())
		}
	}
}

// reason finds what a skipped test said.
func reason(output *strings.Builder) string {
	if output == nil {
		return "it did not say why"
	}
	for line := range strings.Lines(output.String()) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			return line
		}
	}
	return "it did not say why"
}
