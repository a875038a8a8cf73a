package executor

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/agent"
	"arch.network/agent/archive"
	"arch.network/agent/validation"
	"arch.network/attest"
	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// cure tells the way out for a job that did not end well.
func cure(r runner.Reason) string {
	return map[runner.Reason]string{
		runner.ReasonTimeout:     "raise spec.timeout in the document, or the policy's",
		runner.ReasonOutOfMemory: "raise spec.resources.memory in the document; what is in /tmp and /outputs counts as memory",
		runner.ReasonLimit:       "raise the limit in spec.resources of the document",
		runner.ReasonNotFound:    "every output of the document must be at /outputs/NAME when the job ends",
	}[r]
}

// fill notes in an attempt what was measured.
func fill(a *agent.Attempt, r runner.Result) {
	a.Reason, a.Exit, a.Signal, a.Detail = string(r.Reason), r.Exit, r.Signal, r.Detail
	a.Gas, a.CPUMicros, a.WallMicros, a.MemoryPeak = r.Gas, r.CPU.Microseconds(), r.Wall.Microseconds(), r.MemoryPeak
	a.Driver, a.Missing = r.Confinement.Driver, r.Confinement.Missing
	if r.Energy != nil {
		a.Joules = r.Energy.Joules
	}
	for _, x := range r.Anomalies {
		a.Anomalies = append(a.Anomalies, fmt.Sprintf("%s: %s", x.Kind, x.Evidence))
	}
}

// resultStatement is what an execution's result says, the same at every honest node if the job is deterministic.
func resultStatement(doc *manifest.Job, resolved []attest.ResourceDescriptor, x executed) (*attest.Statement, error) {
	var g attest.Gas
	if x.Schedule != "" {
		g = attest.Gas{Used: int64(min(x.Gas, manifest.MaxInteger)), Schedule: x.Schedule}
	}
	return attest.NewJobResult(doc, resolved, attest.JobSubjects(x.Outputs, x.Stdout, x.Printed), 0, g)
}

// result is a result that counts: what is written of it, and the step that says so.
type result struct {
	change *change
	note   func(*record)
	moves  []move
}

// anchor lets a result count: its statement is signed, and then it is in the ledger. With it, if nothing is in the way, what replaying needs
// is kept: both are one write. a.h is locked.
func (a *active) anchor(c *change, list []executed, summary string, change func(*record), before []move) error {
	r, err := a.anchoring(a.h, a.proposal.Doc, c, list, move{to: agent.Anchored, verdict: "holds", summary: summary}, change, before)
	if err != nil {
		return err
	}
	note, draft := r.note, a.h.rec.copy()
	note(draft)
	if kept, err := a.archiving(draft, a.o.Now().UTC()); err == nil { // else archive says it, and tries again
		r.note = func(rec *record) { note(rec); kept.note(rec) }
		r.change, r.moves = with(r.change, kept.change.puts...), append(r.moves, kept.moves...)
	}
	return a.Engine.pass(a.h, r.change, r.note, r.moves...)
}

// anchoring is a result that is to count.
func (e *Engine) anchoring(h *handle, doc *manifest.Job, c *change, list []executed, m move, change func(*record), before []move) (*result, error) {
	stmt := list[0].statement
	if stmt == nil { // an earlier process executed it
		var err error
		// Content is what went in; the record may not have it yet, but Resolved has been there since the start.
		if stmt, err = resultStatement(doc, h.rec.Resolved, list[0]); err != nil {
			return nil, err
		}
	}
	id, envelope, err := e.signed(stmt)
	if err != nil {
		return nil, err
	}
	outputs := told(list[0])
	m.evidence = resultEvidence(id, list)
	return &result{with(c, put{bucketStatements, id[:], envelope}), func(r *record) {
		if change != nil {
			change(r)
		}
		r.Job.Result, r.Job.Outputs = id, outputs
	}, append(slices.Clone(before), m)}, nil
}

// with adds to what a change writes. c may be nil, and stays as it is: it may have to be written again.
func with(c *change, puts ...put) *change {
	out := &change{}
	if c != nil {
		out.puts = c.puts
	}
	out.puts = append(slices.Clip(out.puts), puts...)
	return out
}

// told is how outputs are told of.
func told(x executed) (out []agent.Output) {
	for _, o := range x.Outputs {
		out = append(out, agent.Output{Name: o.Name, NAR: o.NAR, File: o.File, Size: x.Sizes[o.Name]})
	}
	return out
}

// resultEvidence names the statements and outputs of a result.
func resultEvidence(result digest.SHA256, list []executed) []agent.Evidence {
	out := []agent.Evidence{{Name: "job-result", Digest: result}}
	for _, x := range list {
		out = append(out, agent.Evidence{Name: "job-run", Digest: x.Run})
	}
	for _, o := range list[0].Outputs {
		out = append(out, agent.Evidence{Name: "output/" + o.Name, Digest: o.NAR})
	}
	if list[0].Printed > 0 {
		out = append(out, agent.Evidence{Name: "stdout", Digest: list[0].Stdout})
	}
	return out
}

// Bundle is the evidence about a result that is held back.
type Bundle struct {
	Job        digest.SHA256  `json:"job"`
	Reasons    []agent.Reason `json:"reasons"`
	Executions []executed     `json:"executions"`
}

