package executor

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"arch.network/agent"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// Limits of a Query.
const (
	defaultJobs = 100
	maxJobs     = 1000
	// maxLook is how many records one query looks at: a page may be short, or empty, although there is more.
	maxLook = 100_000
	// minPrefix is how many digits of an id name a job.
	minPrefix = 6
)

// tell is what others get to know of a record.
func (e *Engine) tell(rec *record) agent.Job {
	j := rec.Job
	if j.State == agent.Verified {
		e.mu.Lock()
		if w, ok := e.queue.Explain(j.ID, e.o.Now()); ok {
			j.Position, j.Summary = w.Position, "it waits: "+w.Text
		}
		e.mu.Unlock()
	} else if !j.State.Ended() {
		e.mu.Lock()
		a := e.active[j.ID]
		e.mu.Unlock()
		if a != nil {
			j.Fetching = a.fetching.Load()
		}
	}
	return j
}

// Jobs implements agent.Node.
func (e *Engine) Jobs(ctx context.Context, q agent.Query) ([]agent.Job, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = defaultJobs
	}
	limit = min(limit, maxJobs)
	before := uint64(1<<64 - 1)
	if !q.Before.IsZero() {
		n, err := e.numberOf(q.Before)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, &agent.UnknownError{Ref: q.Before.String()}
		}
		before = n
	}
	list, err := e.jobsBefore(ctx, before, limit, func(j *agent.Job) bool {
		return (len(q.States) == 0 || slices.Contains(q.States, j.State)) && (q.Owner == "" || q.Owner == j.Owner) && (q.Name == "" || q.Name == j.Name)
	})
	if err != nil {
		return nil, err
	}
	e.positions(list)
	return list, nil
}

// jobsBefore goes through the records from the newest on.
func (e *Engine) jobsBefore(ctx context.Context, before uint64, limit int, fits func(*agent.Job) bool) (out []agent.Job, err error) {
	out = []agent.Job{}
	look := 0
	err = e.db.descend(bucketJobs, numberKey(before), func(_, v []byte) (bool, error) {
		look++
		if err := ctx.Err(); err != nil {
			return false, err
		}
		rec, err := decodeRecord(v)
		if err != nil {
			return false, err
		}
		if fits(&rec.Job) {
			out = append(out, rec.Job)
		}
		return len(out) < limit && look < maxLook, nil
	})
	return out, err
}

// positions fills in the places of those that wait.
func (e *Engine) positions(list []agent.Job) {
	if !slices.ContainsFunc(list, func(j agent.Job) bool { return j.State == agent.Verified }) {
		return
	}
	e.mu.Lock()
	places := e.queue.Positions()
	e.mu.Unlock()
	for i := range list {
		list[i].Position = places[list[i].ID]
	}
}

// Job implements agent.Node.
func (e *Engine) Job(_ context.Context, ref string) (agent.Job, error) {
	number, err := e.lookUp(ref)
	if err != nil {
		return agent.Job{}, err
	}
	rec, err := e.db.load(number)
	if err == nil && rec == nil {
		err = &agent.UnknownError{Ref: ref}
	}
	if err != nil {
		return agent.Job{}, err
	}
	return e.tell(rec), nil
}

// lookUp finds a job's number by its id, a prefix of that, or its name.
func (e *Engine) lookUp(ref string) (uint64, error) {
	if d, err := digest.Parse(ref); err == nil {
		if n, err := e.numberOf(d); n != 0 || err != nil {
			return n, err
		}
		return 0, e.unknown(ref, d)
	}
	if n, many, err := e.byPrefix(strings.TrimPrefix(ref, "sha256:")); err != nil || n != 0 || many > 1 {
		if many > 1 {
			err = &agent.UnknownError{Ref: ref, Many: many}
		}
		return n, err
	}
	n, err := e.byName(ref)
	if err == nil && n == 0 {
		err = e.forgotten(ref)
	}
	return n, err
}

// byPrefix finds the only job whose id begins with some hexadecimal digits. Many: more than one does.
func (e *Engine) byPrefix(prefix string) (found uint64, many int, err error) {
	if len(prefix) < minPrefix || len(prefix) > 64 || strings.Trim(prefix, "0123456789abcdef") != "" {
		return 0, 0, nil
	}
	start, err := digest.ParseHex(prefix + strings.Repeat("0", 64-len(prefix)))
	if err != nil {
		return 0, 0, nil // only zeros: nobody's id
	}
	err = e.db.ascend(bucketIDs, start[:], func(k, v []byte) (bool, error) {
		if !strings.HasPrefix(digest.SHA256(k).Hex(), prefix) {
			return false, nil
		}
		many++
		found = number(v)
		return many < maxJobs, nil
	})
	if many > 1 {
		found = 0
	}
	return found, many, err
}

