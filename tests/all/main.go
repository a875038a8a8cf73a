// Command all runs every test of the repository and tells at the end what could not run here, and why.
//
//	go run ./tests/all [PACKAGE...]
//
// Packages that start goroutines are tested with the race detector. On a Debian machine it first installs, as root, what some
// tests compare with (nix-bin, bubblewrap, git, gcc, …). With ARCH_TEST_REQUIRE=all, as in CI, a test that could not run is a failure.
//
// go test starts the binaries of tests by this command, too (all exec BINARY ARG...), which tells what CPU time they and all their children took.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
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
	if len(os.Args) > 2 && os.Args[1] == executeArgument {
		os.Exit(execute(os.Args[2], os.Args[3:]))
	}
	os.Exit(run(os.Args[1:], os.Stdout))
}

// executeArgument makes this command what go test starts binaries with. What it says of them begins with cpuPrefix.
const (
	executeArgument = "exec"
	cpuPrefix       = "all: CPU time "
)

// execute runs the binary of a package's tests, as a user would run a program, and returns its exit status.
func execute(binary string, args []string) int {
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command(binary, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOGC=") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT) // by the last, go test asks for stacks
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "all: %v\n", err)
		return 1
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &used) == nil {
		fmt.Printf("%s%v\n", cpuPrefix, time.Duration(used.Utime.Nano()+used.Stime.Nano()).Round(100*time.Millisecond))
	}
	switch status := cmd.ProcessState.ExitCode(); {
	case err == nil:
		return 0
	case status > 0:
		return status
	default:
		fmt.Fprintf(os.Stderr, "all: %v\n", err)
		return 2
	}
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
	fmt.Fprintf(out, "\n%d tests passed, %d failed, %d could not run here; %v of CPU time\n", res.passed, len(res.failed), len(res.skipped), res.total)
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

	cpu   map[string]time.Duration // of a package
	total time.Duration            // of all
}

// event is a line of go test -json (cmd/test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// test runs the tests of packages that start goroutines with the race detector, beside it all others without, and follows what go test says of
// them. A binary with the detector takes several times as long to compile, to link and to run.
func test(packages []string, out io.Writer) (results, error) {
	res := results{skipped: map[string]string{}, cpu: map[string]time.Duration{}}
	concurrent, others, err := split(packages)
	if err != nil {
		return res, err
	}
	// Some packages at a time: many wait for the disk or for a guest. What is compiled without the detector has the settings of the programs that
	// tests make, and so is compiled once.
	groups := []group{{"0", nil, others}, {"1", []string{"-race", "-gcflags=" + compressors + "=-race=false -d=checkptr=0"}, concurrent}}
	events, errs := make(chan event), make([]error, len(groups))
	var running sync.WaitGroup
	for i, g := range groups {
		if len(g.packages) > 0 {
			running.Go(func() { errs[i] = g.test(events) })
		}
	}
	go func() {
		running.Wait()
		close(events)
	}()
	output := map[string]*strings.Builder{}
	for e := range events {
		res.add(e, output, out)
	}
	if len(res.failed) > 0 {
		return res, nil // the failures say it
	}
	return res, errors.Join(errs...)
}

// compressors are the packages that the race detector does not look into: they share nothing that we do not hand them, and compress every log and
// every content of a store. With it they take half of the time of the tests of package builder.
const compressors = "github.com/klauspost/compress/..."

// group is what one go test is about.
type group struct {
	cgo      string // CGO_ENABLED
	flags    []string
	packages []string
}

// test runs go test.
func (g group) test(events chan<- event) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// No vet: .ci/run has go vet look at everything, and more thoroughly; here it would check types of every package once more.
	args := []string{"test", "-json", "-vet=off", "-trimpath", "-shuffle=on", "-timeout=60m", "-p=2", "-exec=" + self + " " + executeArgument}
	cmd := exec.Command("go", slices.Concat(args, g.flags, g.packages)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+g.cgo, "GOGC=400") // for the compiler, which saves a tenth of its time by it
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			events <- e
		}
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return nil
}

// split tells packages whose code or tests start goroutines from the others, in the order of the arguments. Those below ./tests are among the
// others: they are about programs, which they compile and start.
func split(patterns []string) (concurrent, others []string, err error) {
	const format = "{{.ImportPath}}{{$d := .Dir}}{{range .GoFiles}}\t{{$d}}/{{.}}{{end}}{{range .TestGoFiles}}\t{{$d}}/{{.}}{{end}}{{range .XTestGoFiles}}\t{{$d}}/{{.}}{{end}}"
	list := exec.Command("go", append([]string{"list", "-f", format}, patterns...)...)
	list.Stderr = os.Stderr
	text, err := list.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("go list: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		starts, err := startsGoroutines(fields[1:])
		if err != nil {
			return nil, nil, err
		}
		if starts && !strings.HasPrefix(fields[0], "arch.network/tests") {
			concurrent = append(concurrent, fields[0])
		} else {
			others = append(others, fields[0])
		}
	}
	return concurrent, others, nil
}

// startsGoroutines reports whether a file has a go statement, or calls what is known to make one: sync.WaitGroup.Go and the like, AfterFunc,
// testing.T.Parallel, testing.B.RunParallel.
func startsGoroutines(files []string) (bool, error) {
	starters := []string{"Go", "AfterFunc", "Parallel", "RunParallel"}
	found := false
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return false, err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				found = true
			case *ast.SelectorExpr:
				found = found || slices.Contains(starters, n.Sel.Name)
			}
			return !found
		})
	}
	return found, nil
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
		if text, ok := strings.CutPrefix(strings.TrimSpace(e.Output), cpuPrefix); ok {
			used, _ := time.ParseDuration(text)
			r.cpu[e.Package] = used
			r.total += used
		}
	case "pass":
		if e.Test == "" {
			fmt.Fprintf(out, "ok    %s (%.1fs, CPU %v)\n", e.Package, e.Elapsed, r.cpu[e.Package])
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
