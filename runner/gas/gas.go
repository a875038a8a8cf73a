package gas

import (
	"fmt"
	"strconv"

	"arch.network/runner/wasm/binary"
)

// Names that an instrumented module has and an original must not have.
const (
	Global       = "arch.gas"     // export: the counter, a mutable i64 of what is left
	StatePrefix  = "arch.global." // exports: with Options.Hook, the other mutable globals; 0, 1, 2, … follows
	HookModule   = "arch"         // import: with Options.Hook, the function to call when the counter is below zero
	HookFunction = "gas"
)

// MaxElements is what all tables together may grow to: table.grow fails above, as it may by the specification.
// An engine holds 8 bytes an element, outside of the memory limit.
const MaxElements = 10_000_000

// Options say what is inserted. The limit is not in the code: set the global before the start.
type Options struct {
	// CanonicalNaN makes results of floating-point arithmetic the same on all processors.
	CanonicalNaN bool
	// Hook calls the imported function arch.gas, of type [] -> [], when the counter is below zero, instead of trapping. When
	// it returns, the execution goes on. It also exports every mutable global, so that the state can be saved.
	Hook bool
	// Limits bound the module; zero: binary.DefaultLimits.
	Limits binary.Limits
}

// Metered is an instrumented module.
type Metered struct {
	Module  []byte
	Global  string // name of the exported counter: the constant Global
	Version string // the constant Version
	// State are the names of the other mutable globals' exports, in the order of their numbers; with Options.Hook only.
	State []string
}

// Instrument returns module with counting code. Its error is binary.Decode's, or a *ReservedError.
//
// Custom sections other than "name", "producers" and "target_features" are left out: they could refer to positions in the code.
func Instrument(module []byte, o Options) (*Metered, error) {
	m, err := binary.Decode(module, o.Limits)
	if err != nil {
		return nil, err
	}
	if err := refuseReserved(m); err != nil {
		return nil, err
	}
	metered := &Metered{Global: Global, Version: Version}
	r := newRewriter(m, o)
	if o.Hook {
		metered.State = exportGlobals(m)
		addHook(m)
	}
	for i := range m.Codes {
		r.function(i)
	}
	addCounter(m)
	capTables(m)
	keepCustoms(m)
	metered.Module = m.Encode()
	return metered, nil
}

// ReservedError says that a module has names that Instrument adds.
type ReservedError struct {
	What string
}

func (e *ReservedError) Error() string {
	return "instrument module: " + e.What + ": it was instrumented before"
}

// Hint tells the way out.
func (e *ReservedError) Hint() string {
	return "run the original module, or, if this one was prepared for checkpoints, run it as a checkpointable job"
}

// refuseReserved keeps the names that we add unambiguous.
func refuseReserved(m *binary.Module) error {
	for _, e := range m.Exports {
		if e.Name == Global || len(e.Name) >= len(StatePrefix) && e.Name[:len(StatePrefix)] == StatePrefix {
			return &ReservedError{fmt.Sprintf("it exports %q, a reserved name", e.Name)}
		}
	}
	for _, i := range m.Imports {
		if i.Module == HookModule {
			return &ReservedError{fmt.Sprintf("it imports %q of the reserved module %q", i.Name, i.Module)}
		}
	}
	return nil
}

// addCounter appends the global: no existing number changes.
func addCounter(m *binary.Module) {
	index := uint32(m.ImportedGlobals() + len(m.Globals))
	m.Globals = append(m.Globals, binary.Global{
		GlobalType: binary.GlobalType{Type: binary.I64, Mutable: true},
		Init:       binary.Const{Op: binary.I64Const, Raw: []byte{byte(binary.I64Const), 0}},
	})
	m.Exports = append(m.Exports, binary.Export{Name: Global, Kind: binary.KindGlobal, Index: index})
}

func exportGlobals(m *binary.Module) []string {
	var names []string
	first := m.ImportedGlobals()
	for i := range m.Globals {
		if m.Globals[i].Mutable {
			name := StatePrefix + strconv.Itoa(len(names))
			names = append(names, name)
			m.Exports = append(m.Exports, binary.Export{Name: name, Kind: binary.KindGlobal, Index: uint32(first + i)})
		}
	}
	return names
}

// addHook appends the import of the hook. Own functions' numbers rise by one, everywhere but in the code.
func addHook(m *binary.Module) {
	first := uint32(m.ImportedFuncs())
	m.Imports = append(m.Imports, binary.Import{Module: HookModule, Name: HookFunction, Kind: binary.KindFunc, Type: emptyType(m)})
	shift := func(i *uint32) {
		if *i >= first {
			*i++
		}
	}
	constant := func(c *binary.Const) {
		if c.Op == binary.RefFunc {
			shift(&c.Index)
		}
	}
	for i := range m.Globals {
		constant(&m.Globals[i].Init)
	}
	for i := range m.Exports {
		if m.Exports[i].Kind == binary.KindFunc {
			shift(&m.Exports[i].Index)
		}
	}
	if m.Start != nil {
		shift(m.Start)
	}
	for i := range m.Elements {
		e := &m.Elements[i]
		for j := range e.Funcs {
			shift(&e.Funcs[j])
		}
		for j := range e.Exprs {
			constant(&e.Exprs[j])
		}
	}
	for i := range m.Customs {
		if c := &m.Customs[i]; c.Name == binary.NameSection {
			c.Data = binary.ShiftNames(c.Data, first)
		}
	}
}

// emptyType returns the number of the type [] -> [], which it appends if there is none.
func emptyType(m *binary.Module) uint32 {
	for i, t := range m.Types {
		if len(t.Params)+len(t.Results) == 0 {
			return uint32(i)
		}
	}
	m.Types = append(m.Types, binary.FuncType{})
	return uint32(len(m.Types) - 1)
}

func capTables(m *binary.Module) {
	for i := range m.Tables {
		t := &m.Tables[i]
		if most := max(t.Min, uint32(MaxElements/len(m.Tables))); !t.HasMax || t.Max > most {
			t.Max, t.HasMax = most, true
		}
	}
}

func keepCustoms(m *binary.Module) {
	kept := m.Customs[:0]
	for _, c := range m.Customs {
		switch c.Name {
		case binary.NameSection, "producers", "target_features":
			kept = append(kept, c)
		}
	}
	m.Customs = kept
}
