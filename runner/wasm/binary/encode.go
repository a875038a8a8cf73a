package binary

import "slices"

// Encode returns the module in the binary format, numbers in their shortest form except inside of bodies and of initial values,
// which stay as they were. Decoding it again gives an equal Module, but for Code.Offset.
func (m *Module) Encode() []byte {
	size := 1 << 12
	for i := range m.Codes {
		size += len(m.Codes[i].Body) + 16
	}
	for i := range m.Data {
		size += len(m.Data[i].Bytes) + 16
	}
	e := &encoder{m: m, out: make([]byte, 0, size)}
	e.out = append(e.out, preamble...)
	e.customs(0)
	for _, id := range []byte{idType, idImport, idFunction, idTable, idMemory, idGlobal, idExport, idStart, idElement, idDataCount, idCode, idData} {
		e.section(id)
		e.customs(id)
	}
	return e.out
}

type encoder struct {
	m       *Module
	out     []byte
	scratch []byte
}

// AppendU32 appends v as an unsigned LEB128 number.
func AppendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// AppendI64 appends v as a signed LEB128 number.
func AppendI64(b []byte, v int64) []byte {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

func (e *encoder) u32(v uint32)  { e.out = AppendU32(e.out, v) }
func (e *encoder) byte(b byte)   { e.out = append(e.out, b) }
func (e *encoder) name(s string) { e.u32(uint32(len(s))); e.out = append(e.out, s...) }

func (e *encoder) bytes(b []byte) {
	e.u32(uint32(len(b)))
	e.out = append(e.out, b...)
}

// sized writes what content writes, after its length.
func (e *encoder) sized(content func()) {
	start := len(e.out)
	content()
	n := len(e.out) - start
	e.scratch = AppendU32(e.scratch[:0], uint32(n))
	e.out = slices.Insert(e.out, start, e.scratch...)
}

func (e *encoder) customs(after byte) {
	for i := range e.m.Customs {
		if c := &e.m.Customs[i]; c.After == after {
			e.byte(idCustom)
			e.sized(func() {
				e.name(c.Name)
				e.out = append(e.out, c.Data...)
			})
		}
	}
}

func (e *encoder) section(id byte) {
	m := e.m
	switch id {
	case idType:
		items(e, id, m.Types, e.funcType)
	case idImport:
		items(e, id, m.Imports, e.oneImport)
	case idFunction:
		items(e, id, m.Funcs, func(t *uint32) { e.u32(*t) })
	case idTable:
		items(e, id, m.Tables, e.table)
	case idMemory:
		items(e, id, m.Memories, e.memory)
	case idGlobal:
		items(e, id, m.Globals, func(g *Global) { e.globalType(g.GlobalType); e.constant(&g.Init) })
	case idExport:
		items(e, id, m.Exports, func(x *Export) { e.name(x.Name); e.byte(byte(x.Kind)); e.u32(x.Index) })
	case idStart:
		e.optional(id, m.Start)
	case idElement:
		items(e, id, m.Elements, e.element)
	case idDataCount:
		e.optional(id, m.DataCount)
	case idCode:
		items(e, id, m.Codes, e.code)
	case idData:
		items(e, id, m.Data, e.data)
	}
}

func items[T any](e *encoder, id byte, list []T, item func(*T)) {
	if len(list) == 0 {
		return
	}
	e.byte(id)
	e.sized(func() {
		e.u32(uint32(len(list)))
		for i := range list {
			item(&list[i])
		}
	})
}

func (e *encoder) optional(id byte, v *uint32) {
	if v != nil {
		e.byte(id)
		e.sized(func() { e.u32(*v) })
	}
}

func (e *encoder) valTypes(list []ValType) {
	e.u32(uint32(len(list)))
	for _, t := range list {
		e.byte(byte(t))
	}
}

func (e *encoder) funcType(t *FuncType) {
	e.byte(0x60)
	e.valTypes(t.Params)
	e.valTypes(t.Results)
}

func (e *encoder) oneImport(i *Import) {
	e.name(i.Module)
	e.name(i.Name)
	e.byte(byte(i.Kind))
	switch i.Kind {
	case KindFunc:
		e.u32(i.Type)
	case KindTable:
		e.table(&i.Table)
	case KindMemory:
		e.memory(&i.Memory)
	case KindGlobal:
		e.globalType(i.Global)
	}
}

func (e *encoder) bounds(lo, hi uint32, has bool) {
	if !has {
		e.byte(0)
		e.u32(lo)
		return
	}
	e.byte(1)
	e.u32(lo)
	e.u32(hi)
}

func (e *encoder) table(t *Table) {
	e.byte(byte(t.Type))
	e.bounds(t.Min, t.Max, t.HasMax)
}

func (e *encoder) memory(m *Memory) { e.bounds(m.Min, m.Max, m.HasMax) }

func (e *encoder) globalType(t GlobalType) {
	e.byte(byte(t.Type))
	if t.Mutable {
		e.byte(1)
	} else {
		e.byte(0)
	}
}

func (e *encoder) constant(c *Const) {
	switch c.Op {
	case GlobalGet, RefFunc:
		e.byte(byte(c.Op))
		e.u32(c.Index)
	default:
		e.out = append(e.out, c.Raw...)
	}
	e.byte(byte(End))
}

func (e *encoder) element(s *Element) {
	e.u32(s.Form)
	if s.Active() {
		if s.Form&2 != 0 {
			e.u32(s.Table)
		}
		e.constant(&s.Offset)
	}
	exprs := s.Form&4 != 0
	if s.Form&3 != 0 {
		if exprs {
			e.byte(byte(s.Type))
		} else {
			e.byte(0)
		}
	}
	e.u32(uint32(len(s.Funcs) + len(s.Exprs)))
	for _, f := range s.Funcs {
		e.u32(f)
	}
	for i := range s.Exprs {
		e.constant(&s.Exprs[i])
	}
}

func (e *encoder) code(c *Code) {
	n := len(AppendU32(e.scratch[:0], uint32(len(c.Locals)))) + len(c.Body)
	for _, l := range c.Locals {
		n += len(AppendU32(e.scratch[:0], l.Count)) + 1
	}
	e.u32(uint32(n))
	e.u32(uint32(len(c.Locals)))
	for _, l := range c.Locals {
		e.u32(l.Count)
		e.byte(byte(l.Type))
	}
	e.out = append(e.out, c.Body...)
}

func (e *encoder) data(s *Data) {
	if s.Passive {
		e.byte(1)
	} else {
		e.byte(0)
		e.constant(&s.Offset)
	}
	e.bytes(s.Bytes)
}
