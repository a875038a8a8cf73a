package agent

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLife holds the table to what a life is: it starts once, every state can be reached, what has ended stays ended
// but for a quarantined result, and whatever has not ended can still end.
func TestLife(t *testing.T) {
	next := map[State][]State{}
	for _, s := range Life() {
		next[s.From] = append(next[s.From], s.To)
	}
	if diff := cmp.Diff([]State{Proposed}, next[""]); diff != "" {
		t.Errorf("first state (-want +got):\n%s", diff)
	}
	for _, s := range States() {
		if !reaches(next, "", s) {
			t.Errorf("no job can ever be %s", s)
		}
		if s.Ended() != !slices.ContainsFunc(States(), func(end State) bool { return end != s && reaches(next, s, end) }) && s != Quarantined {
			t.Errorf("%s: Ended is %v, but it leads to %v", s, s.Ended(), next[s])
		}
		if !s.Ended() && !reaches(next, s, Archived) {
			t.Errorf("a job that is %s can never be archived", s)
		}
		if s.Waits() && s.Active() || s.Ended() && (s.Waits() || s.Active()) {
			t.Errorf("%s: waits, is active and has ended exclude each other", s)
		}
	}
}

func reaches(next map[State][]State, from, to State) bool {
	seen := map[State]bool{}
	for todo := slices.Clone(next[from]); len(todo) > 0; {
		s := todo[0]
		todo = todo[1:]
		if s == to {
			return true
		}
		if !seen[s] {
			seen[s] = true
			todo = append(todo, next[s]...)
		}
	}
	return false
}

func TestStep(t *testing.T) {
	if got, err := Step(Validating, Anchored); err != nil || got.Entry != KindResult {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := Step(Refused, Running); err == nil || err.Error() != "a job that is refused cannot become running" {
		t.Errorf("got %v", err)
	}
}
