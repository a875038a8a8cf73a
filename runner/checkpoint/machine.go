package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"arch.network/runner/gas"
	"arch.network/runner/wasm"
)

// errLimit ends a module that has used all of its gas.
var errLimit = errors.New("the gas limit is used up")

// resumeError says why an execution could not go on from a Checkpoint.
type resumeError struct{ why string }

func (e *resumeError) Error() string { return e.why }

var (
	errDiverged  = &resumeError{"repeating the execution led to another state: its module, inputs or options are not the ones it was stopped with"}
	errNoWayBack = &resumeError{"the saved call stack does not lead to where the module was stopped"}
)

// machine is one execution, in slices.
type machine struct {
	in       instance
	prepared bool
	request  request
	from     *Checkpoint // nil: from the beginning
	limit    uint64      // zero: none
	globals  []string    // names of the mutable globals
	asked    func() bool // whether to stop at the end of the slice
	verify   bool        // it repeats from, and has not come to its end yet

	granted   uint64
	initial   bool // code runs that comes before the entry: stopping there is not possible
	unwinding bool
	rewinding bool
	ticket    []byte      // what a borrowed part of memory held: bytes from stackBase on
	stopped   *Checkpoint // the result, once it was stopped
}

// instance is the part of *wasm.Instance that a machine needs.
type instance interface {
	Has(function string) bool
	Call(function string, params ...uint64) ([]uint64, error)
	Memory() wasm.Memory
	Global(name string) (uint64, bool)
	SetGlobal(name string, value uint64) bool
	SetGasUsed(before uint64, counter int64)
	wasiState() ([]byte, error)
	restoreWASI(state []byte) error
	files(dirs []string) ([]Files, error)
	restoreFiles(files []Files) error
}

// defaultEntry and startExport are package wasm's names for where a module starts, and for what its start section named.
const (
	defaultEntry = "_start"
	startExport  = "arch.start"
)

// newMachine returns a machine over an instance that has not run yet.
func newMachine(in instance, r request, from *Checkpoint, limit uint64, asked func() bool) (*machine, error) {
	m := &machine{in: in, request: r, from: from, limit: limit, asked: asked, prepared: in.Has(startUnwind)}
	m.verify = from != nil && from.Snapshot == nil
	for {
		name := gas.StatePrefix + strconv.Itoa(len(m.globals))
		if _, ok := in.Global(name); !ok {
			break
		}
		m.globals = append(m.globals, name)
	}
	switch {
	case !m.prepared && !r.Deterministic:
		return nil, errors.New("a module that was not prepared for snapshots, and that reads the host's clock or randomness, cannot be stopped and resumed")
	case from != nil && from.Version != gas.Version:
		return nil, fmt.Errorf("resume: it counted gas by %q, and this is %q", from.Version, gas.Version)
	case from != nil && from.Entry != r.Entry:
		return nil, fmt.Errorf("resume: the checkpoint is of entry %q, not %q", from.Entry, r.Entry)
	case from != nil && limit > 0 && from.Granted > limit:
		return nil, fmt.Errorf("resume: %d gas was granted before, more than the limit of %d", from.Granted, limit)
	case from != nil && r.Stop > 0 && r.Stop <= from.Granted:
		return nil, fmt.Errorf("resume: to stop at %d gas is no more than the %d granted before", r.Stop, from.Granted)
	case from != nil && from.Snapshot != nil && !slices.Equal(from.Snapshot.dirs(), r.Dirs):
		return nil, fmt.Errorf("resume: the checkpoint has what was in %q, and here %q end with the confinement", from.Snapshot.dirs(), r.Dirs)
	}
	return m, nil
}

// run executes the module until it ends or is stopped. Its error is wasm.ErrStopped if it was stopped; then m.stopped holds where.
func (m *machine) run() error {
	if m.from != nil && m.from.Snapshot != nil {
		return m.resume(m.from)
	}
	m.grantUpTo(m.next(0))
	m.setCounter(int64(m.granted))
	m.initial = true
	for _, name := range m.initials() {
		if !m.in.Has(name) {
			continue
		}
		if _, err := m.in.Call(name); err != nil {
			return err
		}
	}
	m.initial = false
	return m.enter()
}

