package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// Signed is a checkpoint whose signatures were verified under a Policy.
type Signed struct {
	Checkpoint
	Witnesses []string  // names of those who cosigned, sorted
	Newest    time.Time // the latest time in a witness's cosignature; zero if there is none
	Note      []byte    // the bytes that were verified
}

// QuorumError says that a checkpoint lacks cosignatures.
type QuorumError struct {
	Origin    string
	Witnesses []string // that did cosign
}

func (e *QuorumError) Error() string {
	who := "no witness of the policy"
	if len(e.Witnesses) > 0 {
		who = "only " + strings.Join(e.Witnesses, ", ")
	}
	return fmt.Sprintf("verify checkpoint of %s: %s cosigned it, which is not the quorum", e.Origin, who)
}

// Hint tells the way out.
func (e *QuorumError) Hint() string {
	return "wait until the log has its checkpoint cosigned, or fetch it again"
}

// Open verifies a signed checkpoint: every key that the policy has for its log must have signed, and the quorum of witnesses
// cosigned. Signatures by keys that the policy does not know are ignored; one that a known key did not make
// refuses the whole note (C2SP signed-note, Verifying). The error is a *QuorumError if only witnesses are lacking.
func (p *Policy) Open(signed []byte) (*Signed, error) {
	s, err := p.Read(signed)
	if err != nil {
		return nil, err
	}
	by := map[string]bool{}
	for _, name := range s.Witnesses {
		by[name] = true
	}
	if !p.quorum.satisfied(by) {
		return nil, &QuorumError{Origin: s.Origin, Witnesses: s.Witnesses}
	}
	return s, nil
}

// Read is Open for whoever asks witnesses for their cosignatures: it does not demand that there be a quorum of them yet.
func (p *Policy) Read(signed []byte) (*Signed, error) {
	n, origin, err := p.open(signed)
	if err != nil {
		return nil, fmt.Errorf("verify checkpoint: %w", err)
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return nil, err
	}
	s := &Signed{Checkpoint: c, Note: slices.Clone(signed)}
	for _, k := range p.logs[origin] {
		if !signedBy(n, k) {
			return nil, fmt.Errorf("verify checkpoint: %s did not sign with its key of type %#02x, %08x", origin, k.kind, k.verifier.KeyHash())
		}
	}
	for _, w := range p.witnesses {
		if sig, ok := signature(n, w.key); ok {
			s.Witnesses = append(s.Witnesses, w.name)
			if at, err := fnote.CoSigV1Timestamp(sig); err == nil && at.After(s.Newest) {
				s.Newest = at
			}
		}
	}
	slices.Sort(s.Witnesses)
	return s, nil
}

// open verifies the signatures of a note by the keys of its log and of all witnesses.
func (p *Policy) open(signed []byte) (*note.Note, string, error) {
	if len(signed) > MaxNote {
		return nil, "", fmt.Errorf("%d bytes are over the limit of %d", len(signed), MaxNote)
	}
	origin, _, _ := strings.Cut(string(signed), "\n")
	keys, ok := p.logs[origin] // unverified yet: it only chooses keys
	if !ok {
		return nil, "", fmt.Errorf("the policy has no log %q", shorten(origin))
	}
	var verifiers []note.Verifier
	for _, k := range keys {
		verifiers = append(verifiers, k.verifier)
	}
	for _, w := range p.witnesses {
		verifiers = append(verifiers, w.key.verifier)
	}
	n, err := note.Open(signed, note.VerifierList(verifiers...))
	if _, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		return nil, "", fmt.Errorf("no key that the policy has for %s signed it", origin)
	}
	if err != nil {
		return nil, "", err
	}
	return n, origin, nil
}

// signature returns the verified signature of a note by k.
func signature(n *note.Note, k key) (note.Signature, bool) {
	for _, s := range n.Sigs {
		if s.Name == k.verifier.Name() && s.Hash == k.verifier.KeyHash() {
			return s, true
		}
	}
	return note.Signature{}, false
}

func signedBy(n *note.Note, k key) bool {
	_, ok := signature(n, k)
	return ok
}
