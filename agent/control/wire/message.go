package wire

import (
	"fmt"
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
)

// The media types of bodies.
const (
	MediaJSON     = "application/json"
	MediaProblem  = "application/problem+json"
	MediaEnvelope = "application/vnd.dsse.envelope.v1+json"
	MediaNAR      = "application/x-nix-nar"
	MediaEvents   = "text/event-stream"
	MediaArchive  = "application/x-tar"
	MediaBytes    = "application/octet-stream"
	MediaText     = "text/plain; charset=utf-8"
)

// MaxBody is the most bytes that a request may carry: an envelope's.
const MaxBody = 64 << 10

// MaxContent is the most bytes of one piece of content that is taken.
const MaxContent = 64 << 30

// ContentKind is what a digest of content is the hash of.
type ContentKind string

// The kinds of content.
const (
	Blob ContentKind = "blob" // the bytes
	Tree ContentKind = "tree" // the Nix archive
)

// Content tells of a piece of content.
type Content struct {
	Kind   ContentKind   `json:"kind"`
	Digest digest.SHA256 `json:"digest"`
	Here   bool          `json:"here"` // the node has it
}

// MismatchError says that bytes are not those that a digest names.
type MismatchError struct {
	Want digest.SHA256
	Why  string
}

func (e *MismatchError) Error() string { return fmt.Sprintf("this is not %s: %s", e.Want, e.Why) }

// Jobs is a page of jobs, newest first.
type Jobs struct {
	Jobs []agent.Job   `json:"jobs"`
	Next digest.SHA256 `json:"next,omitzero"` // what to ask for as before, to get the next page; zero: this is the last
}

// Findings are the checks and decisions about a job, in order.
type Findings struct {
	Findings []agent.Finding `json:"findings"`
}

// Reason is the body of every act: why it is wanted, in one sentence.
type Reason struct {
	Reason string `json:"reason"`
}

// MaxReason is the most bytes of a reason: as in a Directive.
const MaxReason = 512

// Ledger tells of the node's ledger.
type Ledger struct {
	Origin     string        `json:"origin"`
	Size       int64         `json:"size"`
	Root       digest.SHA256 `json:"root,omitzero"`
	Witnesses  []string      `json:"witnesses,omitempty"` // that cosigned
	Checkpoint string        `json:"checkpoint"`          // the signed note
}

// Samples are how the node was used, at even distances, the oldest first.
type Samples struct {
	Seconds  int             `json:"seconds"` // between two of them
	Capacity agent.Resources `json:"capacity"`
	Samples  []Sample        `json:"samples"`
}

// Sample is how the node was used at one time.
type Sample struct {
	At      time.Time `json:"at"`
	CPU     int64     `json:"cpu"`     // thousandths of a processor that active jobs were promised
	Memory  int64     `json:"memory"`  // bytes
	Waiting int       `json:"waiting"` // jobs
	Active  int       `json:"active"`  // jobs
}
