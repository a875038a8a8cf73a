package binary

import (
	"bytes"
	"fmt"
)

// The sections' ids (section 5.5.2).
const (
	idCustom    = 0
	idType      = 1
	idImport    = 2
	idFunction  = 3
	idTable     = 4
	idMemory    = 5
	idGlobal    = 6
	idExport    = 7
	idStart     = 8
	idElement   = 9
	idCode      = 10
	idData      = 11
	idDataCount = 12
	idTag       = 13
)

var sectionNames = [...]string{
	"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code",
	"data", "data count", "tag",
}

// sectionOrder ranks the ids: sections come in rising rank, each at most once.
var sectionOrder = [...]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 10, 13}

// preamble is the magic number and version.
var preamble = []byte("\x00asm\x01\x00\x00\x00")

// Check reports why module is not well-formed or over limits: the same as Decode's error.
func Check(module []byte, limits Limits) error {
	_, err := Decode(module, limits)
	return err
}

// Decode reads a module. The error is a *FormatError or a *LimitError. The result refers to module, which must not change.
func Decode(module []byte, limits Limits) (*Module, error) {
	limits = limits.complete()
	if len(module) > limits.Module {
		return nil, &LimitError{What: "bytes of the module", Count: uint64(len(module)), Limit: limits.Module}
	}
	if !bytes.HasPrefix(module, preamble) {
		return nil, &FormatError{Text: fmt.Sprintf("starts with %q, not with the magic number and version 1 of WebAssembly", module[:min(8, len(module))])}
	}
	d := &decoder{reader: reader{data: module, pos: len(preamble), limits: &limits}, m: new(Module)}
	for d.left() > 0 && d.err == nil {
		d.oneSection()
	}
	if d.err == nil {
		d.complete()
	}
	if d.err != nil {
		return nil, d.err
	}
	return d.m, nil
}

type decoder struct {
	reader
	m     *Module
	last  byte // id of the last section that is not custom
	named bool // there was a name section

	funcs    []uint32 // types of all functions, the imported first
	globals  []GlobalType
	tables   []ValType
	memories int
	elements uint64 // initial elements of all tables

	entries, targets, moves, locals, squares int // so far
}

func (d *decoder) oneSection() {
	id := d.byte()
	if int(id) >= len(sectionNames) {
		d.failf("section id %d", id)
		return
	}
	d.section = sectionNames[id]
	if id == idTag {
		d.failf("exceptions are not supported")
		return
	}
	size := d.u32()
	if d.err == nil && uint64(size) > uint64(d.left()) {
		d.failf("%d bytes announced, %d left", size, d.left())
	}
	if d.err != nil {
		return
	}
	if id != idCustom {
		if sectionOrder[id] <= sectionOrder[d.last] {
			d.failf("out of order or twice")
			return
		}
		d.last = id
	}
	whole := d.data
	end := d.pos + int(size)
	d.data = whole[:end]
	d.content(id)
	if d.err == nil && d.pos != end {
		d.failf("%d bytes more than its content", end-d.pos)
	}
	d.data = whole
}

func (d *decoder) content(id byte) {
	switch id {
	case idCustom:
		if len(d.m.Customs) >= d.limits.Customs {
			d.over("custom sections", uint64(len(d.m.Customs)+1), d.limits.Customs)
			return
		}
		d.custom()
	case idType:
		d.m.Types = list(d, "types", 3, d.limits.Types, d.funcType)
	case idImport:
		d.m.Imports = list(d, "imports", 4, d.limits.Imports, d.oneImport)
	case idFunction:
		d.m.Funcs = list(d, "functions", 1, d.limits.Functions-len(d.funcs), d.ownFunc)
	case idTable:
		d.m.Tables = list(d, "tables", 3, d.limits.Tables-len(d.tables), d.ownTable)
	case idMemory:
		d.m.Memories = list(d, "memories", 2, 2, d.ownMemory)
	case idGlobal:
		d.m.Globals = list(d, "globals", 4, d.limits.Globals-len(d.globals), d.ownGlobal)
	case idExport:
		d.exports()
	case idStart:
		i := d.index("function", len(d.funcs))
		d.m.Start = &i
	case idElement:
		d.m.Elements = list(d, "element segments", 3, d.limits.Segments, d.element)
	case idDataCount:
		n := uint32(d.count("data segments", 0, d.limits.Segments))
		d.m.DataCount = &n
	case idCode:
		d.m.Codes = list(d, "codes", 3, d.limits.Functions, d.code())
	case idData:
		d.m.Data = list(d, "data segments", 2, d.limits.Segments, d.oneData)
	}
}

