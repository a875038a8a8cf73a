package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"arch.network/attest/digest/nar"
)

// TestMain makes of this binary three programs: the tests, the arch of the scripts, and the first process of arch's
// confinements.
func TestMain(m *testing.M) {
	if handled, code := otherMain(os.Args); handled {
		os.Exit(code)
	}
	testscript.Main(m, map[string]func(){"arch": func() { os.Exit(scriptMain()) }})
}

// noRaceSleep is a GORACE: a process under the race detector waits a second before it exits, unless told not to.
const noRaceSleep = "atexit_sleep_ms=0"

// plain are the scripts, as patterns, whose arch is the plain program: they show documents, keys, settings and mistakes, of which nothing runs beside
// anything else, or repeat what build does with another factor. The arch of all others is this binary, which has the race detector where
// the tests have, and takes several times as long to start.
var plain = []string{
	"build_guilty_*", "build_mistakes", "config", "explain", "help", "key", "ledger_mistakes", "nix_mistakes", "output", "policy", "sign", "trust", "trust_update",
	"verify_mistakes",
}

// TestScripts runs testdata/script. Each script has its own home, configuration and store below $WORK, and
// finds there
//
//	$TOOL      the static program of testdata/tool
//	$JOBS      the example jobs of the repository
//	$GRAPH     an expression with derivations of every kind, for Nix
//
// Commands beside testscript's own:
//
//	status N COMMAND…         COMMAND ends with the exit status N
//	manifest FILE NAME ARGV…  writes a Build with one step, which runs $TOOL, and one output NAME
//	json FILE PATH VALUE      the JSON in FILE has VALUE at PATH, such as .outputs.0.name; VALUE * is anything
//	edit FILE OLD NEW         replaces OLD, which must occur, by NEW in FILE
//	flip FILE OFFSET          changes one byte
//	await FILE TEXT           waits until FILE, a glob, holds TEXT
//	gone TEXT                 no process has TEXT among its arguments
//	empty DIR                 DIR holds nothing
//	clean FILE                FILE has no byte that a terminal would act on
//	module FILE KIND          writes a WebAssembly module: see newModule
//	node                      starts a node that jobs can be handed to: see cmdNode
//	fetch FILE/PATH TO        writes to TO what is at PATH of the URL in FILE, which arch serve-store has printed
//	agent DIR                 starts a real agent: see cmdAgent
//	forge FILE OUT            writes another archive file, whose node claims more gas and has signed that
//	nar PATH NAME             sets the environment variable NAME to the NAR hash of PATH, as SRI
func TestScripts(t *testing.T) {
	tool, worker := buildTool(t), buildWorker(t)
	for _, pattern := range plain {
		if found, err := filepath.Glob(filepath.Join("testdata/script", pattern+".txtar")); err != nil || len(found) == 0 {
			t.Fatalf("no script is called %s: %v", pattern, err)
		}
	}
	jobs, err := filepath.Abs("../../tests/examples/jobs")
	if err != nil {
		t.Fatal(err)
	}
	graph, err := filepath.Abs("../../builder/nix/testdata/graph.nix")
	if err != nil {
		t.Fatal(err)
	}
	record := t.TempDir()
	t.Cleanup(func() { checkRecord(t, record) })
	clock := sync.OnceValues(func() (bool, error) { return shiftsClock(t.TempDir(), tool) })
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			for name, value := range map[string]string{
				"TOOL": tool, "HOME": "$WORK/home", "XDG_CONFIG_HOME": "$WORK/config", "XDG_STATE_HOME": "$WORK/state",
				"XDG_DATA_HOME": "$WORK/data", "XDG_CACHE_HOME": "$WORK/cache", "ARCH_WORKER": worker, "JOBS": jobs, "GRAPH": graph, "ARCH_STORE": "$WORK/store", "TERM": "xterm", "GOPROXY": "off",
				"GOMAXPROCS": "2", "GORACE": noRaceSleep, recordVariable: record,
			} {
				env.Setenv(name, strings.ReplaceAll(value, "$WORK", env.WorkDir))
			}
			name := strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
			if slices.ContainsFunc(plain, func(pattern string) bool { ok, _ := path.Match(pattern, name); return ok }) {
				env.Setenv("PATH", filepath.Dir(worker)+string(filepath.ListSeparator)+env.Getenv("PATH"))
			}
			for _, dir := range []string{"data", "data2"} { // Nix stores are read-only
				env.Defer(func() { nar.RemoveAll(filepath.Join(env.WorkDir, dir)) })
			}
			return os.Mkdir(filepath.Join(env.WorkDir, "home"), 0o755)
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Getuid() == 0, nil
			case "multicore":
				return runtime.NumCPU() > 1, nil
			case "nix":
				return hasNix(), nil
			case "clock":
				return clock()
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": cmdStatus, "manifest": cmdManifest, "json": cmdJSON, "edit": cmdEdit, "flip": cmdFlip,
			"await": cmdAwait, "gone": cmdGone, "empty": cmdEmpty, "clean": cmdClean, "node": cmdNode, "agent": cmdAgent, "forge": cmdForge,
			"module": cmdModule, "nar": cmdNAR, "fetch": cmdFetch,
		},
	})
}

// buildTool compiles the build tool of the scripts.
func buildTool(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tool")
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "./testdata/tool")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("compile the scripts' tool: %v\n%s", err, out)
	}
	return path
}

