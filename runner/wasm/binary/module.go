package binary

// ValType is the type of a value, as the format encodes it.
type ValType byte

// The types of values.
const (
	I32       ValType = 0x7f
	I64       ValType = 0x7e
	F32       ValType = 0x7d
	F64       ValType = 0x7c
	V128      ValType = 0x7b
	FuncRef   ValType = 0x70
	ExternRef ValType = 0x6f
)

func (t ValType) valid() bool { return t >= V128 && t <= I32 || t.ref() }
func (t ValType) ref() bool   { return t == FuncRef || t == ExternRef }

// Kind is what an import or export is.
type Kind byte

// The kinds of imports and exports.
const (
	KindFunc   Kind = 0
	KindTable  Kind = 1
	KindMemory Kind = 2
	KindGlobal Kind = 3
)

// Module is a decoded module. Its byte slices are parts of the decoded bytes, which must not change.
type Module struct {
	Types    []FuncType
	Imports  []Import
	Funcs    []uint32 // the type of each own function
	Tables   []Table
	Memories []Memory // at most one, with the imported
	Globals  []Global
	Exports  []Export
	Start    *uint32 // nil: none
	Elements []Element
	// DataCount is the number of data segments as announced before the code; nil: not announced.
	DataCount *uint32
	Codes     []Code // as many as Funcs
	Data      []Data
	Customs   []Custom
}

// FuncType is what a function takes and gives.
type FuncType struct {
	Params, Results []ValType
}

// Import is something that the module needs.
type Import struct {
	Module, Name string
	Kind         Kind
	Type         uint32     // for KindFunc
	Table        Table      // for KindTable
	Memory       Memory     // for KindMemory
	Global       GlobalType // for KindGlobal
}

// Table is a table of references.
type Table struct {
	Type   ValType // FuncRef or ExternRef
	Min    uint32
	Max    uint32 // if HasMax
	HasMax bool
}

// Memory is a linear memory, measured in pages of 64 KiB.
type Memory struct {
	Min, Max uint32
	HasMax   bool
}

// GlobalType is the type of a global variable.
type GlobalType struct {
	Type    ValType
	Mutable bool
}

// Global is an own global variable.
type Global struct {
	GlobalType
	Init Const
}

// Const is a constant expression: one instruction.
type Const struct {
	Op    Op
	Index uint32 // of the function (RefFunc) or global (GlobalGet)
	Raw   []byte // the instruction, for other operations
}

// Export is something that the module gives.
type Export struct {
	Name  string
	Kind  Kind
	Index uint32
}

// Element is a segment of table elements.
type Element struct {
	Form   uint32 // as encoded: bit 0 passive or declarative, bit 1 explicit table or declarative, bit 2 expressions
	Table  uint32
	Offset Const // unless passive or declarative
	Type   ValType
	Funcs  []uint32 // unless Form says expressions
	Exprs  []Const
}

// Active reports whether the segment is copied at instantiation.
func (e *Element) Active() bool { return e.Form&1 == 0 }

// Data is a segment of memory.
type Data struct {
	Passive bool
	Offset  Const // unless passive
	Bytes   []byte
}

// Locals are several local variables of one type.
type Locals struct {
	Count uint32
	Type  ValType
}

// Code is a function's variables and instructions.
type Code struct {
	Locals []Locals
	Body   []byte // with its last end
	Offset int    // of Body in the decoded module; zero if it was made otherwise
}

// Custom is a custom section.
type Custom struct {
	Name  string
	Data  []byte
	After byte // id of the section it follows; zero: none
}

// ImportedFuncs returns how many functions are imported: own ones are numbered from there.
func (m *Module) ImportedFuncs() int { return m.imported(KindFunc) }

// ImportedGlobals returns how many globals are imported: own ones are numbered from there.
func (m *Module) ImportedGlobals() int { return m.imported(KindGlobal) }

func (m *Module) imported(k Kind) int {
	n := 0
	for i := range m.Imports {
		if m.Imports[i].Kind == k {
			n++
		}
	}
	return n
}
