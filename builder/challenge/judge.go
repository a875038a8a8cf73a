package challenge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
)

// Judge says what votes on a path come to. It is pure: of the options it uses Keys, Quorum and At.
func Judge(p storepath.Path, votes []Vote, o Options) Result {
	res := Result{Path: p, Votes: votes}
	found := map[digest.SHA256][]string{}
	var broken []string
	for _, v := range votes {
		switch v.State {
		case Has:
			found[v.Answer.NAR] = append(found[v.Answer.NAR], v.Voter)
		case Broken:
			broken = append(broken, v.Voter)
		}
	}
	objects := res.count(o)
	switch {
	case len(found) > 1:
		res.Outcome, res.Reason = Differ, fmt.Sprintf("there are %d contents of this path", len(found))
	case len(broken) > 0:
		res.Outcome, res.Reason = Differ, "what "+strings.Join(broken, ", ")+" serves is not what it says"
	case len(found) == 1 && len(objects) > 0:
		res.Outcome, res.Reason = Differ, "somebody vouches for another content: "+strings.Join(objects, ", ")
	case len(found) == 0:
		res.Outcome, res.Reason = Unknown, "nobody who was asked has it"
	case len(res.Operators) < max(o.Quorum, 1):
		res.Outcome = Unknown
		res.Reason = fmt.Sprintf("only %d of the %d operators that are needed vouch for it%s", len(res.Operators), o.Quorum, list(res.Operators))
	default:
		res.Outcome = Agree
		res.Reason = fmt.Sprintf("%d operators vouch for the same bytes%s", len(res.Operators), list(res.Operators))
	}
	if len(found) == 1 {
		for nar := range found {
			res.NAR = nar
		}
	}
	return res
}

// count finds out who vouches for what was found, and returns who vouches for something else.
func (r *Result) count(o Options) (objects []string) {
	vouching, objecting := map[string]bool{}, map[string]bool{}
	for _, v := range r.Votes {
		if v.State != Has {
			continue
		}
		if v.Answer.Self != "" {
			vouching[v.Answer.Self] = true
		}
		if o.Keys == nil || o.Keys.Empty() {
			if v.Answer.Document != nil { // without keys each cache is its own operator, whatever it says of itself
				vouching[v.Voter] = true
			}
			continue
		}
		verdict := o.Keys.Judge(v.Answer.Evidence, o.At)
		for _, operator := range verdict.Operators() {
			vouching[operator] = true
		}
		for _, against := range verdict.Against {
			objecting[against.Operator] = true
		}
		for _, wrong := range verdict.Wrong {
			r.Wrong = append(r.Wrong, v.Voter+": "+wrong)
		}
	}
	for operator := range objecting {
		delete(vouching, operator)
	}
	r.Operators = slices.Sorted(maps.Keys(vouching))
	return slices.Sorted(maps.Keys(objecting))
}

func list(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}