// initials are what comes before the entry, as in package wasm.
func (m *machine) initials() []string {
	if m.request.Entry != defaultEntry {
		return []string{startExport, "_initialize"}
	}
	return []string{startExport}
}

// enter calls the entry, and takes the call stack if that returned because of it.
func (m *machine) enter() error {
	if !m.in.Has(m.request.Entry) {
		return fmt.Errorf("it exports no function %q to start with", m.request.Entry)
	}
	_, err := m.in.Call(m.request.Entry)
	switch {
	case m.rewinding && err == nil:
		return errNoWayBack
	case m.unwinding && err != nil: // the stack did not fit into the memory
		m.unwinding = false
		m.stopped.Snapshot = nil // a mark is left
		return wasm.ErrStopped
	case m.unwinding:
		return m.unwound()
	case m.stopped != nil:
		return wasm.ErrStopped
	case err == nil && m.from != nil && m.verify:
		return errDiverged // it ended before the place where it was stopped
	}
	return err
}

// next is the end of the slice after granted.
func (m *machine) next(granted uint64) uint64 {
	if m.verify { // the same ends of slices as then
		return m.from.Granted
	}
	end := granted + m.request.Slice
	if stop := m.request.Stop; stop > granted && stop < end {
		end = stop
	}
	if m.limit > 0 {
		end = min(end, m.limit)
	}
	return end
}

func (m *machine) grantUpTo(end uint64) {
	m.granted = end
	m.in.SetGasUsed(0, int64(end))
}

func (m *machine) counter() int64 {
	v, _ := m.in.Global(gas.Global)
	return int64(v)
}

func (m *machine) setCounter(v int64) { m.in.SetGlobal(gas.Global, uint64(v)) }

func (m *machine) used() uint64 { return m.granted - uint64(m.counter()) }

// hook is called when a slice is used up, and when a call stack has been built again.
func (m *machine) hook() {
	if m.unwinding {
		panic(errors.New("the module runs on although it was told to save its call stack"))
	}
	if m.rewinding {
		m.rewound()
	}
	if m.verify && !m.initial && m.granted == m.from.Granted {
		m.check()
	}
	for m.counter() < 0 {
		if m.limit > 0 && m.granted >= m.limit {
			panic(errLimit)
		}
		if m.due() {
			m.stop()
			return
		}
		if m.verify { // the place to compare was passed
			panic(errDiverged)
		}
		end := m.next(m.granted)
		m.setCounter(m.counter() + int64(end-m.granted))
		m.grantUpTo(end)
	}
}

// due reports whether to stop here.
func (m *machine) due() bool {
	if m.initial {
		return false
	}
	return m.request.Stop > 0 && m.granted >= m.request.Stop || m.asked()
}

// check compares the state with the one that was stopped.
func (m *machine) check() {
	m.verify = false
	s, err := m.snapshot()
	if err != nil {
		panic(err)
	}
	if s.digest() != m.from.State || m.used() != m.from.Gas {
		panic(errDiverged)
	}
}

// stop takes the state, and lets a prepared module return from all of its functions.
func (m *machine) stop() {
	s, err := m.snapshot()
	if err != nil {
		panic(err)
	}
	m.stopped = &Checkpoint{Module: m.request.Module, Gas: m.used(), Granted: m.granted, Version: gas.Version, Entry: m.request.Entry, State: s.digest()}
	if !m.prepared || m.in.Memory().Size() < stackBase+pageSize/2 {
		panic(wasm.ErrStopped)
	}
	memory, _ := m.in.Memory().Read(0, m.in.Memory().Size())
	s.own()
	m.stopped.Snapshot = s
	m.unwinding = true
	binary.LittleEndian.PutUint32(memory[stackHead:], stackBase)
	binary.LittleEndian.PutUint32(memory[stackHead+4:], uint32(min(uint64(len(memory)), stackBase+maxStack)))
	if _, err := m.in.Call(startUnwind, stackHead); err != nil {
		panic(err)
	}
}