// buildWorker compiles arch without libraries: tests may be linked dynamically, and what runs a module must not be.
func buildWorker(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "arch")
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("compile arch: %v\n%s", err, out)
	}
	return path
}

// shiftsClock reports whether builds can be given another clock on this host, by what arch says of a build.
func shiftsClock(dir, tool string) (bool, error) {
	if err := writeManifest(filepath.Join(dir, "build.yaml"), tool, "clock", []string{"write", "/build/out", "x"}); err != nil {
		return false, err
	}
	exe, err := os.Executable()
	if err != nil {
		return false, err
	}
	c := exec.Command(exe, "build", "--attest", "--vary", "time", "--json", ".")
	c.Args[0], c.Dir = "arch", dir
	c.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME=", "XDG_STATE_HOME=", "ARCH_STORE="+filepath.Join(dir, "store"), "GORACE="+noRaceSleep)
	out, err := c.Output()
	var res buildResult
	if err == nil {
		err = json.Unmarshal(out, &res)
	}
	return slices.Contains(res.Varied, "time"), err
}

// hasNix reports whether Nix can build here from the static programs of Debian.
func hasNix() bool {
	for _, program := range []string{"nix", "nix-store", "git", "/bin/busybox", "/bin/bash-static"} {
		if _, err := exec.LookPath(program); err != nil {
			return false
		}
	}
	return true
}

func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func cmdManifest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: manifest FILE NAME ARGV...")
	}
	ts.Check(writeManifest(ts.MkAbs(args[0]), ts.Getenv("TOOL"), args[1], args[2:]))
}

// writeManifest writes a Build with one step, which runs the tool, and one output called name, and the tool beside it.
func writeManifest(path, tool, name string, args []string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, "tool")); err != nil {
		data, err := os.ReadFile(tool)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "tool"), data, 0o755); err != nil {
			return err
		}
	}
	argv, err := json.Marshal(append([]string{"/bin/tool"}, args...))
	if err != nil {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(nil, `apiVersion: arch.network/v1
kind: Build
metadata: {name: %[1]s}
spec:
  platform: linux/%[2]s
  sourceDateEpoch: 1767225600
  inputs:
    - {name: tool, path: tool, mount: /bin/tool}
  steps:
    - {argv: %[3]s}
  outputs:
    - {name: %[1]s, path: /build/out, type: file}
`, name, runtime.GOARCH, argv), 0o644)
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: json FILE PATH VALUE")
	}
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
	var v any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &v); err != nil {
		ts.Fatalf("%s: its last line is no JSON: %v", args[0], err)
	}
	for name := range strings.SplitSeq(strings.TrimPrefix(args[1], "."), ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(at) {
				ts.Fatalf("%s: no element %q in an array of %d", args[1], name, len(at))
			}
			v = at[i]
		default:
			v = nil
		}
	}
	got := strings.ReplaceAll(fmt.Sprint(v), "\n", `\n`)
	if text, ok := v.(float64); ok {
		got = strconv.FormatFloat(text, 'f', -1, 64)
	}
	ok := v != nil && args[2] == "*" || v != nil && got == args[2]
	if ok == neg {
		ts.Fatalf("%s is %q, want %q (negated: %v)", args[1], got, args[2], neg)
	}
}

func cmdEdit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], strings.ReplaceAll(args[2], `\n`, "\n"), 1)), 0o644))
}

func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	data := []byte(ts.ReadFile(args[0]))
	i, err := strconv.Atoi(args[1])
	ts.Check(err)
	data[i] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		files, _ := filepath.Glob(ts.MkAbs(args[0]))
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil && bytes.Contains(data, []byte(args[1])) {
				return
			}
		}
	}
	ts.Fatalf("%s never held %q", args[0], args[1])
}

// cmdGone gives the kernel a moment: a process that was killed is there until its parent has waited for it.
func cmdGone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone TEXT")
	}
	var left []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		left = nil
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil && bytes.Contains(data, []byte(args[0])) {
				left = append(left, fmt.Sprintf("%s: %q", file, data))
			}
		}
		if len(left) == 0 {
			return
		}
	}
	ts.Fatalf("still there: %s", strings.Join(left, ", "))
}

func cmdEmpty(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: empty DIR")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	ts.Check(err)
	if (len(entries) == 0) == neg {
		ts.Fatalf("%s holds %v", args[0], entries)
	}
}

func cmdNAR(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: nar PATH NAME")
	}
	sum, _, err := nar.Hash(context.Background(), ts.MkAbs(args[0]), nar.Options{})
	ts.Check(err)
	ts.Setenv(args[1], sum.SRI())
}

func cmdFetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fetch FILE/PATH TO")
	}
	file, path, _ := strings.Cut(args[0], "/")
	_, url, _ := strings.Cut(ts.ReadFile(file), " at ")
	resp, err := http.Get(strings.TrimSpace(url) + "/" + path)
	ts.Check(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s: status %s", args[0], resp.Status)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o644))
}

func cmdClean(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: clean FILE")
	}
	text := ts.ReadFile(args[0])
	i := strings.IndexFunc(text, unprintable)
	if (i < 0) == neg {
		ts.Fatalf("%s: %q", args[0], text[max(i, 0):])
	}
}
