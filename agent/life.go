package agent

import (
	"fmt"
	"slices"
)

// State is where a job is in its life.
type State string

// The states, in the order in which a job that goes well passes them.
const (
	Proposed   State = "proposed"   // it is on disk; nothing has been decided
	Verified   State = "verified"   // admitted: it waits for its turn
	Placed     State = "placed"     // this node runs it: what it pins is being fetched
	Running    State = "running"    // an execution was started, or is about to be
	Validating State = "validating" // it has ended by itself: its outputs are compared and, if asked for, made again
	Anchored   State = "anchored"   // its result is in the ledger: from here on it counts
	Archived   State = "archived"   // everything is kept that replaying it needs

	Refused     State = "refused"     // the policy, the quorum, the calendar or the queue said no
	Failed      State = "failed"      // it could not be finished, or did not end well
	Cancelled   State = "cancelled"   // somebody who may ended it
	Quarantined State = "quarantined" // its result is suspicious: nobody gets it before a person has looked
	Discarded   State = "discarded"   // a person looked, and dropped the result
)

// Transition is one step of a job's life.
type Transition struct {
	From, To State // From is empty for the first one
	When     string
	// Entry is the kind of decision that is in the ledger before anybody can see the new state; empty: none, the step
	// is only on this node's disk.
	Entry Kind
}

// Life returns every step that there is. There is no other: Allowed refuses it.
func Life() []Transition {
	return []Transition{
		{"", Proposed, "a signed job was handed in", KindProposal},
		{Proposed, Refused, "a check found a reason against it", KindAdmission},
		{Proposed, Verified, "all checks passed", KindAdmission},
		{Proposed, Cancelled, "somebody who may ended it", KindCancellation},
		{Verified, Refused, "the policy changed, or its time ran out, while it waited", KindAdmission},
		{Verified, Cancelled, "somebody who may ended it", KindCancellation},
		{Verified, Placed, "the scheduler chose it", KindPlacement},
		{Placed, Verified, "the node stopped or drains before it was started", ""},
		{Placed, Refused, "what was found of its image or inputs is not what the policy demands", KindAdmission},
		{Placed, Failed, "content is missing or is not what the document pins", KindFailure},
		{Placed, Cancelled, "somebody who may ended it", KindCancellation},
		{Placed, Running, "its confinement is about to be started", KindStart},
		{Running, Verified, "the execution could not be finished, and may be tried again", KindFailure},
		{Running, Failed, "it did not end well, or could not be finished and was tried as often as it may be", KindFailure},
		{Running, Cancelled, "somebody who may ended it", KindCancellation},
		{Running, Validating, "it ended by itself and left what it had to", ""},
		{Validating, Running, "another execution is needed to compare with", KindStart},
		{Validating, Quarantined, "executions disagree, an output is not the expected one, or an anomaly was seen", KindQuarantine},
		{Validating, Failed, "the executions that were asked for could not be made", KindFailure},
		{Validating, Cancelled, "somebody who may ended it", KindCancellation},
		{Validating, Anchored, "the result holds", KindResult},
		{Quarantined, Anchored, "a person released the result", KindReview},
		{Quarantined, Discarded, "a person dropped the result", KindReview},
		{Anchored, Archived, "manifest, content, result and proof are kept", KindArchive},
	}
}

// States lists all states, in the order of a life.
func States() []State {
	return []State{
		Proposed, Verified, Placed, Running, Validating, Anchored, Archived,
		Refused, Failed, Cancelled, Quarantined, Discarded,
	}
}

// Ended reports whether nothing happens any more without somebody's doing. A quarantined job has ended: it waits for a person.
func (s State) Ended() bool {
	return slices.Contains([]State{Archived, Refused, Failed, Cancelled, Quarantined, Discarded}, s)
}

// Waits reports whether a job in this state holds a place in the queue.
func (s State) Waits() bool { return s == Proposed || s == Verified }

// Active reports whether a job in this state holds some of the node's resources.
func (s State) Active() bool { return s == Placed || s == Running || s == Validating }

// Step returns the transition between two states. The error is a *StepError if a life has no such step.
func Step(from, to State) (Transition, error) {
	for _, t := range Life() {
		if t.From == from && t.To == to {
			return t, nil
		}
	}
	return Transition{}, &StepError{From: from, To: to}
}

// StepError says that a job cannot go from one state to another.
type StepError struct{ From, To State }

func (e *StepError) Error() string {
	return fmt.Sprintf("a job that is %s cannot become %s", e.From, e.To)
}
