package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"arch.network/agent/content"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder/diff"
	"arch.network/builder/store"
	"arch.network/runner"
	"arch.network/runner/gas"
	"arch.network/runner/job"
)

// Replayer runs archived jobs again.
type Replayer struct {
	Store    *store.Store
	Gatherer *content.Gatherer // whose Fetcher should be Offline: a replay is from the archive alone
	Runner   runner.Runner
	Policy   *manifest.Policy // what the job may have here; nil: job.LocalPolicy(nil)
	Signer   identity.Signer  // signs negative receipts; nil: they are not signed
	Version  string           // of the program
	Now      func() time.Time // nil: time.Now
}

// Replay is what came of one.
type Replay struct {
	Same     bool
	Result   digest.SHA256 // id of the result statement that came out; zero: the job did not end by itself
	Gas      uint64
	Sentence string // what came out
	// Negative says what differs, if something does. It is about the archived result.
	Negative *attest.Negative
	Receipt  *dsse.Envelope // that, signed
}

// RefusedError says that a job cannot be replayed so that it means something.
type RefusedError struct{ Job, Msg string }

func (e *RefusedError) Error() string { return fmt.Sprintf("replay job %s: %s", e.Job, e.Msg) }

// Replay runs the job of a bundle again, and compares. The error means that it could not be run; that something else came out is no error.
func (r *Replayer) Replay(ctx context.Context, b *Bundle) (*Replay, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	claim, doc, err := b.open()
	if err != nil {
		return nil, err
	}
	if !attest.Deterministic(doc) {
		return nil, &RefusedError{doc.Metadata.Name, "it reads the clock, the randomness or files of its node, so that another run need not give the same"}
	}
	lease, err := r.Store.Lease(ctx)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	c, err := r.Gatherer.Gather(ctx, doc, content.Options{})
	if err != nil {
		return nil, fmt.Errorf("replay job %s: %w", doc.Metadata.Name, err)
	}
	got, result, err := r.run(ctx, doc, b.Entry.Job, c)
	if err != nil {
		return nil, fmt.Errorf("replay job %s: %w", doc.Metadata.Name, err)
	}
	return r.compare(ctx, claim, got, result)
}

// open reads the archived result and the document.
func (b *Bundle) open() (*attest.Statement, *manifest.Job, error) {
	env, err := dsse.ParseLimit(b.Statements[b.Entry.Result], MaxStatement)
	if err != nil {
		return nil, nil, fmt.Errorf("read result: %w", err)
	}
	claim, err := attest.ParseStatement(env.Payload)
	if err != nil {
		return nil, nil, fmt.Errorf("read result: %w", err)
	}
	res, err := claim.JobResult()
	if err != nil {
		return nil, nil, fmt.Errorf("read result: %w", err)
	}
	if res.JobID != b.Entry.Job {
		return nil, nil, errors.New("read result: it is of another job")
	}
	doc, err := res.Document()
	return claim, doc, err
}

// printed hashes what is written to it.
type printed struct {
	mu   sync.Mutex
	sum  digest.Writer
	size int64
}

// Write implements io.Writer.
func (p *printed) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.size += int64(len(data))
	return p.sum.Write(data)
}

// run runs the job and makes the statement of its result; nil: it did not end by itself.
func (r *Replayer) run(ctx context.Context, doc *manifest.Job, id digest.SHA256, c *content.Content) (runner.Result, *attest.Statement, error) {
	spec, err := job.Derive(doc, c.Content, job.Options{ID: id, Policy: r.Policy, Instance: "replay"})
	if err != nil {
		return runner.Result{}, nil, err
	}
	spec.Name += "-" + strings.ToLower(id.Hex()[24:32])
	if spec.Module != nil {
		spec.Module.Reuse = "" // what is to confirm a result shares nothing with what made it
	}
	trees := map[string]digest.SHA256{}
	var stdout, stderr printed
	spec.Stdout, spec.Stderr = &stdout, &stderr
	spec.Collect = func(out runner.Output, nar io.Reader) error {
		sum, err := r.Store.AddTree(ctx, nar, digest.SHA256{})
		trees[out.Name] = sum
		return err
	}
	res, err := r.Runner.Run(ctx, spec)
	if err != nil || res.Reason != runner.ReasonExit {
		return res, nil, err
	}
	var outputs []attest.JobOutput
	if res.OK() {
		if outputs, err = content.Outputs(r.Store, doc, trees); err != nil {
			return res, nil, err
		}
	}
	var g attest.Gas
	if doc.Spec.Runtime == manifest.RuntimeWasm {
		g = attest.Gas{Used: int64(min(res.Gas, manifest.MaxInteger)), Schedule: gas.Version}
	}
	s, err := attest.NewJobResult(doc, c.Resolved, attest.JobSubjects(outputs, stdout.sum.Sum(), stdout.size), res.Exit, g)
	return res, s, err
}

