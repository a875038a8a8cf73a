package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"arch.network/runner"
	"arch.network/runner/job"
)

// Code says why the broker refuses, for programs.
type Code string

// The codes.
const (
	CodePeer      Code = "peer"      // the user of the other side is not allowed to ask
	CodeBusy      Code = "busy"      // too many connections or jobs: try again later
	CodeStopping  Code = "stopping"  // the broker is being stopped: try again when it is back
	CodeProtocol  Code = "protocol"  // the client broke the protocol
	CodeTimeout   Code = "timeout"   // the client was too slow
	CodeEnvelope  Code = "envelope"  // it is no envelope of a valid Job
	CodeSignature Code = "signature" // no signature of anyone who may issue jobs verifies
	CodeQuorum    Code = "quorum"    // too few of those who must sign did
	CodeTrust     Code = "trust"     // the broker's own trust root or policy cannot be used
	CodePolicy    Code = "policy"    // the policy does not allow it
	CodeTime      Code = "time"      // too early, or expired
	CodeAudience  Code = "audience"  // it is for other nodes
	CodeReplay    Code = "replay"    // it was run as often as it may be
	CodeTicket    Code = "ticket"    // another job has the ticket
	CodeUnknown   Code = "unknown"   // there is no such job of this user
	CodePath      Code = "path"      // a path of the host that the job names could be made to lead elsewhere
	CodeContent   Code = "content"   // content is missing, of a kind that cannot be sent, or too large
	CodeDigest    Code = "digest"    // content is not what the document pins
	CodeSpec      Code = "spec"      // no confinement can be derived from it
	CodeSetup     Code = "setup"     // the confinement could not be made: nothing ran
	CodeInternal  Code = "internal"  // something failed that is nobody's fault but this machine's
)

// Refusal is the broker's no. Whatever the code, the job has not left a result; with CodeInternal it may have run.
type Refusal struct {
	Code    Code         `json:"code"`
	Message string       `json:"message"`
	Cure    string       `json:"hint,omitempty"`
	Reasons []job.Reason `json:"reasons,omitempty"` // what the policy or the calendar has against the job
}

func (e *Refusal) Error() string {
	return fmt.Sprintf("the broker refuses (%s): %s", e.Code, e.Message)
}

// Hint tells the way out.
func (e *Refusal) Hint() string { return e.Cure }

func refuse(code Code, cure, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...), Cure: cure}
}

// maxRefusalText bounds each text of a refusal, so that one always fits into a frame.
const (
	maxRefusalText = 4 << 10
	maxReasons     = 16
)

// refusalOf finds the code of an error.
func refusalOf(err error) *Refusal {
	hint := ""
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		hint = h.Hint()
	}
	code := CodeInternal
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	if d, ok := errors.AsType[*job.DeniedError](err); ok {
		return &Refusal{Code: CodePolicy, Message: d.Error(), Cure: hint, Reasons: d.Reasons}
	}
	if _, ok := errors.AsType[*protocolError](err); ok {
		code = CodeProtocol
	} else if _, ok := errors.AsType[*job.Error](err); ok {
		code = CodeSpec
	} else if _, ok := errors.AsType[*runner.SetupError](err); ok {
		code = CodeSetup
	} else if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		code = CodeTimeout
	}
	return &Refusal{Code: code, Message: err.Error(), Cure: hint}
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

// bounded returns a copy that fits into a frame.
func (e *Refusal) bounded() *Refusal {
	out := &Refusal{Code: e.Code, Message: short(e.Message), Cure: short(e.Cure)}
	for _, r := range e.Reasons[:min(len(e.Reasons), maxReasons)] {
		out.Reasons = append(out.Reasons, job.Reason{Field: short(r.Field), Msg: short(r.Msg), Cure: short(r.Cure)})
	}
	return out
}

func short(s string) string {
	if len(s) > maxRefusalText {
		s = s[:maxRefusalText] + "…"
	}
	return valid(s)
}

// valid makes UTF-8 of a text, which JSON wants; U+FFFD itself is fine.
func valid(s string) string { return strings.ToValidUTF8(s, "?") }
