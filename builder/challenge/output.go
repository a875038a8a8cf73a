package challenge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/nix/realisation"
)

// Output is an output of a derivation of Nix that is named by its content. At which path it came out, only those know who built it: caches say so in
// realisations, which a Nix that substitutes believes without looking at a signature.
type Output struct {
	Drv  storepath.Path
	ID   digest.SHA256 // of the derivation: see drv.Graph.RealisationID
	Name string        // such as "out"
}

// String returns DRV^NAME, as Nix writes it.
func (o Output) String() string { return o.Drv.String() + "^" + o.Name }

// Teller is a voter that says at which path an output came out. That it says nothing is an error that wraps fs.ErrNotExist.
type Teller interface {
	Voter
	Tell(ctx context.Context, o Output) (*realisation.Realisation, error)
}

// Tell implements Teller.
func (c Cache) Tell(ctx context.Context, o Output) (*realisation.Realisation, error) {
	r, err := c.Realisation(ctx, realisation.Realisation{Drv: o.Drv.Base(), DrvHash: o.ID, Output: o.Name})
	if _, ok := errors.AsType[*realisation.SyntaxError](err); ok {
		err = &BrokenError{err}
	}
	return r, err
}

// Telling is what one teller said of one output.
type Telling struct {
	Voter  string
	State  State
	Detail string // of Failed and Broken: what happened
	Said   *realisation.Realisation
}

// OutputResult is what all that was said of one output comes to. What lies at the path is another question: see Run.
type OutputResult struct {
	Output    Output
	Outcome   Outcome
	Paths     []storepath.Path // that are said, sorted: one if they agree
	Operators []string         // who vouches for it, sorted
	Wrong     []string         // signatures that are not what they claim to be
	Reason    string           // one sentence
	Tellings  []Telling        // in the order of the voters
}

// Outputs asks those of the voters who are tellers for outputs, and returns a result for each, in the same order. That they fail or differ is a result, not an
// error.
func Outputs(ctx context.Context, outputs []Output, o Options) ([]OutputResult, error) {
	if o.Quorum == 0 {
		o.Quorum = 2
	}
	var results []OutputResult
	for _, output := range outputs {
		var tellers []Teller
		for _, v := range o.Voters {
			if t, ok := v.(Teller); ok {
				tellers = append(tellers, t)
			}
		}
		said := make([]Telling, len(tellers))
		var asking sync.WaitGroup
		for i, t := range tellers {
			asking.Go(func() { said[i] = tell(ctx, t, output) })
		}
		asking.Wait()
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		results = append(results, JudgeOutput(output, said, o))
	}
	return results, nil
}

func tell(ctx context.Context, t Teller, o Output) Telling {
	said := Telling{Voter: t.Name()}
	var err error
	said.Said, err = t.Tell(ctx, o)
	said.State, said.Detail = stateOf(err)
	return said
}

// stateOf says what an answer is whose error is err.
func stateOf(err error) (state State, detail string) {
	broken, isBroken := errors.AsType[*BrokenError](err)
	switch {
	case err == nil:
		return Has, ""
	case isBroken:
		return Broken, broken.Error()
	case errors.Is(err, fs.ErrNotExist):
		return Missing, ""
	}
	return Failed, err.Error()
}

// JudgeOutput says what is said of an output comes to. It is pure: of the options it uses Keys, Quorum and At.
func JudgeOutput(output Output, said []Telling, o Options) OutputResult {
	res := OutputResult{Output: output, Tellings: said}
	paths, vouching := map[string]bool{}, map[string]bool{}
	var broken []string
	for _, s := range said {
		if s.State == Broken {
			broken = append(broken, s.Voter)
		}
		if s.State != Has {
			continue
		}
		paths[s.Said.Path] = true
		if o.Keys == nil || o.Keys.Empty() {
			vouching[s.Voter] = true // without keys each cache is its own operator
			continue
		}
		text, err := s.Said.Fingerprint()
		if err != nil {
			continue // of the newer layout, in which it is not known what is signed: nobody vouches for it
		}
		operators, wrong := o.Keys.JudgeRealisation(text, s.Said.Signatures, o.At)
		for _, operator := range operators {
			vouching[operator] = true
		}
		for _, w := range wrong {
			res.Wrong = append(res.Wrong, s.Voter+": "+w)
		}
	}
	res.Operators = slices.Sorted(maps.Keys(vouching))
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if p, err := storepath.Parse(path); err == nil { // which realisation.Parse has seen to
			res.Paths = append(res.Paths, p)
		}
	}
	switch {
	case len(res.Paths) > 1:
		res.Outcome, res.Reason = Differ, fmt.Sprintf("it is said to have come out at %d paths", len(res.Paths))
	case len(broken) > 0:
		res.Outcome, res.Reason = Differ, "what "+strings.Join(broken, ", ")+" says of it cannot be read"
	case len(res.Paths) == 0:
		res.Outcome, res.Reason = Unknown, "nobody who was asked knows at which path it came out"
	case len(res.Operators) < max(o.Quorum, 1):
		res.Outcome = Unknown
		res.Reason = fmt.Sprintf("only %d of the %d operators that are needed vouch for %s%s", len(res.Operators), o.Quorum, res.Paths[0], list(res.Operators))
	default:
		res.Outcome = Agree
		res.Reason = fmt.Sprintf("%d operators vouch for %s%s", len(res.Operators), res.Paths[0], list(res.Operators))
	}
	return res
}
