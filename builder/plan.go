package builder

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/runner"
)

// Defaults of a build's limits; a manifest may ask for less or more.
const (
	DefaultTime      = time.Hour
	DefaultProcesses = 4096
)

// defaultPath is the PATH of every step unless the manifest gives one.
const defaultPath = "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// plan derives from a build, its fetched inputs and the surroundings what the runner is asked for. It is pure: the
// mounted set is exactly the listed set, and the same arguments give the same Spec.
func plan(doc *manifest.Build, trees map[string]source.Tree, s surroundings) (runner.Spec, error) {
	limits, err := planLimits(doc.Spec.Limits)
	if err != nil {
		return runner.Spec{}, err
	}
	spec := runner.Spec{
		Mounts:      planMounts(doc, trees, s),
		Hostname:    s.hostname,
		UID:         s.uid,
		GID:         s.gid,
		Umask:       s.umask,
		CPUs:        s.cpus,
		Limits:      limits,
		ClockOffset: time.Duration(s.clockOffset) * time.Second,
	}
	for _, step := range doc.Spec.Steps {
		spec.Commands = append(spec.Commands, planStep(doc, step, s))
	}
	for _, out := range doc.Spec.Outputs {
		spec.Outputs = append(spec.Outputs, runner.Output{Name: out.Name, Path: s.place(out.Path)})
	}
	return spec, nil
}

// planMounts lists the root file system, if the manifest has one, the private file systems, then every input at its
// place, parents before children.
func planMounts(doc *manifest.Build, trees map[string]source.Tree, s surroundings) []runner.Mount {
	mounts := []runner.Mount{
		{Kind: runner.Tmpfs, Target: s.buildDir},
		{Kind: runner.Tmpfs, Target: "/tmp"},
	}
	for _, in := range doc.Spec.Inputs {
		m := runner.Mount{Kind: runner.Bind, Source: trees[in.Name].Path, Target: s.place(in.Mount)}
		if in.Writable {
			m.Kind, m.Reverse, m.ModTime = runner.Copy, s.reverse, doc.Spec.SourceDateEpoch
		}
		mounts = append(mounts, m)
	}
	slices.SortStableFunc(mounts, func(a, b runner.Mount) int {
		return cmp.Or(cmp.Compare(depth(a.Target), depth(b.Target)), strings.Compare(a.Target, b.Target))
	})
	return mounts
}

// depth is the number of elements of a clean absolute path.
func depth(p string) int {
	if p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}

func planStep(doc *manifest.Build, step manifest.BuildStep, s surroundings) runner.Command {
	env := map[string]string{
		"PATH":   defaultPath,
		"HOME":   path.Join(s.buildDir, ".home"),
		"TMPDIR": "/tmp",
		"LC_ALL": s.locale,
		"LANG":   s.locale,
		"TZ":     s.tz,
	}
	maps.Copy(env, doc.Spec.Env)
	maps.Copy(env, step.Env)
	env["SOURCE_DATE_EPOCH"] = strconv.FormatInt(doc.Spec.SourceDateEpoch, 10)
	cmd := runner.Command{Dir: s.place(cmp.Or(step.Dir, BuildDir))}
	for _, arg := range step.Argv {
		cmd.Argv = append(cmd.Argv, s.place(arg))
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, name+"="+s.place(env[name]))
	}
	return cmd
}

func planLimits(l manifest.BuildLimits) (runner.Limits, error) {
	r := runner.Limits{
		Wall:      DefaultTime,
		Processes: cmp.Or(l.Processes, DefaultProcesses),
	}
	if l.TimeSeconds > 0 {
		r.Wall = time.Duration(l.TimeSeconds) * time.Second
	}
	for _, q := range []struct {
		name string
		from manifest.Quantity
		to   *int64
	}{
		{"memory", l.Memory, &r.Memory}, {"scratch", l.Scratch, &r.Scratch}, {"output", l.Output, &r.Output},
	} {
		if q.from == "" {
			continue
		}
		n, err := q.from.Bytes()
		if err != nil {
			return runner.Limits{}, fmt.Errorf("read spec.limits.%s: %w", q.name, err)
		}
		*q.to = n
	}
	return r, nil
}
