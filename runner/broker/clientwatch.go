package broker

import (
	"context"
	"errors"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
)

// Job is what the broker tells of a detached job.
type Job struct {
	Name    string
	Ticket  string        // empty: it has none
	ID      digest.SHA256 // of the document
	Started time.Time     // by the broker's clock
	Phase   Phase
	// Usage is what it has used so far, about once a second while it runs: Wall, CPU, MemoryPeak, IORead and IOWrite. All zero: nothing is known yet. What
	// it used altogether is in its result.
	Usage runner.Usage
}

// Watch tells f of all detached jobs of this user, over one connection: first of all that the broker has, which may be none, then, each time that something
// changes, of those whose Phase or Usage is another one than before. It returns f's error, ctx's, or that of the connection: a LostError or a Refusal
// with CodeStopping when the broker goes. Whoever watches again hears of all of them again.
func (c *Client) Watch(ctx context.Context, f func([]Job) error) error {
	e, err := c.open(ctx, Request{})
	if err != nil {
		return err
	}
	defer e.close()
	err = e.watch(f)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Jobs lists the detached jobs of this user that the broker has.
func (c *Client) Jobs(ctx context.Context) ([]Job, error) {
	var list []Job
	err := c.Watch(ctx, func(jobs []Job) error {
		list = jobs
		return errListed
	})
	if !errors.Is(err, errListed) {
		return nil, err
	}
	return list, nil
}

// errListed ends the watching of Jobs.
var errListed = errors.New("the list is there")

// watch asks and hands out batches.
func (e *exchange) watch(f func([]Job) error) error {
	frame, err := encode(kindRequest, request{Version: protocolVersion, Watch: true})
	if err != nil {
		return err
	}
	if err := e.write(frame); err != nil {
		return err
	}
	var batch []Job
	for {
		k, body, err := e.in.next(kindJob, kindEnd, kindRefusal)
		if err != nil {
			return lost(err)
		}
		switch k {
		case kindRefusal:
			return e.refused(body)
		case kindEnd:
			if err := f(batch); err != nil {
				return err
			}
			batch = nil
		default:
			var s jobState
			if err := decode(body, &s); err != nil {
				return lost(err)
			}
			batch = append(batch, s.job())
		}
	}
}

func (s jobState) job() Job {
	return Job{Name: s.Name, Ticket: s.Ticket, ID: s.ID, Started: time.UnixMicro(s.Started).UTC(), Phase: s.Phase, Usage: s.Usage.usage()}
}
