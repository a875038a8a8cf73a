// Package wire is what travels between a node's control API and those who talk to it, beside the types of package agent: lists,
// requests, and problems (RFC 9457) with their stable codes. ProblemOf and Problem.Err turn the errors of agent.Node into problems and
// back, so that whoever is far away branches on the same errors as whoever is near.
//
// The forms only ever gain members. The package opens no connection and decides nothing.
package wire

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
)

// Problem is an error as it travels: application/problem+json (RFC 9457).
type Problem struct {
	Type   string `json:"type"`   // "urn:arch:problem:" and the code
	Title  string `json:"title"`  // of the code
	Status int    `json:"status"` // of HTTP
	Detail string `json:"detail"` // what is wrong this time
	Code   string `json:"code"`   // see Codes
	Hint   string `json:"hint,omitempty"`

	// What an error of package agent says beside its text.
	Ref   string      `json:"ref,omitempty"`
	Many  int         `json:"many,omitempty"`
	Owner string      `json:"owner,omitempty"`
	Max   int         `json:"max,omitempty"`
	Next  int64       `json:"next,omitempty"`
	By    string      `json:"by,omitempty"`
	Verb  string      `json:"verb,omitempty"`
	From  agent.State `json:"from,omitempty"`
	To    agent.State `json:"to,omitempty"`

	Name  string       `json:"name,omitempty"`
	State agent.State  `json:"state,omitempty"`
	Since time.Time    `json:"since,omitzero"`
	Entry *agent.Entry `json:"entry,omitempty"`
}

// Error is a problem that package agent has no error for.
type Error struct{ Problem Problem }

func (e *Error) Error() string { return e.Problem.Detail }

// Hint tells the way out.
func (e *Error) Hint() string { return e.Problem.Hint }

// New returns a problem of a code as an error.
func New(code, format string, args ...any) *Error {
	return &Error{newProblem(code, fmt.Sprintf(format, args...))}
}

func newProblem(code, detail string) Problem {
	c, ok := Find(code)
	if !ok {
		panic("wire: there is no code " + code)
	}
	return Problem{Type: "urn:arch:problem:" + code, Title: c.Title, Status: c.Status, Detail: detail, Code: code, Hint: c.Cure}
}

// ProblemOf turns an error into what travels. What is no error of package agent or wire becomes CodeInternal, and its text stays
// here: it may tell of files and users that are nobody's business.
func ProblemOf(err error) Problem {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Problem
	}
	p := newProblem(CodeInternal, "the node could not do it; its log says why")
	if e, ok := errors.AsType[*agent.UnknownError](err); ok {
		p = newProblem(CodeUnknown, e.Error())
		p.Ref, p.Many = e.Ref, e.Many
	} else if e, ok := errors.AsType[*agent.ForgottenError](err); ok {
		p = newProblem(CodeForgotten, e.Error())
		p.Ref, p.Name, p.State, p.Since, p.Entry = e.ID.String(), e.Name, e.State, e.Since, &e.Entry
	} else if e, ok := errors.AsType[*agent.FullError](err); ok {
		p = newProblem(CodeFull, e.Error())
		p.Owner, p.Max = e.Owner, e.Max
	} else if e, ok := errors.AsType[*agent.EnvelopeError](err); ok {
		p = newProblem(CodeEnvelope, e.Err.Error())
	} else if e, ok := errors.AsType[*agent.LaggedError](err); ok {
		p = newProblem(CodeLagged, e.Error())
		p.Next = e.Next
	} else if e, ok := errors.AsType[*agent.DeniedError](err); ok {
		p = newProblem(CodeDenied, e.Error())
		p.By, p.Verb = e.By, e.Verb
	} else if e, ok := errors.AsType[*agent.StepError](err); ok {
		p = newProblem(CodeStep, e.Error())
		p.From, p.To = e.From, e.To
	}
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok && p.Code != CodeInternal && h.Hint() != "" {
		p.Hint = h.Hint()
	}
	return p
}

// Err turns a problem back into the error that it was made of.
func (p Problem) Err() error {
	switch p.Code {
	case CodeUnknown:
		return &agent.UnknownError{Ref: p.Ref, Many: p.Many}
	case CodeForgotten:
		id, err := digest.Parse(p.Ref)
		if err != nil || p.Entry == nil {
			return &Error{p}
		}
		return &agent.ForgottenError{ID: id, Name: p.Name, State: p.State, Since: p.Since, Entry: *p.Entry}
	case CodeFull:
		return &agent.FullError{Owner: p.Owner, Max: p.Max}
	case CodeEnvelope:
		return &agent.EnvelopeError{Err: errors.New(p.Detail)}
	case CodeLagged:
		return &agent.LaggedError{Next: p.Next}
	case CodeDenied:
		return &agent.DeniedError{By: p.By, Verb: p.Verb, Cure: p.Hint}
	case CodeStep:
		return &agent.StepError{From: p.From, To: p.To}
	}
	return &Error{p}
}

// Find returns the code of that name.
func Find(code string) (Code, bool) {
	codes := Codes()
	i := slices.IndexFunc(codes, func(c Code) bool { return c.Name == code })
	if i < 0 {
		return Code{}, false
	}
	return codes[i], true
}
