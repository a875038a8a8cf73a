package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"arch.network/agent/content"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/runner"
	"arch.network/runner/gas"
	"arch.network/runner/job"
	"arch.network/runner/wasm"
)

// JobError says that a job did not do what it had to.
type JobError struct {
	Name   string
	Result runner.Result
	Cure   string
}

func (e *JobError) Error() string { return fmt.Sprintf("job %s %s", e.Name, e.Result.Sentence()) }

// Hint tells the way out.
func (e *JobError) Hint() string { return e.Cure }

// newJobError explains a result that is no success.
func newJobError(doc *manifest.Job, r runner.Result) error {
	cures := map[runner.Reason]string{
		runner.ReasonTimeout:     "raise spec.timeout in the document, or the policy's",
		runner.ReasonOutOfMemory: "raise spec.resources.memory in the document; what is in /tmp and /outputs counts as memory",
		runner.ReasonLimit:       "raise the limit in spec.resources of the document",
		runner.ReasonNotFound:    "every output of the document must be at /outputs/NAME when the job ends",
	}
	return &JobError{Name: doc.Metadata.Name, Result: r, Cure: cures[r.Reason]}
}

// execution is one run of a job: what it leaves while it runs.
type execution struct {
	*runshop
	target  *jobTarget
	options runOptions
	trees   map[string]digest.SHA256 // NAR hashes of the outputs, all in the store

	checkpoint *checkpointed // nil: the job does not take part in checkpoints
}

// execute runs the job, delivers what it left, and tells of it.
func (w *runshop) execute(ctx context.Context, t *jobTarget, o runOptions, spec runner.Spec, c *content.Content, signer identity.Signer) error {
	if err := w.openRunner(ctx, t, o); err != nil {
		return err
	}
	e := &execution{runshop: w, target: t, options: o, trees: map[string]digest.SHA256{}}
	if err := e.mayReplace(); err != nil {
		return err
	}
	stdout, stderr := newStream(w.app, "stdout", w.app.out), newStream(w.app, "stderr", w.app.err)
	spec.Stdout, spec.Stderr, spec.Collect = stdout, stderr, e.collect(ctx)
	w.progress.end()
	started := time.Now()
	result, err := e.run(ctx, spec)
	finished := time.Now()
	if flushed := errors.Join(stdout.flush(), stderr.flush()); err == nil {
		err = flushed
	}
	if err != nil {
		return err
	}
	if e.checkpoint != nil && e.checkpoint.stopped != nil {
		return withStatus(exitInterrupted, &stoppedError{gas: *e.checkpoint.stopped, dir: e.options.checkpoint})
	}
	if result.Reason == runner.ReasonCancelled || interrupted(ctx) && e.checkpoint == nil {
		return withStatus(exitInterrupted, errors.New("interrupted"))
	}
	outcome := job.Outcome{
		Result: result, Inputs: c.Resolved, Stdout: stdout.printed(), Stderr: stderr.printed(),
		Started: started, Finished: finished, Versions: map[string]string{"arch": version},
	}
	if t.doc.Spec.Runtime == manifest.RuntimeWasm {
		outcome.Schedule = gas.Version
	}
	return e.finish(ctx, outcome, signer)
}

// run has the runner run the job, with checkpoints if it takes part in them.
func (e *execution) run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	if !e.options.checkpoints(e.target) {
		return e.runner.Run(ctx, spec)
	}
	c, err := openCheckpoint(e.options.checkpoint, e.target)
	if err != nil {
		return runner.Result{}, err
	}
	defer c.close()
	e.checkpoint = c
	for name, to := range map[string]*io.Writer{"stdout": &spec.Stdout, "stderr": &spec.Stderr} {
		tee, end, err := c.tee(name, *to)
		if err != nil {
			return runner.Result{}, fmt.Errorf("keep what the job prints: %w", err)
		}
		defer end()
		*to = tee
	}
	run := e.runner
	switch r := e.runner.(type) {
	case *wasm.Runner:
		ctx, run = c.runner(ctx, r, e.options.stopAt)
	case *brokerRunner:
		r.checkpoint, r.stopAt = c, e.options.stopAt
	}
	result, err := run.Run(ctx, spec)
	if err == nil && result.OK() {
		err = c.done()
	}
	return result, err
}

// collect keeps each output in the store.
func (e *execution) collect(ctx context.Context) func(runner.Output, io.Reader) error {
	return func(out runner.Output, r io.Reader) error {
		sum, err := e.store.AddTree(ctx, r, digest.SHA256{})
		if err != nil {
			return fmt.Errorf("keep output %s: %w", out.Name, err)
		}
		e.trees[out.Name] = sum
		return nil
	}
}

// finish judges the outcome, delivers, attests and tells. What is not as it must be is told too, before it is an error.
func (e *execution) finish(ctx context.Context, o job.Outcome, signer identity.Signer) error {
	doc := e.target.doc
	res := e.describe(o)
	verdict := e.judge(o.Result)
	if verdict == nil {
		var err error
		if o.Outputs, err = e.outputs(); err != nil {
			return err
		}
		res.Outputs = e.describeOutputs(o.Outputs)
		verdict = e.compare(o.Outputs)
	}
	if verdict == nil {
		if err := e.deliver(ctx, o.Outputs); err != nil {
			return err
		}
		o.Published, verdict = e.publish(ctx, o.Outputs) // what was pushed before one failed is on record
		res.published(o.Published)
	}
	result, run, err := job.Statements(doc, o)
	if err != nil {
		return err
	}
	if err := res.identify(result, run); err != nil {
		return err
	}
	if signer != nil {
		if err := e.attest(ctx, result, run, signer, &res); err != nil {
			return err
		}
	}
	if err := e.app.tell(res); err != nil {
		return err
	}
	return verdict
}