func (d *decoder) custom() {
	at := d.pos
	name := d.name()
	data := d.bytes(uint32(d.left()))
	if d.err == nil && name == NameSection {
		if d.named {
			d.pos = at
			d.failf("%q twice", name)
			return
		}
		d.named = true
		d.checkNames(data)
	}
	d.m.Customs = append(d.m.Customs, Custom{name, data, d.last})
}

// list reads a count and as many items of at least size bytes.
func list[T any](d *decoder, what string, size, limit int, item func() T) []T {
	n := d.count(what, size, max(limit, 0))
	if n == 0 {
		return nil
	}
	out := make([]T, 0, n)
	for range n {
		out = append(out, item())
		if d.err != nil {
			return nil
		}
	}
	return out
}

// complete checks what concerns several sections.
func (d *decoder) complete() {
	if len(d.m.Funcs) != len(d.m.Codes) {
		d.failf("%d functions, but code of %d", len(d.m.Funcs), len(d.m.Codes))
	}
	if n := d.m.DataCount; n != nil && int(*n) != len(d.m.Data) {
		d.failf("%d data segments announced, %d found", *n, len(d.m.Data))
	}
}

func (d *decoder) funcType() FuncType {
	if form := d.byte(); d.err == nil && form != 0x60 {
		d.pos--
		d.failf("type of form %#x: only functions are supported", form)
	}
	params := list(d, "parameters", 1, d.limits.Arity, d.valType)
	return FuncType{params, list(d, "results", 1, d.limits.Arity, d.valType)}
}

func (d *decoder) oneImport() Import {
	i := Import{Module: d.name(), Name: d.name(), Kind: Kind(d.byte())}
	switch i.Kind {
	case KindFunc:
		i.Type = d.index("type", len(d.m.Types))
		d.addFunc(i.Type)
	case KindTable:
		i.Table = d.table()
		d.addTable(i.Table)
	case KindMemory:
		i.Memory = d.memory()
		d.addMemory()
	case KindGlobal:
		i.Global = d.globalType()
		d.globals = append(d.globals, i.Global)
	case 4:
		d.failf("import of a tag: exceptions are not supported")
	default:
		d.failf("import of kind %d", i.Kind)
	}
	return i
}

func (d *decoder) addFunc(t uint32) {
	if d.funcs = append(d.funcs, t); len(d.funcs) > d.limits.Functions {
		d.over("functions", uint64(len(d.funcs)), d.limits.Functions)
	}
}

func (d *decoder) addTable(t Table) {
	d.tables = append(d.tables, t.Type)
	if len(d.tables) > d.limits.Tables {
		d.over("tables", uint64(len(d.tables)), d.limits.Tables)
	}
	if d.elements += uint64(t.Min); d.elements > uint64(d.limits.Elements) {
		d.over("initial elements of tables", d.elements, d.limits.Elements)
	}
}

func (d *decoder) addMemory() {
	if d.memories++; d.memories > 1 {
		d.failf("more than one memory is not supported")
	}
}

func (d *decoder) ownFunc() uint32 {
	t := d.index("type", len(d.m.Types))
	d.addFunc(t)
	return t
}

func (d *decoder) ownTable() Table {
	t := d.table()
	d.addTable(t)
	return t
}

func (d *decoder) ownMemory() Memory {
	m := d.memory()
	d.addMemory()
	return m
}

