package wasi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// State is a System between two calls, without what lies in its directories and without the module's memory. It is
// written as JSON (Marshal) and read back strictly (ParseState). A directory that is being listed is listed anew: entries that
// came or went since the listing began can then be met twice or not at all, as POSIX has it.
type State struct {
	Version     int          `json:"version"` // 1
	Descriptors []Descriptor `json:"descriptors"`
	Clock       int64        `json:"clock"`            // nanoseconds since Config.Clock, or since the start by the host's clock
	Random      []byte       `json:"random,omitempty"` // the position of math/rand/v2.ChaCha8, in its own encoding; none without a Seed
	Stdout      uint64       `json:"stdout"`           // bytes written so far
	Stderr      uint64       `json:"stderr"`
}

// Descriptor is one open descriptor of a State, in the order of numbers.
type Descriptor struct {
	Number     int    `json:"number"`
	Kind       string `json:"kind"`           // "stdin", "stdout", "stderr", "preopen", "directory" or "file"
	Dir        string `json:"dir,omitempty"`  // the Name of the Dir that Path is in
	Path       string `json:"path,omitempty"` // relative to it
	Offset     int64  `json:"offset,omitempty"`
	Flags      uint16 `json:"flags,omitempty"` // fdflags
	Rights     uint64 `json:"rights"`
	Inheriting uint64 `json:"inheriting,omitempty"`
}

const stateVersion = 1

// MaxState is how many bytes a State may have as JSON: what all descriptors with the longest paths need.
const MaxState = 32 << 20

// State takes the state out. It fails if a descriptor is of a file or directory that has been removed: nobody could open it
// again.
func (s *System) State() (State, error) {
	st := State{Version: stateVersion, Stdout: s.written[1], Stderr: s.written[2], Clock: s.clock.now(clockMonotonic)}
	if s.random.stream != nil {
		position, err := s.random.stream.MarshalBinary()
		if err != nil {
			return State{}, fmt.Errorf("take state of randomness: %w", err)
		}
		st.Random = position
	}
	for n, d := range s.table {
		if d == nil {
			continue
		}
		if d.removed {
			return State{}, fmt.Errorf("take state of descriptor %d: %q was removed while open", n, d.path)
		}
		out := Descriptor{
			Number: n, Kind: string(d.kind), Path: d.path, Offset: d.offset, Flags: d.flags,
			Rights: uint64(d.rights), Inheriting: uint64(d.inheriting),
		}
		if d.isDirectory() || d.file != nil {
			out.Dir = s.config.Dirs[d.dir].Name
		}
		st.Descriptors = append(st.Descriptors, out)
	}
	return st, nil
}

// Marshal writes the State as JSON.
func (st State) Marshal() ([]byte, error) { return json.Marshal(st) }

// ParseState reads what Marshal wrote, and refuses everything else.
func ParseState(data []byte) (State, error) {
	if len(data) > MaxState {
		return State{}, fmt.Errorf("parse WASI state: %d bytes, more than %d", len(data), MaxState)
	}
	var st State
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&st); err != nil {
		return State{}, fmt.Errorf("parse WASI state: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return State{}, errors.New("parse WASI state: something follows it")
	}
	if err := st.validate(); err != nil {
		return State{}, fmt.Errorf("parse WASI state: %w", err)
	}
	return st, nil
}

func (st State) validate() error {
	if st.Version != stateVersion {
		return fmt.Errorf("version is %d, not %d", st.Version, stateVersion)
	}
	if st.Clock < 0 {
		return fmt.Errorf("clock is at %d", st.Clock)
	}
	last := -1
	for _, d := range st.Descriptors {
		if d.Number <= last || d.Number >= maxDescriptors {
			return fmt.Errorf("descriptor %d comes after %d, or is more than %d", d.Number, last, maxDescriptors-1)
		}
		last = d.Number
		if d.Offset < 0 || d.Flags&^flagsAll != 0 {
			return fmt.Errorf("descriptor %d has offset %d, flags %#x", d.Number, d.Offset, d.Flags)
		}
		if !slices.Contains([]kind{kindStdin, kindStdout, kindStderr, kindPreopen, kindDirectory, kindFile}, kind(d.Kind)) {
			return fmt.Errorf("descriptor %d is of unknown kind %q", d.Number, d.Kind)
		}
		if d.Path != "" && check(d.Path) != success || len(d.Path) >= maxPath {
			return fmt.Errorf("descriptor %d has path %q", d.Number, d.Path)
		}
	}
	return nil
}