// compare holds what came out to the archived result.
func (r *Replayer) compare(ctx context.Context, claim *attest.Statement, got runner.Result, result *attest.Statement) (*Replay, error) {
	now := r.Now
	if now == nil {
		now = time.Now
	}
	out := &Replay{Gas: got.Gas}
	n := attest.Negative{Tried: attest.FormatTime(now()), By: attest.Builder{ID: job.RunnerID, Version: map[string]string{"arch": r.Version}}}
	want, err := claim.ID()
	if err != nil {
		return nil, err
	}
	if result == nil {
		n.State, n.Cause, n.Retry = attest.FailedToBuild, "the job "+got.Sentence(), true
		return r.negative(ctx, out, claim, n)
	}
	if out.Result, err = result.ID(); err != nil {
		return nil, err
	}
	if out.Result == want {
		out.Same, out.Sentence = true, fmt.Sprintf("the same result, with %d gas", got.Gas)
		return out, nil
	}
	if err := r.explain(ctx, &n, claim, result); err != nil {
		return nil, err
	}
	return r.negative(ctx, out, claim, n)
}

// Names of what is compared beside the subjects.
const (
	subjectGas    = "#gas"
	subjectExit   = "#exit"
	subjectInputs = "#inputs"
)

// explain lists everything in which two results differ.
func (r *Replayer) explain(ctx context.Context, n *attest.Negative, claim, result *attest.Statement) error {
	a, err := claim.JobResult()
	if err != nil {
		return err
	}
	b, err := result.JobResult()
	if err != nil {
		return err
	}
	n.State = attest.Differs
	var causes []string
	differ := func(name string, want, got digest.SHA256, format string, args ...any) {
		n.Found = append(n.Found, attest.Mismatch{Name: name, Expected: want, Found: got})
		causes = append(causes, fmt.Sprintf(format, args...))
	}
	found := map[string]attest.ResourceDescriptor{}
	for _, s := range result.Subject {
		found[s.Name] = s
	}
	for _, s := range claim.Subject {
		want, _ := s.SHA256()
		got, _ := found[s.Name].SHA256()
		if want == got {
			continue
		}
		differ(s.Name, want, got, "%s is another", s.Name)
		if name, ok := strings.CutSuffix(s.Name, "#nar"); ok {
			if err := r.differences(ctx, n, name, want, got); err != nil {
				return err
			}
		}
	}
	number := func(format string, v any) digest.SHA256 { return digest.Of(fmt.Appendf(nil, format, v)) }
	if a.Gas != b.Gas {
		differ(subjectGas, number("%v", a.Gas), number("%v", b.Gas), "gas is %d of %s, and was %d of %s", b.Gas.Used, b.Gas.Schedule, a.Gas.Used, a.Gas.Schedule)
	}
	if a.Exit != b.Exit {
		differ(subjectExit, number("%d", a.Exit), number("%d", b.Exit), "the exit status is %d, and was %d", b.Exit, a.Exit)
	}
	if len(n.Found) == 0 {
		differ(subjectInputs, number("%v", a.ResolvedInputs), number("%v", b.ResolvedInputs), "what went in is another")
	}
	n.Cause = strings.Join(causes, "; ")
	return nil
}

// differences compares two trees, if both are there.
func (r *Replayer) differences(ctx context.Context, n *attest.Negative, output string, want, got digest.SHA256) error {
	a, okA := r.Store.TreePath(want)
	b, okB := r.Store.TreePath(got)
	if !okA || !okB {
		return nil
	}
	report, err := diff.Compare(ctx, a, b, diff.Options{Differences: attest.MaxDifferences})
	if err != nil {
		return err
	}
	n.Total += report.Total
	for _, d := range report.Differences[:min(len(report.Differences), attest.MaxDifferences-len(n.Differences))] {
		n.Differences = append(n.Differences, attest.Difference{
			Output: output, Path: strings.Join(append([]string{d.Path}, d.Members...), "//"), Offset: d.Offset, Cause: string(d.Cause), Detail: d.Sentence,
		})
	}
	return nil
}

// negative makes the receipt.
func (r *Replayer) negative(ctx context.Context, out *Replay, claim *attest.Statement, n attest.Negative) (*Replay, error) {
	s, err := attest.NewNegative(claim, n)
	if err != nil {
		return nil, err
	}
	if out.Negative, err = s.Negative(); err != nil {
		return nil, err
	}
	out.Sentence = out.Negative.Cause
	if r.Signer != nil {
		out.Receipt, err = s.Sign(ctx, r.Signer)
	}
	return out, err
}
