package oci

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/builder/source/imagespec"
	"arch.network/runner"
)

// Root is an image that is ready to be run. Cache.Root makes it.
type Root struct {
	Dir      string        // the root file system, on the host; to be mounted read-only
	Manifest digest.SHA256 // of the image's manifest: the one chosen, if an index was given
	Chain    digest.SHA256 // the image's chain id, which names the root file system
	Config   imagespec.Execution
	User     User // Config.User, looked up in the root file system

	// WorkDir is Config.WorkingDir, with symbolic links on the way resolved inside the root; "/" if the image has none.
	WorkDir        string
	WorkDirMissing bool // it is not there
	// Volumes are the paths of Config.Volumes, sorted, with symbolic links on the way resolved inside the root.
	Volumes []string
}

// User is who an image runs as.
type User struct {
	UID, GID int    // zero: what a runner.Spec has by default
	Home     string // absolute; "/" if the image does not say
}

// Run is what a job adds to an image.
type Run struct {
	// Program is the absolute path, inside, of a program to run in place of the image's entry point and command.
	// Empty: the entry point.
	Program string
	Args    []string          // the program's arguments, in place of the image's command if there are any
	Env     map[string]string // added to the image's environment; where both set a variable, this wins
	// Writable are absolute, clean paths that the program may write to: each is an empty file system in memory.
	Writable []string
}

// defaultPath is PATH for an image that sets none, as everybody who runs containers has it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Spec returns how to run an image: Commands, Mounts, UID and GID of the result are set; limits, inputs, outputs and all else are the
// caller's to add. It is a pure function.
//
// Of the image's configuration (image-spec config.md):
//
//   - Entrypoint and Cmd make the command; Run.Args take the place of Cmd, Run.Program that of both.
//   - Env is the environment, with PATH and HOME added if they are missing; Run.Env wins.
//   - User is looked up in the image's own /etc/passwd and /etc/group. Nothing in a confinement is root: an image that wants
//     user 0, or names none, runs with the ids that a Spec has by default, and so it is with group 0. Everybody can read all of the
//     root file system and nobody can write to it, so little is missed. Supplementary groups are not given.
//   - WorkingDir is the directory of the command; if the image lacks it, it is an empty, writable one.
//   - Volumes are empty, writable file systems in memory, like Run.Writable.
//   - StopSignal, ExposedPorts, Healthcheck and labels mean nothing here.
func Spec(root Root, run Run) (runner.Spec, error) {
	argv, err := argv(root.Config, run)
	if err != nil {
		return runner.Spec{}, err
	}
	dir, mounts, err := mounts(root, run.Writable)
	if err != nil {
		return runner.Spec{}, err
	}
	env, err := environment(root, run.Env)
	if err != nil {
		return runner.Spec{}, err
	}
	return runner.Spec{
		Commands: []runner.Command{{Argv: argv, Env: env, Dir: dir}},
		Mounts:   mounts,
		UID:      root.User.UID,
		GID:      root.User.GID,
	}, nil
}

func argv(c imagespec.Execution, run Run) ([]string, error) {
	args := c.Cmd
	if len(run.Args) > 0 {
		args = run.Args
	}
	list := slices.Concat(c.Entrypoint, args)
	if run.Program != "" {
		if !clean(run.Program) {
			return nil, fmt.Errorf("program %q is no clean, absolute path", run.Program)
		}
		list = append([]string{run.Program}, run.Args...)
	}
	if len(list) == 0 || list[0] == "" {
		return nil, &imageError{"the image names no program to run", "name one in the job's module, with its arguments in args"}
	}
	for _, arg := range list {
		if strings.ContainsRune(arg, 0) {
			return nil, fmt.Errorf("argument %q holds a NUL byte", arg)
		}
	}
	return list, nil
}

// environment merges, and sorts by name.
func environment(root Root, more map[string]string) ([]string, error) {
	env := map[string]string{"PATH": defaultPath, "HOME": root.User.Home}
	for _, line := range root.Config.Env {
		name, value, ok := strings.Cut(line, "=")
		if !ok || name == "" || strings.ContainsRune(line, 0) {
			return nil, fmt.Errorf("the image's environment has %.100q, which is not NAME=VALUE", line)
		}
		env[name] = value
	}
	maps.Copy(env, more)
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list, nil
}

// mounts returns the command's directory and the file system.
func mounts(root Root, writable []string) (dir string, list []runner.Mount, err error) {
	dir = cmp.Or(root.WorkDir, "/")
	if !clean(dir) {
		return "", nil, fmt.Errorf("working directory %.200q is no clean, absolute path", dir)
	}
	all := slices.Concat(root.Volumes, writable)
	hidden := slices.ContainsFunc(all, func(p string) bool { return strings.HasPrefix(dir, p+"/") })
	if hidden || root.WorkDirMissing {
		all = append(all, dir)
	}
	slices.Sort(all) // parents first
	list = []runner.Mount{{Kind: runner.Bind, Source: root.Dir, Target: "/"}}
	for _, p := range slices.Compact(all) {
		if err := mayWrite(p); err != nil {
			return "", nil, err
		}
		list = append(list, runner.Mount{Kind: runner.Tmpfs, Target: p})
	}
	return dir, list, nil
}

// mayWrite refuses places that are not an image's or a job's to make writable.
func mayWrite(p string) error {
	if !clean(p) || p == "/" {
		return fmt.Errorf("writable path %.100q is no clean, absolute path below the root", p)
	}
	for _, kept := range []string{"/proc", "/dev", "/sys"} {
		if p == kept || strings.HasPrefix(p, kept+"/") {
			return fmt.Errorf("writable path %.100q lies in %s, which is the runner's", p, kept)
		}
	}
	return nil
}

// clean reports whether p is absolute and has one spelling.
func clean(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}
