package ledger

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Proof shows, without any network, that an entry is in a log: its place, the hashes on the way to the root, and a signed
// checkpoint with that root (C2SP tlog-proof).
type Proof struct {
	Index  int64
	Hashes []tlog.Hash
	Note   []byte // the signed checkpoint
	Extra  []byte // what the application adds, unsigned; nil: nothing
}

const (
	proofHeader = "c2sp.org/tlog-proof@v1"
	maxHashes   = 63
	maxProof    = MaxNote + 128<<10
)

// ParseProof reads a proof. It accepts only what Marshal writes.
func ParseProof(data []byte) (*Proof, error) {
	if len(data) > maxProof {
		return nil, fmt.Errorf("read proof: %d bytes are over the limit of %d", len(data), maxProof)
	}
	p, err := parseProof(data)
	if err != nil {
		return nil, fmt.Errorf("read proof: %w", err)
	}
	if !bytes.Equal(p.Marshal(), data) {
		return nil, errors.New("read proof: it is not in its one form")
	}
	return p, nil
}

func parseProof(data []byte) (*Proof, error) {
	head, checkpoint, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok || len(checkpoint) == 0 {
		return nil, errors.New("it has no empty line with a checkpoint behind it")
	}
	lines := strings.Split(string(head), "\n")
	if lines[0] != proofHeader {
		return nil, fmt.Errorf("it begins with %q, not %q", shorten(lines[0]), proofHeader)
	}
	p := &Proof{Note: bytes.Clone(checkpoint)}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		var err error
		if p.Extra, err = base64.StdEncoding.Strict().DecodeString(lines[0][len("extra "):]); err != nil {
			return nil, errors.New("the extra data is not base64")
		}
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return nil, errors.New("it has no index line")
	}
	if p.Index, ok = ParseNumber(lines[0][len("index "):]); !ok {
		return nil, fmt.Errorf("%q is no index", shorten(lines[0]))
	}
	if lines = lines[1:]; len(lines) > maxHashes {
		return nil, fmt.Errorf("%d hashes are over the limit of %d", len(lines), maxHashes)
	}
	for _, line := range lines {
		h, ok := ParseHash(line)
		if !ok {
			return nil, fmt.Errorf("%q is no hash", shorten(line))
		}
		p.Hashes = append(p.Hashes, h)
	}
	return p, nil
}

// Marshal returns the proof's text, for a file named *.tlog-proof.
func (p *Proof) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, proofHeader)
	if p.Extra != nil {
		fmt.Fprintf(&b, "extra %s\n", base64.StdEncoding.EncodeToString(p.Extra))
	}
	fmt.Fprintf(&b, "index %d\n", p.Index)
	for _, h := range p.Hashes {
		fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(p.Note)
	return b.Bytes()
}

// Verify checks that entry stands in a log of the policy at p.Index, and returns the checkpoint that shows it.
func (p *Proof) Verify(policy *Policy, entry []byte) (*Signed, error) {
	s, err := policy.Open(p.Note)
	if err != nil {
		return nil, err
	}
	return s, s.Includes(p.Index, p.Hashes, entry)
}

// Includes checks that entry is number index of the log, by the hashes on the way from it to the root (RFC 6962 section 2.1.1).
func (c Checkpoint) Includes(index int64, hashes []tlog.Hash, entry []byte) error {
	if index < 0 || index >= c.Size {
		return fmt.Errorf("check entry %d of %s: its checkpoint has %d entries", index, c.Origin, c.Size)
	}
	if err := tlog.CheckRecord(hashes, c.Size, c.Root, index, tlog.RecordHash(entry)); err != nil {
		return fmt.Errorf("check entry %d of %s: it is not under the checkpoint of size %d", index, c.Origin, c.Size)
	}
	return nil
}

// ForkError shows that a log tells different histories: two checkpoints of which neither continues the other. Both are signed, if
// they were verified, so that whoever has them can convict the log.
type ForkError struct{ Old, New Checkpoint }

func (e *ForkError) Error() string {
	return fmt.Sprintf("check log %s: its checkpoint of size %d, root %s, does not continue that of size %d, root %s",
		e.New.Origin, e.New.Size, e.New.Root, e.Old.Size, e.Old.Root)
}

// Hint tells the way out.
func (e *ForkError) Hint() string {
	return "keep both checkpoints: they show that the log was forked, rewritten or restored from an old copy"
}

// Continues checks that c is a later state of the same log as old, by a consistency proof (RFC 6962 section 2.1.2), which is
// empty if the sizes are equal or old is empty. The error is a *ForkError if the histories contradict each other, or the proof fails.
func (c Checkpoint) Continues(old Checkpoint, proof []tlog.Hash) error {
	switch {
	case c.Origin != old.Origin:
		return fmt.Errorf("check log %s: the older checkpoint is of another log, %s", c.Origin, old.Origin)
	case c.Size < old.Size:
		return &ForkError{Old: old, New: c}
	case c.Size == old.Size:
		if c.Root != old.Root {
			return &ForkError{Old: old, New: c}
		}
		return needNone(c, proof)
	case old.Size == 0:
		return needNone(c, proof)
	case len(proof) > maxHashes || tlog.CheckTree(proof, c.Size, c.Root, old.Size, old.Root) != nil:
		return &ForkError{Old: old, New: c}
	}
	return nil
}

func needNone(c Checkpoint, proof []tlog.Hash) error {
	if len(proof) > 0 {
		return fmt.Errorf("check log %s: a proof of %d hashes where none is needed", c.Origin, len(proof))
	}
	return nil
}