// byName finds the newest job of a name; zero: there is none.
func (e *Engine) byName(name string) (found uint64, err error) {
	prefix := append([]byte(name), 0)
	err = e.db.descend(bucketNames, append([]byte(name), 1), func(k, _ []byte) (bool, error) {
		if rest, ok := bytes.CutPrefix(k, prefix); ok {
			found = number(rest)
		}
		return false, nil
	})
	return found, err
}

// Why implements agent.Node.
func (e *Engine) Why(_ context.Context, id digest.SHA256) ([]agent.Finding, error) {
	rec, err := e.must(id)
	if err != nil {
		return nil, err
	}
	list := rec.Findings
	if rec.Job.State == agent.Verified {
		now := e.o.Now()
		e.mu.Lock()
		if w, ok := e.queue.Explain(id, now); ok {
			list = append(slices.Clip(list), agent.Finding{At: now.UTC(), Kind: agent.KindPlacement, Verdict: "waits: " + w.Code, Summary: "it waits: " + w.Text})
		}
		e.mu.Unlock()
	}
	return list, nil
}

// Envelope implements agent.Node.
func (e *Engine) Envelope(_ context.Context, id digest.SHA256) ([]byte, error) {
	rec, err := e.must(id)
	if err != nil {
		return nil, err
	}
	data, err := e.db.get(bucketEnvelopes, numberKey(rec.Number))
	if err == nil && data == nil {
		err = fmt.Errorf("envelope of job %s: it is not kept any more", id)
	}
	return data, err
}

// Statement returns the envelope of a statement that this node signed, or the bundle of evidence of that digest; nil: it has none.
func (e *Engine) Statement(_ context.Context, id digest.SHA256) ([]byte, error) {
	return e.db.get(bucketStatements, id[:])
}

// Entry returns a job's archive entry in its encoded form; nil: it has none.
func (e *Engine) Entry(_ context.Context, id digest.SHA256) ([]byte, error) {
	return e.db.get(bucketStatements, entryKey(id))
}

// HeldError says that a result is held back, or never came to be.
type HeldError struct {
	Job   string
	State agent.State
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("job %s is %s: it has no result that holds", e.Job, e.State)
}

// Hint tells the way out.
func (e *HeldError) Hint() string {
	if e.State == agent.Quarantined {
		return "look at why it is held back, then release or discard it"
	}
	return ""
}

// OutputNAR implements agent.Node. A result that is held back is not served.
func (e *Engine) OutputNAR(ctx context.Context, id digest.SHA256, name string) (io.ReadCloser, error) {
	rec, err := e.must(id)
	if err != nil {
		return nil, err
	}
	if s := rec.Job.State; s != agent.Anchored && s != agent.Archived {
		return nil, &HeldError{rec.Job.Name, s}
	}
	for _, o := range rec.Job.Outputs {
		if o.Name != name {
			continue
		}
		path, ok := e.o.Store.TreePath(o.NAR)
		if !ok {
			return nil, fmt.Errorf("output %q of job %s is not kept any more", name, rec.Job.Name)
		}
		r, w := io.Pipe()
		go func() { w.CloseWithError(nar.Dump(ctx, w, path, nar.Options{})) }()
		return r, nil
	}
	return nil, fmt.Errorf("job %s has no output %q", rec.Job.Name, name)
}

// Status implements agent.Node.
func (e *Engine) Status(context.Context) (agent.Status, error) {
	policy := e.o.Judge.Policy()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.limits()
	_, used := e.queue.Running()
	s := agent.Status{
		Node: e.o.Signer.Public().String(), Version: e.o.Version, Started: e.started.UTC(), Draining: e.drained != nil || e.stopping, Drain: e.drained,
		Policy: policy.Status, Jobs: cloneCounts(e.counts), Slots: e.o.Slots, Capacity: e.queue.Limits().Node, Committed: used,
	}
	if e.o.Ledger != nil {
		s.Ledger = e.o.Ledger()
	}
	if e.o.Facts != nil {
		s.Facts = e.o.Facts()
	}
	if p := cmp.Or(e.problem, e.settling); p != nil { // one disk is behind both
		s.Problems = append(s.Problems, *p)
	}
	if policy.Doc == nil {
		s.Problems = append(s.Problems, agent.Problem{Code: "no-policy", Text: "no policy is in force: nothing new runs", Cure: "install a policy that the policy role has signed"})
	}
	return s, nil
}
