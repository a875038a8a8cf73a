package builder

import (
	"fmt"
	"io/fs"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// BuildError says that a step did not end well.
type BuildError struct {
	Build  string // name of the manifest
	ID     digest.SHA256
	Step   string // the step's name, or its argv
	Result runner.Result
	Tail   string // last lines of the log; untrusted
}

func newBuildError(made *Made, result runner.Result, log *buildLog) *BuildError {
	e := &BuildError{Build: made.Manifest.Metadata.Name, ID: made.ID, Result: result, Tail: log.Tail()}
	if steps := made.Manifest.Spec.Steps; result.Command < len(steps) {
		step := steps[result.Command]
		e.Step = step.Name
		if e.Step == "" {
			e.Step = fmt.Sprintf("%q", step.Argv)
		}
	}
	return e
}

func (e *BuildError) Error() string {
	return fmt.Sprintf("build %s: step %s: %s", e.Build, e.Step, e.Cause())
}

// Cause says in a few words what ended the step.
func (e *BuildError) Cause() string {
	r := e.Result
	switch r.Reason {
	case runner.ReasonExit:
		return fmt.Sprintf("exit status %d", r.Exit)
	case runner.ReasonSignal:
		return "killed by " + r.Signal
	}
	if r.Detail != "" {
		return string(r.Reason) + ": " + r.Detail
	}
	return string(r.Reason)
}

// Hint tells what to look at.
func (e *BuildError) Hint() string {
	hint := fmt.Sprintf("the whole log: arch log %.12s", e.ID.Hex())
	switch e.Result.Reason {
	case runner.ReasonTimeout:
		return "raise spec.limits.timeSeconds; " + hint
	case runner.ReasonOutOfMemory:
		return "raise spec.limits.memory; " + hint
	case runner.ReasonNotFound:
		return "only listed inputs exist in a build, each at its mount; " + hint
	}
	return hint
}

// TypeError says that an output is not what the manifest declares.
type TypeError struct {
	Output manifest.BuildOutput
	Found  fs.FileMode
}

func (e *TypeError) Error() string {
	found := "a regular file"
	switch {
	case e.Found.IsDir():
		found = "a directory"
	case e.Found&fs.ModeSymlink != 0:
		found = "a symbolic link"
	}
	return fmt.Sprintf("%s is %s, but its type is %q", e.Output.Path, found, e.Output.Type)
}

// Hint tells the way out.
func (e *TypeError) Hint() string {
	if e.Found.IsDir() {
		return `declare the output's type as "tree", "tar" or "oci", or name a file within the directory`
	}
	return `declare the output's type as "file", or name a directory`
}

// NotReproducibleError says that a second build gave other bits.
type NotReproducibleError struct {
	Build   string
	ID      digest.SHA256
	Factors []Factor   // varied in the build that differed
	Guilty  []Factor   // each of which changes the bits alone; empty: none does, the build differs by itself or by a combination
	Random  bool       // the build differs even when nothing is varied
	Differ  []Mismatch // every output that differs
}

// Mismatch is one output with two contents.
type Mismatch struct {
	Output string        `json:"output"`
	First  digest.SHA256 `json:"first"`  // NAR hash
	Second digest.SHA256 `json:"second"` // NAR hash
	A      string        `json:"-"`      // path of the first tree in the store
	B      string        `json:"-"`      // path of the second
}

func (e *NotReproducibleError) Error() string {
	names := make([]string, len(e.Differ))
	for i, d := range e.Differ {
		names[i] = d.Output
	}
	cause := "no single factor explains it"
	switch {
	case e.Random:
		cause = "it differs even in equal surroundings (randomness, a race, or the time of day)"
	case len(e.Guilty) > 0:
		cause = "guilty: " + joinFactors(e.Guilty)
	}
	return fmt.Sprintf("build %s is not reproducible: output %s differs when built again; %s",
		e.Build, strings.Join(names, ", "), cause)
}

// Hint tells what to look at.
func (e *NotReproducibleError) Hint() string {
	if len(e.Differ) == 0 {
		return ""
	}
	return fmt.Sprintf("see what differs: arch diff %s %s", e.Differ[0].A, e.Differ[0].B)
}
