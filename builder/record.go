package builder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/builder/store"
	"arch.network/runner"
)

// Record is what the store remembers of a build.
type Record struct {
	Outputs     []Output           `json:"outputs"` // in the manifest's order
	Confinement runner.Confinement `json:"confinement"`
	Log         digest.SHA256      `json:"log"` // of the first build's log
	Run         string             `json:"run"` // random: no two runs leave the same provenance
	Started     time.Time          `json:"started"`
	Finished    time.Time          `json:"finished"`
	Variation   *Variation         `json:"variation,omitempty"` // nil: built once
	// Tools are versions of programs other than this one that built, by name.
	Tools map[string]string `json:"tools,omitempty"`
	// Dependencies are what it was evaluated with, and what builders saw besides what they depend on, for the provenance.
	Dependencies []attest.ResourceDescriptor `json:"dependencies,omitempty"`
}

// Variation records a second build that gave the same bits.
type Variation struct {
	Factors []Factor `json:"factors"`           // asked for
	Missing []Factor `json:"missing,omitempty"` // of Factors: could not be varied here
}

// degraded reports whether something that the build asked for was not enforced. The clock's offset is no part of the
// confinement.
func degraded(c runner.Confinement) bool {
	for _, m := range c.Missing {
		if !names(m, clockOffset) {
			return true
		}
	}
	return false
}

// names reports whether an entry of a runner.Confinement, "name" or "name: more", is about name.
func names(entry, name string) bool {
	rest, ok := strings.CutPrefix(entry, name)
	return ok && (rest == "" || rest[0] == ':')
}

// recordKind is under what the store remembers builds.
const recordKind = "build"

// recall looks for a finished build whose outputs are all still there. A record that is damaged, or that does not fit the
// manifest, is as good as none: the build is made again.
func (b *Builder) recall(made *Made) (bool, error) {
	data, ok, err := b.Store.Recall(recordKind, made.ID.Hex())
	if _, corrupt := errors.AsType[*store.CorruptError](err); corrupt {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("recall build %s: %w", made.Manifest.Metadata.Name, err)
	}
	if !ok {
		return false, nil
	}
	rec, err := parseRecord(data)
	if err != nil || !rec.fits(made) {
		return false, nil
	}
	for i := range rec.Outputs {
		path, ok := b.Store.TreePath(rec.Outputs[i].NAR)
		if !ok {
			return false, nil
		}
		rec.Outputs[i].Path = path
	}
	if degraded(rec.Confinement) && !b.Degraded {
		return false, nil // degraded and hermetic results are never mixed
	}
	made.Record = rec
	return true, nil
}

// parseRecord reads exactly what encode writes.
func parseRecord(data []byte) (Record, error) {
	var rec Record
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rec); err != nil {
		return Record{}, fmt.Errorf("read record of build: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Record{}, errors.New("read record of build: there is more behind it")
	}
	again, err := json.Marshal(rec)
	if err != nil {
		return Record{}, err
	}
	if !bytes.Equal(again, data) {
		return Record{}, errors.New("read record of build: it is not in the form that this program writes")
	}
	return rec, nil
}

// fits reports whether the record has the outputs that the manifest declares, each with its digests, and sane times.
func (r Record) fits(made *Made) bool {
	declared := made.Manifest.Spec.Outputs
	if len(r.Outputs) != len(declared) || r.Started.IsZero() || r.Finished.Before(r.Started) {
		return false
	}
	for i, o := range r.Outputs {
		single := isSingle(declared[i].Type)
		if o.Name != declared[i].Name || o.Type != declared[i].Type || o.NAR.IsZero() ||
			o.File.IsZero() == single || o.Tar.IsZero() != single || o.OCI.IsZero() != single {
			return false
		}
	}
	return true
}

func (b *Builder) remember(made *Made) error {
	data, err := json.Marshal(made.Record)
	if err != nil {
		return fmt.Errorf("remember build %s: %w", made.Manifest.Metadata.Name, err)
	}
	return b.Store.Remember(recordKind, made.ID.Hex(), data)
}

// digest names the record: whatever it says is covered.
func (r Record) digest() (digest.SHA256, error) {
	data, err := json.Marshal(r)
	return digest.Of(data), err
}