// hold keeps a result back, with the evidence. a.h is locked.
func (a *active) hold(c *change, list []executed, v validation.Verdict, change func(*record), before []move) error {
	data, err := canonical.Marshal(Bundle{Job: a.id, Reasons: v.Reasons, Executions: list})
	if err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	id := digest.Of(data)
	evidence := []agent.Evidence{{Name: "evidence", Digest: id}}
	for _, x := range list {
		for _, o := range x.Outputs {
			evidence = append(evidence, agent.Evidence{Name: fmt.Sprintf("output/%s of execution %d", o.Name, x.Attempt), Digest: o.NAR})
		}
	}
	return a.Engine.pass(a.h, with(c, put{bucketStatements, id[:], data}), func(r *record) {
		if change != nil {
			change(r)
		}
		r.Job.Outputs = told(list[len(list)-1])
	}, append(slices.Clone(before), move{
		to: agent.Quarantined, verdict: "held", reasons: v.Reasons, evidence: evidence, summary: v.Summary,
	})...)
}

// archive keeps what replaying needs of a result that counts already: the objects that the record names stay, but for those of which only
// the pin may be kept.
func (a *active) archive() error {
	return a.insist(func() error {
		if err := a.jobs.lock(a.h); err != nil {
			return err
		}
		defer a.h.mu.Unlock()
		if a.h.rec.Job.State != agent.Anchored {
			return nil
		}
		r, err := a.archiving(a.h.rec, a.o.Now().UTC())
		if err != nil {
			return err
		}
		return a.Engine.pass(a.h, r.change, r.note, r.moves...)
	})
}

// archiving is a result that is to be kept.
func (a *active) archiving(rec *record, now time.Time) (*result, error) {
	entry, keep, err := a.entry(rec, a.envelope, a.policy)
	if err != nil {
		return nil, err
	}
	data, err := entry.Encode()
	if err != nil {
		return nil, err
	}
	c := &change{puts: []put{{bucketStatements, entryKey(a.id), data}}}
	until, err := a.expiries(rec, a.policy, now, c)
	if err != nil {
		return nil, err
	}
	return &result{c, func(r *record) { r.Content, r.Kept = keep, until }, []move{{
		to: agent.Archived, verdict: "kept", evidence: []agent.Evidence{{Name: "archive", Digest: digest.Of(data)}}, summary: keptSentence(until),
	}}}, nil
}

// entryKey is where a job's archive entry is among the statements: beside every digest.
func entryKey(id digest.SHA256) []byte { return append([]byte("entry "), id[:]...) }

func keptSentence(until time.Time) string {
	if until.IsZero() {
		return "everything that replaying it needs is kept"
	}
	return "everything that replaying it needs is kept until " + until.Format(time.DateOnly)
}

// entry makes a job's archive entry, and says which objects are kept for it.
func (e *Engine) entry(rec *record, envelope []byte, policy *manifest.Policy) (*archive.Entry, []digest.SHA256, error) {
	keep, pins := archive.Split(rec.Sources, rec.outputDigests(), policy)
	objects, err := archive.ObjectsOf(e.o.Store, keep)
	if err != nil {
		return nil, nil, err
	}
	x := &archive.Entry{
		Version: archive.Version, Job: rec.Job.ID, Name: rec.Job.Name, Envelope: digest.Of(envelope), Result: rec.Job.Result,
		Runs: []digest.SHA256{}, Outputs: append([]agent.Output{}, rec.Job.Outputs...), Objects: append([]archive.Object{}, objects...), Pins: pins,
		Node: e.o.Signer.Public().String(),
	}
	if len(rec.Executions) > 0 {
		x.Gas, x.Stdout = rec.Executions[0].Gas, rec.Executions[0].Stdout
	}
	for _, a := range rec.Job.Attempts {
		if !a.Run.IsZero() {
			x.Runs = append(x.Runs, a.Run)
		}
	}
	return x, keep, nil
}

// outputDigests are those of the result that holds.
func (r *record) outputDigests() (out []digest.SHA256) {
	for _, o := range r.Job.Outputs {
		out = append(out, o.NAR)
	}
	return out
}

// What is removed when its time is over.
const (
	expireResults = "results"
	expireLogs    = "logs"
	expireArchive = "archive"
	expireRecord  = "record" // everything but what a forgotten job leaves: it sorts after the others
)

// expiries notes when what is kept of a job is removed, and returns until when its archive entry is kept.
func (e *Engine) expiries(rec *record, policy *manifest.Policy, now time.Time, c *change) (until time.Time, err error) {
	keep := policy.Spec.Retention
	for _, x := range []struct {
		kind string
		time manifest.Duration
	}{{expireResults, keep.Results}, {expireLogs, keep.Logs}, {expireArchive, keep.Archive}} {
		if x.time == "" {
			continue
		}
		d, err := x.time.Duration()
		if err != nil {
			return time.Time{}, fmt.Errorf("policy: retention.%s: %w", x.kind, err)
		}
		at := now.Add(d).Truncate(time.Second)
		if x.kind == expireArchive {
			until = at
		}
		c.puts = append(c.puts, put{bucketExpiry, expiryKey(at, rec.Number, x.kind), []byte{}})
	}
	return until, nil
}

func expiryKey(at time.Time, number uint64, kind string) []byte {
	key := binary.BigEndian.AppendUint64(nil, uint64(max(at.Unix(), 0)))
	return append(binary.BigEndian.AppendUint64(key, number), kind...)
}

// parseExpiry is the inverse of expiryKey.
func parseExpiry(key []byte) (at int64, number uint64, kind string) {
	if len(key) < 16 {
		return 0, 0, ""
	}
	return int64(binary.BigEndian.Uint64(key)), binary.BigEndian.Uint64(key[8:]), strings.Clone(string(key[16:]))
}
