package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"arch.network/agent/disk"
	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
)

// floorFormat is the version of the floor's file.
const floorFormat = 1

// maxFloor bounds the file: two envelopes in base64, and a little.
const maxFloor = 4 * dsse.MaxEnvelope

// floor is what must not be undone: what was last in force, and the newest time that a signature vouches for. It is one
// small file, replaced as a whole before what it says is acted upon.
type floor struct {
	Format int      `json:"format"`
	Root   document `json:"trustRoot,omitzero"`
	Policy document `json:"policy,omitzero"`
	Time   string   `json:"time,omitempty"` // RFC 3339, UTC, to the second; empty: nobody vouched for any

	newestTime time.Time // Time, parsed
}

// document is one that was in force.
type document struct {
	Name     string        `json:"name"`
	Version  int64         `json:"version"`
	ID       digest.SHA256 `json:"id"`
	Envelope []byte        `json:"envelope"` // as it was verified: signatures are checked anew before it is used again
}

func (d document) isZero() bool { return d.Version == 0 }

// readFloor reads the file; a missing one is an empty floor.
func readFloor(files disk.FS, path string) (floor, error) {
	data, err := files.Read(path, maxFloor)
	if errors.Is(err, fs.ErrNotExist) {
		return floor{Format: floorFormat}, nil
	}
	if err != nil {
		return floor{}, err
	}
	f, err := parseFloor(data)
	if err != nil {
		// Forgetting it would let old versions come into force again, so this is for a person to decide.
		return floor{}, &floorError{path, err}
	}
	return f, nil
}

func parseFloor(data []byte) (floor, error) {
	var f floor
	if err := canonical.Unmarshal(data, &f); err != nil {
		return floor{}, err
	}
	if f.Format != floorFormat {
		return floor{}, fmt.Errorf("its format is %d, not %d", f.Format, floorFormat)
	}
	if f.Time != "" {
		if _, err := time.Parse(time.RFC3339, f.Time); err != nil {
			return floor{}, err
		}
	}
	for _, d := range []document{f.Root, f.Policy} {
		if d.isZero() {
			continue
		}
		env, err := dsse.Parse(d.Envelope)
		if err != nil {
			return floor{}, fmt.Errorf("%s version %d: %w", d.Name, d.Version, err)
		}
		if env.ID() != d.ID || d.Version < 0 {
			return floor{}, fmt.Errorf("%s version %d is not %s", d.Name, d.Version, d.ID)
		}
	}
	return f, nil
}

// write makes the floor durable.
func (f floor) write(files disk.FS, path string) error {
	data, err := canonical.Marshal(f)
	if err != nil {
		return err
	}
	if err := disk.Replace(files, path, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// newest returns the newest time that a signature vouches for.
func (f floor) newest() time.Time {
	t, err := time.Parse(time.RFC3339, f.Time)
	if err != nil {
		return time.Time{}
	}
	return t
}

// same reports whether both say the same.
func (f floor) same(o floor) bool {
	equal := func(a, b document) bool {
		return a.Name == b.Name && a.Version == b.Version && a.ID == b.ID && bytes.Equal(a.Envelope, b.Envelope)
	}
	return equal(f.Root, o.Root) && equal(f.Policy, o.Policy) && f.Time == o.Time
}

// raise lets the time grow.
func (f *floor) raise(t time.Time) {
	if t.After(f.newest()) {
		f.Time = t.UTC().Format(time.RFC3339)
	}
}

// floorError says that the floor cannot be read.
type floorError struct {
	path string
	err  error
}

func (e *floorError) Error() string { return fmt.Sprintf("read %s: %v", e.path, e.err) }
func (e *floorError) Unwrap() error { return e.err }

// Hint tells the way out.
func (e *floorError) Hint() string {
	return "restore it, or remove it only if you know that the trust root and the policy in place are the newest ones"
}