// judge returns why the job is no success.
func (e *execution) judge(r runner.Result) error {
	if !r.OK() {
		return newJobError(e.target.doc, r)
	}
	if e.target.policyID.IsZero() {
		return nil
	}
	for _, m := range attest.Weaknesses(r.Confinement.Missing) {
		name, _, _ := strings.Cut(m, ":")
		if !slices.Contains(e.target.policy.Spec.Degradations, name) {
			return hinted(withStatus(exitDenied, fmt.Errorf("job %s: its outputs are withheld: policy %s wants every guarantee, and one was missing: %s",
				e.target.doc.Metadata.Name, e.target.policy.Metadata.Name, m)),
				fmt.Sprintf("arch doctor tells what this machine lacks; to accept it, add %q to degradations in the policy", name))
		}
	}
	return nil
}

// outputs names what was collected by all its digests.
func (e *execution) outputs() ([]attest.JobOutput, error) {
	out, err := content.Outputs(e.store, e.target.doc, e.trees)
	if _, ok := errors.AsType[*content.LinkError](err); ok {
		return nil, withStatus(exitExecution, err)
	}
	return out, err
}

// compare holds the outputs to what the document expects: spec.expected, and outputs that are pinned.
func (e *execution) compare(outputs []attest.JobOutput) error {
	differs := content.Compare(e.target.doc, outputs)
	if len(differs) == 0 {
		return nil
	}
	return hinted(withStatus(exitNotReproducible, differs[0]), "nothing was delivered; the output is in the store: arch store ls")
}

// deliver writes every output into the result directory, and to the place that the document names.
func (e *execution) deliver(ctx context.Context, outputs []attest.JobOutput) error {
	if len(outputs) == 0 {
		return nil
	}
	if err := makeDirectory(e.options.out); err != nil {
		return err
	}
	var nars []digest.SHA256
	for _, o := range outputs {
		nars = append(nars, o.NAR)
		for _, place := range e.options.places(e.target.doc, o.Name) {
			if err := e.place(ctx, o, place); err != nil {
				return fmt.Errorf("deliver output %s: %w", o.Name, err)
			}
		}
	}
	dir, err := filepath.Abs(e.options.out)
	if err != nil {
		return err
	}
	return e.store.AddRoot("result "+filepath.Join(dir, e.target.doc.Metadata.Name), nars...)
}

// place writes one output to path, and remembers it if it is a directory, so that the next run may replace it.
func (e *execution) place(ctx context.Context, o attest.JobOutput, path string) error {
	from, ok := e.store.TreePath(o.NAR)
	if !ok {
		return fmt.Errorf("%s is not in the store", o.NAR)
	}
	err := builder.Place(path, func(temp string) error { return builder.CopyTree(ctx, o.NAR, from, temp, time.Now().Unix()) })
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() {
		return err
	}
	real, err := realPath(path)
	if err != nil {
		return err
	}
	return e.store.Remember(deliveredKind, deliveredKey(real), []byte(stateOf(info)))
}

// places are where an output goes.
func (o *runOptions) places(doc *manifest.Job, name string) []string {
	list := []string{filepath.Join(o.out, name)}
	if p, ok := strings.CutPrefix(doc.Spec.Outputs[name].Destination, "file://"); ok {
		list = append(list, p)
	}
	return list
}

// checkPlace refuses a result directory that is none, before anything is run.
func (o *runOptions) checkPlace(t *jobTarget) error {
	if info, err := os.Stat(o.out); err == nil && !info.IsDir() {
		return hinted(fmt.Errorf("result directory %s is %s", o.out, kindOf(info.Mode())), "choose another directory with --out")
	}
	for name, target := range t.doc.Spec.Outputs {
		if !content.Comparable(target) {
			return hinted(fmt.Errorf("output %s must be %s, which a file or tree cannot be compared with", name, target.Ref),
				"pin it as tree:NAME#sha256-…, or as a URL or CID of the file's bytes, or name its NAR hash in spec.expected")
		}
		place, err := realPath(filepath.Join(o.out, name))
		if err != nil {
			return err
		}
		file, err := realPath(t.file)
		if err != nil {
			return err
		}
		if t.file != "-" && within(file, place) {
			return hinted(usage("output %q would go to %s, which is or holds the document", name, place), "choose another directory with --out")
		}
	}
	return nil
}

// mayReplace refuses to deliver where that would remove a directory which arch did not make.
func (e *execution) mayReplace() error {
	for name := range e.target.doc.Spec.Outputs {
		for _, place := range e.options.places(e.target.doc, name) {
			if err := mayReplaceTree(e.store, name, place); err != nil {
				return err
			}
		}
	}
	return nil
}

func makeDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make result directory: %w", err)
	}
	return nil
}
