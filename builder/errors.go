package builder

import (
	"fmt"
	"io/fs"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// PlatformError says that a build is for another kind of machine. Nothing was fetched.
type PlatformError struct {
	Build string
	Want  string // GOOS/GOARCH
	Here  string
}

func (e *PlatformError) Error() string {
	return fmt.Sprintf("build %s: it is made on %s, and this is %s", e.Build, e.Want, e.Here)
}

// Hint tells the way out.
func (e *PlatformError) Hint() string {
	return "build it on a machine of that kind; there is no emulation"
}

// BuildError says that a step did not end well, or that the steps left something else than the manifest declares.
type BuildError struct {
	Build  string // name of the manifest
	ID     digest.SHA256
	Step   string // the step's name, or its argv; empty if Err is set
	Result runner.Result
	Err    *OutputError // nil if a step failed
	Tail   string       // last lines of the log; untrusted

	log string // name of the log, without .log
}

func newBuildError(made *Made, result runner.Result, log *buildLog) *BuildError {
	e := &BuildError{Build: made.Manifest.Metadata.Name, ID: made.ID, Result: result, Tail: log.Tail(), log: log.name}
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
	if e.Err != nil {
		return fmt.Sprintf("build %s: %v", e.Build, e.Err)
	}
	return fmt.Sprintf("build %s: step %s: %s", e.Build, e.Step, e.Cause())
}

// Unwrap returns the error of the output, if it is one.
func (e *BuildError) Unwrap() error {
	if e.Err == nil {
		return nil
	}
	return e.Err
}

// Cause says in a few words what ended the step, or what is wrong with an output.
func (e *BuildError) Cause() string {
	if e.Err != nil {
		return e.Err.Error()
	}
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

// LastLine returns the last line of the log that is not empty, at most 200 bytes of it; it is untrusted.
func (e *BuildError) LastLine() string {
	text := strings.TrimSpace(e.Tail)
	text = text[strings.LastIndexByte(text, '\n')+1:]
	return text[max(0, len(text)-200):]
}

// Hint tells what to look at.
func (e *BuildError) Hint() string {
	hint := "the whole log: arch log " + e.logID()
	if e.Err != nil {
		if h, ok := e.Err.Err.(interface{ Hint() string }); ok {
			return h.Hint()
		}
		return hint
	}
	switch e.Result.Reason {
	case runner.ReasonTimeout:
		return "raise spec.limits.timeSeconds; " + hint
	case runner.ReasonOutOfMemory:
		return "raise spec.limits.memory; " + hint
	case runner.ReasonLimit:
		return limitHint(e.Result.Detail) + hint
	case runner.ReasonNotFound:
		return "only listed inputs exist in a build, each at its mount; " + hint
	}
	return hint
}

// limitHint names the field of the limit that Detail, "what: more than …", tells of.
func limitHint(detail string) string {
	what, _, _ := strings.Cut(detail, ":")
	field, _, _ := strings.Cut(what, " ") // "output NAME"
	switch field {
	case "output", "processes", "scratch":
		return "raise spec.limits." + field + "; "
	case "log":
		return "let the step write less; "
	}
	return ""
}

// logID is what `arch log` takes: the beginning of the id is enough for the log of a first build.
func (e *BuildError) logID() string {
	if e.log == e.ID.Hex() {
		return e.log[:12]
	}
	return e.log
}

// OutputError says that what the steps left behind is not an output as declared.
type OutputError struct {
	Output string
	Err    error
}

func (e *OutputError) Error() string { return fmt.Sprintf("output %s: %v", e.Output, e.Err) }

// Unwrap returns the cause.
func (e *OutputError) Unwrap() error { return e.Err }

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
	switch {
	case e.Found.IsDir():
		return `declare the output's type as "tree", "tar" or "oci", or name a file within the directory`
	case e.Found&fs.ModeSymlink != 0:
		return "name what the link leads to, or let the step copy it"
	}
	return `declare the output's type as "file", or name a directory`
}

// DamagedError says that the store does not hold what it says. Nothing was delivered.
type DamagedError struct {
	Form      string // "NAR", "tar" or "image"
	Want, Got digest.SHA256
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("the tree in the store is damaged: its %s is %s, was %s", e.Form, e.Got, e.Want)
}

// Hint tells the way out.
func (e *DamagedError) Hint() string {
	return "arch store verify puts damaged trees aside; then build again"
}

// NotReproducibleError says that a second build gave other bits, or failed where the first did not.
type NotReproducibleError struct {
	Build    string
	ID       digest.SHA256
	Factors  []Factor    // varied in the build that differed
	Guilty   []Factor    // each of which changes the bits alone
	Together []Factor    // none is guilty alone: the smallest set found that changes the bits; leaving out any of them does not
	Random   bool        // the build differs even when nothing is varied, and not only by the time
	Broken   *BuildError // the second build failed; nil: it gave other bits
	Differ   []Mismatch  // every output that differs; none if Broken
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
	what := "when built again it fails: " + e.brokenText()
	if e.Broken == nil {
		outputs := make([]string, len(e.Differ))
		for i, d := range e.Differ {
			outputs[i] = d.Output
		}
		what = fmt.Sprintf("output %s differs when built again", strings.Join(outputs, ", "))
	}
	return fmt.Sprintf("build %s is not reproducible: %s; %s", e.Build, what, e.cause())
}

func (e *NotReproducibleError) brokenText() string {
	switch {
	case e.Broken == nil:
		return ""
	case e.Broken.Step == "":
		return e.Broken.Cause()
	}
	return fmt.Sprintf("step %s: %s", e.Broken.Step, e.Broken.Cause())
}

func (e *NotReproducibleError) cause() string {
	switch {
	case e.Random:
		return "it does so even in equal surroundings (randomness, a race, or the time of day)"
	case len(e.Guilty) > 0:
		return "guilty: " + joinFactors(e.Guilty)
	case len(e.Together) > 0:
		return "guilty together: " + joinFactors(e.Together)
	}
	return "no factor explains it"
}

// Unwrap returns the failure of the second build, if it failed.
func (e *NotReproducibleError) Unwrap() error {
	if e.Broken == nil {
		return nil
	}
	return e.Broken
}

// Hint tells what to look at.
func (e *NotReproducibleError) Hint() string {
	switch {
	case e.Broken != nil:
		return "its log: arch log " + e.Broken.logID()
	case len(e.Differ) == 0:
		return ""
	}
	return fmt.Sprintf("see what differs: arch diff %s %s", e.Differ[0].A, e.Differ[0].B)
}