func (d *decoder) ownGlobal() Global {
	t := d.globalType()
	init := d.constant(d.m.ImportedGlobals()) // own globals cannot be read while they are made
	d.globals = append(d.globals, t)
	return Global{t, init}
}

func (d *decoder) exports() {
	names := map[string]bool{}
	d.m.Exports = list(d, "exports", 3, d.limits.Exports, func() Export {
		at := d.pos
		e := Export{Name: d.name(), Kind: Kind(d.byte())}
		if d.err == nil && names[e.Name] {
			d.pos = at
			d.failf("export %q twice", e.Name)
		}
		names[e.Name] = true
		switch e.Kind {
		case KindFunc:
			e.Index = d.index("function", len(d.funcs))
		case KindTable:
			e.Index = d.index("table", len(d.tables))
		case KindMemory:
			e.Index = d.index("memory", d.memories)
		case KindGlobal:
			e.Index = d.index("global", len(d.globals))
		default:
			d.failf("export of kind %d", e.Kind)
		}
		return e
	})
}

// constant reads a constant expression that may use the first globals.
func (d *decoder) constant(globals int) Const {
	start := d.pos
	s := Instrs{r: d.reader}
	var in Instr
	s.read(&in)
	d.pos, d.err = s.r.pos, s.r.err
	if d.err != nil {
		return Const{}
	}
	c := Const{Op: in.Op}
	switch in.Op {
	case GlobalGet:
		if c.Index = in.A; int(in.A) >= globals {
			d.failf("constant expression of global %d, which is not imported", in.A)
		}
	case RefFunc:
		if c.Index = in.A; uint64(in.A) >= uint64(len(d.funcs)) {
			d.failf("function %d does not exist", in.A)
		}
	case I32Const, I64Const, F32Const, F64Const, V128Const, RefNull:
		c.Raw = d.data[start:d.pos:d.pos]
	default:
		d.pos = start
		d.failf("instruction %#x in a constant expression", uint16(in.Op))
	}
	if end := d.byte(); d.err == nil && end != byte(End) {
		d.pos--
		d.failf("constant expression of several instructions is not supported")
	}
	return c
}

// element reads a segment of one of eight forms (section 5.5.12).
func (d *decoder) element() Element {
	e := Element{Form: d.u32(), Type: FuncRef}
	if d.err == nil && e.Form > 7 {
		d.failf("element segment of form %d", e.Form)
		return e
	}
	if e.Active() {
		if e.Form&2 != 0 {
			e.Table = d.u32()
		}
		if d.err == nil && int64(e.Table) >= int64(len(d.tables)) {
			d.failf("table %d does not exist", e.Table)
			return e
		}
		e.Offset = d.constant(len(d.globals))
	}
	if e.Form&3 != 0 {
		e.Type = d.elementType(e.Form&4 != 0)
	}
	limit := d.limits.Entries - d.entries
	if e.Form&4 != 0 {
		e.Exprs = list(d, "entries of element segments", 2, limit, func() Const { return d.constant(len(d.globals)) })
	} else {
		e.Funcs = list(d, "entries of element segments", 1, limit, func() uint32 { return d.index("function", len(d.funcs)) })
	}
	d.entries += len(e.Exprs) + len(e.Funcs)
	return e
}

func (d *decoder) elementType(exprs bool) ValType {
	if exprs {
		return d.refType()
	}
	if kind := d.byte(); d.err == nil && kind != 0 {
		d.failf("elements of kind %d", kind)
	}
	return FuncRef
}

func (d *decoder) oneData() Data {
	form := d.u32()
	if d.err == nil && form > 2 {
		d.failf("data segment of form %d", form)
	}
	var s Data
	s.Passive = form == 1
	if form == 2 {
		d.index("memory", d.memories)
	}
	if !s.Passive {
		if d.err == nil && d.memories == 0 {
			d.failf("data segment without a memory")
		}
		s.Offset = d.constant(len(d.globals))
	}
	s.Bytes = d.bytes(d.u32())
	return s
}