// Restore returns a System in the state st, over the directories of c, which must have the names, contents and writability
// that those of the other System had. Nothing is created or cut: a file of st that is not there is an error. No descriptor
// has more rights than c gives.
func Restore(c Config, st State) (*System, error) {
	if err := st.validate(); err != nil {
		return nil, fmt.Errorf("restore WASI state: %w", err)
	}
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	fresh := s.table
	s.table = nil
	for _, d := range st.Descriptors {
		restored, err := s.restore(d, fresh)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("restore descriptor %d: %w", d.Number, err)
		}
		for len(s.table) <= d.Number {
			s.table = append(s.table, nil)
		}
		s.table[d.Number] = restored
	}
	if err := s.position(st); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// position sets the clock, the randomness and the counts.
func (s *System) position(st State) error {
	s.clock.passed = time.Duration(st.Clock)
	s.clock.began = time.Now().Add(-time.Duration(st.Clock))
	s.written = [3]uint64{0, st.Stdout, st.Stderr}
	if (s.random.stream == nil) != (st.Random == nil) {
		return errors.New("restore WASI state: one of state and config has a seed, the other has none")
	}
	if st.Random == nil {
		return nil
	}
	if err := s.random.stream.UnmarshalBinary(st.Random); err != nil {
		return fmt.Errorf("restore WASI state: %w", err)
	}
	return nil
}

// restore makes one descriptor, like the one in fresh that it was opened from, with no more rights.
func (s *System) restore(d Descriptor, fresh []*descriptor) (*descriptor, error) {
	var like *descriptor
	for _, f := range fresh {
		opened := d.Kind == string(kindDirectory) || d.Kind == string(kindFile)
		if f.kind == kindPreopen && (opened || d.Kind == string(kindPreopen)) && s.config.Dirs[f.dir].Name == d.Dir || !opened && string(f.kind) == d.Kind && f.kind != kindPreopen {
			like = f
		}
	}
	if like == nil {
		return nil, fmt.Errorf("there is no %s %q", d.Kind, d.Dir)
	}
	may, pass := like.rights, like.inheriting
	if kind(d.Kind) == kindFile || kind(d.Kind) == kindDirectory {
		may = like.inheriting
	}
	out := &descriptor{
		kind: kind(d.Kind), dir: like.dir, out: like.out, path: d.Path, offset: d.Offset, flags: d.Flags,
		rights: rights(d.Rights), inheriting: rights(d.Inheriting),
	}
	if out.rights&^may != 0 || out.inheriting&^pass != 0 {
		return nil, fmt.Errorf("%s %q had rights that are not given here", d.Kind, d.Dir+"/"+d.Path)
	}
	return out, s.reopen(out)
}

// reopen opens what a restored descriptor names.
func (s *System) reopen(d *descriptor) error {
	if !d.isDirectory() && d.kind != kindFile {
		return nil
	}
	f, st, e := s.tree(d).open(d.path, opening{read: d.rights&rightRead != 0, write: d.rights&rightWrite != 0, follow: true})
	if e != success {
		return fmt.Errorf("open %q: WASI error %d", d.path, e)
	}
	d.file = f
	if (st.kind == typeDirectory) != d.isDirectory() {
		if f != nil {
			f.close()
		}
		return fmt.Errorf("open %q: it is not a %s any more", d.path, d.kind)
	}
	return nil
}
