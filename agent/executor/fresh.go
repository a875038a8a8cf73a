package executor

import (
	"bytes"
	"sync"

	"arch.network/attest/digest"
)

// fresh is what was handed in last, as it was read then: a job that starts soon is not read again. It is of one use each.
type fresh struct {
	mu   sync.Mutex // guards the rest
	list map[digest.SHA256]handed
	ring [mostFresh]digest.SHA256 // of list, the oldest at next
	next int
}

type handed struct {
	proposal Proposal
	envelope []byte
}

// mostFresh bounds what is remembered: about 10 KB each.
const mostFresh = 256

func newFresh() *fresh { return &fresh{list: map[digest.SHA256]handed{}} }

// keep remembers a proposal instead of the oldest one. The caller may change envelope afterwards.
func (f *fresh) keep(p Proposal, envelope []byte) {
	h := handed{p, bytes.Clone(envelope)}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.list, f.ring[f.next])
	f.list[p.ID], f.ring[f.next] = h, p.ID
	f.next = (f.next + 1) % mostFresh
}

// take returns a proposal, and forgets it.
func (f *fresh) take(id digest.SHA256) (Proposal, []byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.list[id]
	delete(f.list, id)
	return h.proposal, h.envelope, ok
}
