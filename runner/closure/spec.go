package closure

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"arch.network/runner"
)

// Run is what a job adds to a closure.
type Run struct {
	Top string // the store path that the job names
	// Program is the program's path below Top, such as "/bin/hello", or its whole path in any path of the closure. Empty: Top
	// itself, which must be a file then.
	Program  string
	Args     []string // the program's arguments, without its name
	Env      map[string]string
	Writable []string // absolute, clean paths that the program may write to: each is an empty file system in memory
}

// Spec returns how to run a program of a closure: Commands and Mounts of the result are set; limits, inputs, outputs and all else are
// the caller's to add. The file system holds the paths of the closure, read-only, and nothing else. It is a pure function.
func Spec(paths []Path, run Run) (runner.Spec, error) {
	program, err := run.program(paths)
	if err != nil {
		return runner.Spec{}, err
	}
	env := make([]string, 0, len(run.Env))
	for _, name := range slices.Sorted(maps.Keys(run.Env)) {
		env = append(env, name+"="+run.Env[name])
	}
	list := Mounts(paths)
	for _, dir := range slices.Sorted(slices.Values(run.Writable)) {
		list = append(list, runner.Mount{Kind: runner.Tmpfs, Target: dir})
	}
	return runner.Spec{
		Commands: []runner.Command{{Argv: append([]string{program}, run.Args...), Env: env, Dir: "/"}},
		Mounts:   list,
	}, nil
}

func (run Run) program(paths []Path) (string, error) {
	if run.Program == "" {
		return run.Top, nil
	}
	if path.IsAbs(run.Program) && path.Clean(run.Program) == run.Program && !strings.ContainsRune(run.Program, 0) {
		for _, p := range paths {
			if inside(run.Program, p.StorePath) {
				return run.Program, nil
			}
		}
		if store, _ := path.Split(run.Top); !strings.HasPrefix(run.Program, store) {
			return run.Top + run.Program, nil
		}
	}
	return "", fmt.Errorf("program %q is no clean, absolute path of the closure of %s", run.Program, run.Top)
}

// Mounts returns the mounts that make the paths appear, read-only, at their own names.
func Mounts(paths []Path) []runner.Mount {
	list := make([]runner.Mount, len(paths))
	for i, p := range paths {
		list[i] = runner.Mount{Kind: runner.Bind, Source: p.Source, Target: p.StorePath}
	}
	return list
}