// Where a call stack lies in memory, which is borrowed for it: its head of two pointers, and its bytes.
const (
	stackHead = 16
	stackBase = stackHead + 8
)

// unwound takes the call stack.
func (m *machine) unwound() error {
	if _, err := m.in.Call(stopUnwind); err != nil {
		return err
	}
	m.unwinding = false
	memory, _ := m.in.Memory().Read(0, m.in.Memory().Size())
	end := binary.LittleEndian.Uint32(memory[stackHead:])
	if end < stackBase || uint64(end) > uint64(len(memory)) {
		return errors.New("save call stack: its end is not in memory")
	}
	m.stopped.Snapshot.Stack = bytes.Clone(memory[stackBase:end])
	files, err := m.in.files(m.request.Dirs)
	if err != nil { // they are too many to be carried: a mark is left
		m.stopped.Snapshot = nil
		return wasm.ErrStopped
	}
	m.stopped.Snapshot.Files = files
	return wasm.ErrStopped
}

// snapshot returns the state without the call stack. Its blocks refer to the memory.
func (m *machine) snapshot() (*Snapshot, error) {
	s := &Snapshot{}
	var err error
	if s.WASI, err = m.in.wasiState(); err != nil {
		return nil, err
	}
	for _, name := range m.globals {
		v, _ := m.in.Global(name)
		s.Globals = append(s.Globals, v)
	}
	if memory := m.in.Memory(); memory != nil {
		b, _ := memory.Read(0, memory.Size())
		s.Pages, s.Blocks = memory.Size()/pageSize, blocks(b)
	}
	return s, nil
}

// resume puts a snapshot in place and goes on.
func (m *machine) resume(c *Checkpoint) error {
	s := c.Snapshot
	if !m.prepared || len(s.Globals) != len(m.globals) {
		return &resumeError{"the snapshot is of another module"}
	}
	memory, err := m.fill(s)
	if err != nil {
		return &resumeError{err.Error()}
	}
	for i, name := range m.globals {
		m.in.SetGlobal(name, s.Globals[i])
	}
	if err := m.in.restoreFiles(s.Files); err != nil {
		return &resumeError{err.Error()}
	}
	if err := m.in.restoreWASI(s.WASI); err != nil {
		return &resumeError{err.Error()}
	}
	m.grantUpTo(c.Granted)
	m.setCounter(-int64(c.Gas - c.Granted))
	end := stackBase + len(s.Stack)
	if end > len(memory) {
		return &resumeError{"the call stack does not fit into the memory"}
	}
	m.ticket = bytes.Clone(memory[stackHead:end])
	binary.LittleEndian.PutUint32(memory[stackHead:], uint32(end))
	binary.LittleEndian.PutUint32(memory[stackHead+4:], uint32(end))
	copy(memory[stackBase:], s.Stack)
	m.rewinding = true
	if _, err := m.in.Call(startRewind, stackHead); err != nil {
		return err
	}
	return m.enter()
}

// fill makes the memory that of s.
func (m *machine) fill(s *Snapshot) ([]byte, error) {
	memory := m.in.Memory()
	pages := memory.Size() / pageSize
	if s.Pages < pages {
		return nil, fmt.Errorf("the snapshot has %d pages of memory, the module starts with %d", s.Pages, pages)
	}
	if _, ok := memory.Grow(s.Pages - pages); !ok {
		return nil, fmt.Errorf("the snapshot has %d pages of memory, more than the limit", s.Pages)
	}
	b, _ := memory.Read(0, memory.Size())
	at := 0
	for _, block := range s.Blocks {
		start := int(block.Index) * BlockSize
		clear(b[at:start])
		at = start + copy(b[start:], block.Bytes)
	}
	clear(b[at:])
	return b, nil
}

// rewound puts back what the call stack has covered. The counter needs nothing: asyncify skips what counts.
func (m *machine) rewound() {
	if _, err := m.in.Call(stopRewind); err != nil {
		panic(err)
	}
	m.rewinding = false
	m.in.Memory().Write(stackHead, m.ticket)
	m.ticket = nil
}
