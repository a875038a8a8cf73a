package archive

import (
	"errors"
	"fmt"
	"slices"

	"arch.network/agent"
	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/builder/store"
)

// Version is that of the form of entries.
const Version = 1

// Limits of an entry.
const (
	MaxEntry      = 4 << 20 // bytes of its JSON
	MaxObjects    = 16384
	MaxStatements = 256
)

// Entry names everything that replaying a job needs. It is not signed: whatever it says of the job and its result is what the signed documents that
// it names say, too, or it is refused.
type Entry struct {
	Version  int           `json:"version"`
	Job      digest.SHA256 `json:"job"`      // document id
	Name     string        `json:"name"`     // metadata.name
	Envelope digest.SHA256 `json:"envelope"` // sha256 of the envelope's bytes

	Result  digest.SHA256   `json:"result"` // id of the job-result statement
	Runs    []digest.SHA256 `json:"runs"`   // ids of the job-run statements
	Outputs []agent.Output  `json:"outputs"`
	Gas     uint64          `json:"gas,omitempty"`
	Stdout  digest.SHA256   `json:"stdout"` // sha256 of what was printed

	Objects []Object `json:"objects"`        // of the store, sorted by digest: what went in and what came out
	Pins    []string `json:"pins,omitempty"` // references whose content is not kept, sorted

	Node string `json:"node"` // identity of the node
}

// Object is one object of a store.
type Object struct {
	Kind   store.Kind    `json:"kind"`
	Digest digest.SHA256 `json:"digest"`
}

// Encode returns the canonical form, whose SHA-256 names the entry: the ledger has it, beside the result if both were decided at once.
func (e *Entry) Encode() ([]byte, error) {
	if err := e.validate(); err != nil {
		return nil, err
	}
	data, err := canonical.Marshal(e)
	if err == nil && len(data) > MaxEntry {
		err = fmt.Errorf("it has %d bytes, over the limit of %d", len(data), MaxEntry)
	}
	if err != nil {
		return nil, fmt.Errorf("encode archive entry: %w", err)
	}
	return data, nil
}

// Decode reads what Encode has written, and nothing else.
func Decode(data []byte) (*Entry, error) {
	if len(data) > MaxEntry {
		return nil, fmt.Errorf("read archive entry: it has over %d bytes", MaxEntry)
	}
	e := new(Entry)
	if err := canonical.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("read archive entry: %w", err)
	}
	if err := e.validate(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Entry) validate() error {
	switch {
	case e.Version != Version:
		return fmt.Errorf("archive entry has version %d, not %d", e.Version, Version)
	case e.Job.IsZero() || e.Envelope.IsZero() || e.Result.IsZero():
		return errors.New("archive entry lacks its job, envelope or result")
	case len(e.Objects) > MaxObjects || len(e.Runs)+1 > MaxStatements || len(e.Pins) > MaxObjects || len(e.Outputs) > MaxObjects:
		return fmt.Errorf("archive entry names over %d objects or %d statements", MaxObjects, MaxStatements)
	case !slices.IsSortedFunc(e.Objects, compareObjects) || hasTwice(e.Objects):
		return errors.New("archive entry's objects are not sorted, each once")
	}
	for _, o := range e.Objects {
		if o.Kind != store.Blob && o.Kind != store.Tree || o.Digest.IsZero() {
			return fmt.Errorf("archive entry names the object %q %s", o.Kind, o.Digest)
		}
	}
	return nil
}

func compareObjects(a, b Object) int { return slices.Compare(a.Digest[:], b.Digest[:]) }

func hasTwice(list []Object) bool {
	for i := 1; i < len(list); i++ {
		if list[i].Digest == list[i-1].Digest {
			return true
		}
	}
	return false
}

// ObjectsOf finds out what kind each object is. One that the store does not have is an error.
func ObjectsOf(s *store.Store, digests []digest.SHA256) ([]Object, error) {
	var out []Object
	for _, d := range digests {
		o := Object{Kind: store.Tree, Digest: d}
		if _, ok := s.TreePath(d); !ok {
			o.Kind = store.Blob
			if _, ok := s.BlobPath(d); !ok {
				return nil, fmt.Errorf("archive: the store has no object %s", d)
			}
		}
		out = append(out, o)
	}
	slices.SortFunc(out, compareObjects)
	return slices.CompactFunc(out, func(a, b Object) bool { return a == b }), nil
}
