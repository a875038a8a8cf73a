// Package challenge asks several who have a store path of Nix or Guix what is in it, and compares the bytes: binary caches, this machine's own store, a
// rebuild. What a cache says in its narinfo is compared with what it serves, and everybody's bytes with everybody else's.
//
// It promises that a verdict rests on bytes that were hashed here, that agreement is counted by operators (see builder/vouch), and that one answer which
// differs is never outvoted. It decides nothing about what to use, and keeps nothing but what Explain puts into a store.
package challenge

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/vouch"
)

// Voter is somebody who is asked.
type Voter interface {
	// Name says who it is: the URL of a cache, "local", "rebuild".
	Name() string
	// Ask returns what the voter has at a path. That it has nothing there is an error that wraps fs.ErrNotExist.
	Ask(ctx context.Context, p storepath.Path) (Answer, error)
}

// Answer is what a voter has at a store path.
type Answer struct {
	// NAR is the hash of the bytes that were read.
	NAR  digest.SHA256
	Size int64 // bytes of the NAR
	// References are the names of what it refers to, HASH-NAME. Nil: the voter does not know.
	References []string
	// Evidence is who vouches for it, as the voter says: Fingerprint, Sigs, Guix and Receipts.
	Evidence vouch.Evidence
	// Document is what the voter says of the path, such as its narinfo, and Source where it lies. Empty: nothing.
	Document []byte
	Source   string
	// Self makes the voter an operator itself, of this name, without anybody's signature. Empty: it is none.
	Self string
	// Open opens the NAR again, to explain a difference. Nil: it cannot be had.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// BrokenError says that a voter has something else than it says: its narinfo, and the bytes, do not fit.
type BrokenError struct{ Err error }

func (e *BrokenError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *BrokenError) Unwrap() error { return e.Err }

// State is what became of asking one voter.
type State string

// The states of a vote.
const (
	Has     State = "has"
	Missing State = "missing" // it does not have the path
	Failed  State = "failed"  // it could not be asked
	Broken  State = "broken"  // what it serves is not what it says
)

// Vote is what one voter said of one path.
type Vote struct {
	Voter  string
	State  State
	Detail string // of Failed and Broken: what happened
	Answer Answer // of Has
}

// Outcome is what all votes on a path come to.
type Outcome string

// The outcomes.
const (
	Agree   Outcome = "agree"   // enough operators vouch for the same bytes, and nobody has others
	Differ  Outcome = "differ"  // somebody has other bytes, or serves others than it says
	Unknown Outcome = "unknown" // nobody differs, but too few vouch
)

// Result is the outcome for one path.
type Result struct {
	Path      storepath.Path
	Outcome   Outcome
	NAR       digest.SHA256 // that all have; zero if they differ, or nobody has it
	Operators []string      // who vouches for NAR, sorted
	Wrong     []string      // signatures that are not what they claim to be
	Reason    string        // one sentence
	Votes     []Vote        // in the order of the voters
}

// Options say how to challenge.
type Options struct {
	Voters []Voter // at least one
	Keys   *vouch.Keys
	// Quorum is how many operators must vouch for a path; zero: 2.
	Quorum int
	At     time.Time // when signatures are judged
	// Closure also challenges what the paths refer to, as any of the voters says.
	Closure bool
	// Parallel is how many paths are challenged at a time; zero: 4.
	Parallel int
	// Paths bounds a closure; zero: 65,536.
	Paths int
	// Progress is called from one goroutine at a time when a path is begun, and when it is done. Nil: not called.
	Progress func(Event)
}

// Event tells how far it is.
type Event struct {
	Path   storepath.Path
	Done   int     // paths so far
	Total  int     // paths that are known so far
	Result *Result // nil: the path is being begun
}

// Run challenges paths and returns a result for each, sorted by path. That voters fail or differ is a result, not an error.
func Run(ctx context.Context, paths []storepath.Path, o Options) ([]Result, error) {
	if o.Quorum == 0 {
		o.Quorum = 2
	}
	if o.Parallel == 0 {
		o.Parallel = 4
	}
	if o.Paths == 0 {
		o.Paths = 1 << 16
	}
	r := &run{o: o, seen: map[storepath.Path]bool{}}
	for _, p := range paths {
		r.add(p)
	}
	// In rounds: what the paths of one round refer to is the next one.
	for len(r.todo) > 0 {
		round := r.todo
		r.todo = nil
		if len(r.seen) > o.Paths {
			return nil, fmt.Errorf("challenge: there are more than %d paths", o.Paths)
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(o.Parallel)
		for _, p := range round {
			group.Go(func() error { return r.path(ctx, p) })
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(r.results, func(a, b Result) int { return strings.Compare(a.Path.String(), b.Path.String()) })
	return r.results, nil
}

type run struct {
	o Options

	mu      sync.Mutex // guards all below
	seen    map[storepath.Path]bool
	todo    []storepath.Path
	results []Result
}

// add is called with mu held, or before there is anybody else.
func (r *run) add(p storepath.Path) {
	if !r.seen[p] {
		r.seen[p] = true
		r.todo = append(r.todo, p)
	}
}

func (r *run) progress(p storepath.Path, res *Result) {
	if r.o.Progress != nil {
		r.o.Progress(Event{p, len(r.results), len(r.seen), res})
	}
}

func (r *run) path(ctx context.Context, p storepath.Path) error {
	r.mu.Lock()
	r.progress(p, nil)
	r.mu.Unlock()
	votes := make([]Vote, len(r.o.Voters))
	var asking sync.WaitGroup
	for i, voter := range r.o.Voters {
		asking.Go(func() { votes[i] = ask(ctx, voter, p) })
	}
	asking.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	res := Judge(p, votes, r.o)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, res)
	r.progress(p, &res)
	if !r.o.Closure {
		return nil
	}
	for _, v := range votes {
		for _, ref := range v.Answer.References {
			if q, err := storepath.Parse(p.Dir + "/" + ref); err == nil {
				r.add(q)
			}
		}
	}
	return nil
}

func ask(ctx context.Context, voter Voter, p storepath.Path) Vote {
	v := Vote{Voter: voter.Name()}
	var err error
	v.Answer, err = voter.Ask(ctx, p)
	v.State, v.Detail = stateOf(err)
	return v
}
