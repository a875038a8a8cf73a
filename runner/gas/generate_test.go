package gas

import (
	"math/rand/v2"

	"arch.network/runner/wasm/binary"
)

// generator writes a random valid module that always ends: functions call only those after them, and loops count down
// a local of their own.
type generator struct {
	*rand.Rand
	m      *binary.Module
	floats bool

	f        int // the function being written
	code     []byte
	params   []binary.ValType
	counters int   // loop counters used, of those declared last
	labels   []int // for each open block: 1 if a branch to it carries an i32
	size     int
}

const (
	counterLocals = 8
	plainLocals   = 4 // after the parameters: i32, i64, f32, f64
	bodySize      = 60
)

// generate returns a module that exports its functions as "f0", "f1", …; and the memory as "memory".
func generate(r *rand.Rand, floats bool) []byte {
	g := &generator{Rand: r, floats: floats, m: &binary.Module{}}
	m := g.m
	m.Memories = []binary.Memory{{Min: 1, Max: 3, HasMax: true}}
	m.Exports = append(m.Exports, binary.Export{Name: "memory", Kind: binary.KindMemory})
	m.Tables = []binary.Table{{Type: binary.FuncRef, Min: 8, Max: 20, HasMax: true}}
	m.Globals = []binary.Global{
		{GlobalType: binary.GlobalType{Type: binary.I32, Mutable: true}, Init: i32Const(7)},
		{GlobalType: binary.GlobalType{Type: binary.I64, Mutable: true}, Init: binary.Const{Op: binary.I64Const, Raw: []byte{byte(binary.I64Const), 0x7e}}},
	}
	n := 1 + r.IntN(4)
	for i := range n {
		m.Types = append(m.Types, binary.FuncType{Params: g.types(r.IntN(3)), Results: g.types(1)})
		m.Funcs = append(m.Funcs, uint32(i))
		m.Exports = append(m.Exports, binary.Export{Name: "f" + string(rune('0'+i)), Kind: binary.KindFunc, Index: uint32(i)})
	}
	table := binary.Element{Type: binary.FuncRef, Offset: i32Const(0)}
	for i := range n {
		table.Funcs = append(table.Funcs, uint32(i))
	}
	m.Elements = []binary.Element{table}
	m.Types = append(m.Types, binary.FuncType{Params: []binary.ValType{binary.I32, binary.I32}, Results: []binary.ValType{binary.I32}})
	for i := range n {
		m.Codes = append(m.Codes, g.function(i))
	}
	return m.Encode()
}

func i32Const(v int64) binary.Const {
	return binary.Const{Op: binary.I32Const, Raw: binary.AppendI64([]byte{byte(binary.I32Const)}, v)}
}

func (g *generator) types(n int) []binary.ValType {
	out := make([]binary.ValType, n)
	for i := range out {
		out[i] = g.oneType()
	}
	return out
}

func (g *generator) oneType() binary.ValType {
	if g.floats {
		return []binary.ValType{binary.I32, binary.I64, binary.F32, binary.F64}[g.IntN(4)]
	}
	return []binary.ValType{binary.I32, binary.I64}[g.IntN(2)]
}

func (g *generator) function(i int) binary.Code {
	g.f, g.code, g.counters, g.labels, g.size = i, nil, 0, nil, 0
	g.params = g.m.Types[i].Params
	for range 1 + g.IntN(5) {
		g.statement(4)
	}
	g.expression(g.m.Types[i].Results[0], 4)
	g.op(binary.End)
	return binary.Code{Locals: []binary.Locals{
		{Count: 1, Type: binary.I32},
		{Count: 1, Type: binary.I64},
		{Count: 1, Type: binary.F32},
		{Count: 1, Type: binary.F64},
		{Count: counterLocals, Type: binary.I32},
	}, Body: g.code}
}

func (g *generator) op(ops ...binary.Op) {
	for _, op := range ops {
		if op >= 0x100 {
			g.code = append(g.code, byte(op>>8))
		}
		g.code = append(g.code, byte(op))
		g.size++
	}
}

func (g *generator) index(op binary.Op, i int) {
	g.op(op)
	g.code = binary.AppendU32(g.code, uint32(i))
}

func (g *generator) constant(v int64) {
	g.op(binary.I32Const)
	g.code = binary.AppendI64(g.code, v)
}

// local returns the number of a local of type t that is no loop counter.
func (g *generator) local(t binary.ValType) int {
	for i, p := range g.params {
		if p == t && g.IntN(2) == 0 {
			return i
		}
	}
	return len(g.params) + map[binary.ValType]int{binary.I32: 0, binary.I64: 1, binary.F32: 2, binary.F64: 3}[t]
}

func (g *generator) block(op binary.Op, result binary.ValType, carries int) {
	g.op(op)
	if result == 0 {
		result = blockEmpty
	}
	g.code = append(g.code, byte(result))
	g.labels = append(g.labels, carries)
}

func (g *generator) end() {
	g.op(binary.End)
	g.labels = g.labels[:len(g.labels)-1]
}

// statement writes code of type [] -> [].
func (g *generator) statement(depth int) {
	if depth == 0 || g.size > bodySize*10 {
		g.op(binary.Nop)
		return
	}
	some := func() {
		for range g.IntN(4) {
			g.statement(depth - 1)
		}
	}
	switch g.IntN(15) {
	case 0:
		g.block(binary.Block, 0, 0)
		some()
		g.end()
	case 1, 2:
		g.loop(some)
	case 3:
		g.expression(binary.I32, depth-1)
		g.block(binary.If, 0, 0)
		some()
		if g.IntN(2) == 0 {
			g.op(binary.Else)
			some()
		}
		g.end()
	case 4, 10, 11, 12:
		g.branch(depth)
	case 5:
		g.expression(binary.I32, depth-1)
		g.index(binary.GlobalSet, 0)
	case 6:
		g.expression(binary.I64, depth-1)
		g.index(binary.GlobalSet, 1)
	case 7:
		g.address(depth)
		t := g.oneType()
		g.expression(t, depth-1)
		g.op(map[binary.ValType]binary.Op{binary.I32: 0x36, binary.I64: 0x37, binary.F32: 0x38, binary.F64: 0x39}[t])
		g.code = append(g.code, 0, byte(g.IntN(100)))
	case 8:
		g.bulk(depth)
	case 9:
		g.expression(g.oneType(), depth-1)
		g.op(binary.Drop)
	default:
		t := g.oneType()
		g.expression(t, depth-1)
		g.index(binary.LocalSet, g.local(t))
	}
}

func (g *generator) bulk(depth int) {
	switch g.IntN(4) {
	case 0:
		g.constant(int64(g.IntN(3)))
		g.index(binary.MemoryGrow, 0)
		g.op(binary.Drop)
	case 1:
		g.address(depth)
		g.expression(binary.I32, depth-1)
		g.constant(int64(g.IntN(100)))
		g.op(binary.MemoryFill)
		g.code = append(g.code, 0)
	case 2:
		g.address(depth)
		g.address(depth)
		g.constant(int64(g.IntN(100)))
		g.op(binary.MemoryCopy)
		g.code = append(g.code, 0, 0)
	case 3:
		g.op(binary.RefNull)
		g.code = append(g.code, byte(binary.FuncRef))
		g.constant(int64(g.IntN(5)))
		g.index(binary.TableGrow, 0)
		g.op(binary.Drop)
	}
}

// address writes an i32 within the first page.
func (g *generator) address(depth int) {
	g.expression(binary.I32, depth-1)
	g.constant(0x7fff)
	g.op(0x71) // and
}

// loop writes a loop that is repeated at most three times.
func (g *generator) loop(some func()) {
	if g.counters == counterLocals {
		return
	}
	counter := len(g.params) + plainLocals + g.counters
	g.counters++
	g.constant(int64(1 + g.IntN(3)))
	g.index(binary.LocalSet, counter)
	g.block(binary.Block, 0, 0)
	g.block(binary.Loop, 0, -1) // nothing inside branches to it but what follows
	some()
	g.index(binary.LocalGet, counter)
	g.constant(1)
	g.op(0x6b)
	g.index(binary.LocalTee, counter)
	g.index(binary.BrIf, 0)
	g.end()
	g.end()
}

// branch leaves blocks, or not.
func (g *generator) branch(depth int) {
	var targets []int
	for i, carries := range g.labels {
		if carries == 0 {
			targets = append(targets, len(g.labels)-1-i)
		}
	}
	if len(targets) == 0 {
		return
	}
	target := func() int { return targets[g.IntN(len(targets))] }
	g.block(binary.Block, 0, -1)
	switch g.IntN(5) {
	case 0:
		g.index(binary.Br, 1+target())
	case 1:
		g.expression(binary.I32, depth-1)
		g.op(binary.BrTable)
		g.code = append(g.code, 2, byte(1+target()), byte(1+target()), byte(1+target()))
	case 2:
		g.expression(g.m.Types[g.f].Results[0], depth-1)
		g.op(binary.Return)
		g.statement(1) // dead
	default:
		g.expression(binary.I32, depth-1)
		g.index(binary.BrIf, 1+target())
	}
	g.end()
}

// expression writes code of type [] -> [t].
func (g *generator) expression(t binary.ValType, depth int) {
	if depth <= 0 || g.size > bodySize*10 {
		g.leaf(t)
		return
	}
	switch n := g.IntN(10); {
	case n == 0:
		g.block(binary.Block, t, -1)
		g.statement(depth - 1)
		g.expression(t, depth-1)
		g.end()
	case n == 1:
		g.expression(binary.I32, depth-1)
		g.block(binary.If, t, -1)
		g.expression(t, depth-1)
		g.op(binary.Else)
		g.expression(t, depth-1)
		g.end()
	case n == 2 && g.call(t, depth):
	case n == 3:
		g.expression(t, depth-1)
		g.expression(t, depth-1)
		g.expression(binary.I32, depth-1)
		g.op(binary.Select)
	case n == 4:
		g.expression(t, depth-1)
		g.index(binary.LocalTee, g.local(t))
	case n == 5:
		g.address(depth)
		g.op(map[binary.ValType]binary.Op{binary.I32: 0x28, binary.I64: 0x29, binary.F32: 0x2a, binary.F64: 0x2b}[t])
		g.code = append(g.code, 0, byte(g.IntN(100)))
	case n == 6:
		g.convert(t, depth)
	default:
		g.arithmetic(t, depth)
	}
}

func (g *generator) leaf(t binary.ValType) {
	switch g.IntN(3) {
	case 0:
		g.index(binary.LocalGet, g.local(t))
		return
	case 1:
		if t == binary.I32 {
			g.index(binary.GlobalGet, 0)
			return
		}
	}
	switch t {
	case binary.I32:
		g.constant(int64(int32(g.Uint32() >> g.IntN(32))))
	case binary.I64:
		g.op(binary.I64Const)
		g.code = binary.AppendI64(g.code, int64(g.Uint64()>>g.IntN(64)))
	case binary.F32:
		g.op(binary.F32Const)
		g.code = append(g.code, byte(g.Uint32()), byte(g.Uint32()), byte(g.Uint32()), byte(g.Uint32()))
	case binary.F64:
		g.op(binary.F64Const)
		g.code = append(g.code, 0, 0, 0, 0, 0, 0, byte(g.Uint32()), byte(g.Uint32()))
	}
}

// call calls a later function that gives t, if there is one.
func (g *generator) call(t binary.ValType, depth int) bool {
	for i := g.f + 1; i < len(g.m.Funcs); i++ {
		if f := g.m.Types[i]; f.Results[0] == t {
			for _, p := range f.Params {
				g.expression(p, depth-2)
			}
			if g.IntN(2) == 0 {
				g.index(binary.Call, i)
				return true
			}
			g.constant(int64(i))
			g.index(binary.CallIndirect, i)
			g.code = append(g.code, 0)
			return true
		}
	}
	return false
}

func (g *generator) convert(t binary.ValType, depth int) {
	if t == binary.I32 && g.IntN(2) == 0 {
		g.expression(binary.I64, depth-1)
		g.op(0xa7) // wrap
		return
	}
	from := g.oneType()
	if from == t {
		from = map[binary.ValType]binary.ValType{binary.I32: binary.I64, binary.I64: binary.I32, binary.F32: binary.I32, binary.F64: binary.I64}[t]
	}
	g.expression(from, depth-1)
	g.op(map[[2]binary.ValType]binary.Op{
		{binary.I32, binary.I64}: 0xac, {binary.I64, binary.I32}: 0xa7,
		{binary.I32, binary.F32}: 0xb2, {binary.I64, binary.F32}: 0xb4, {binary.F64, binary.F32}: 0xb6,
		{binary.I32, binary.F64}: 0xb7, {binary.I64, binary.F64}: 0xb9, {binary.F32, binary.F64}: 0xbb,
		{binary.F32, binary.I32}: 0xbc, {binary.F64, binary.I64}: 0xbd, {binary.F64, binary.I32}: 0xfc02, {binary.F32, binary.I64}: 0xfc04,
	}[[2]binary.ValType{from, t}])
}

func (g *generator) arithmetic(t binary.ValType, depth int) {
	first := map[binary.ValType][2]binary.Op{
		binary.I32: {0x67, 0x6a}, binary.I64: {0x79, 0x7c}, binary.F32: {0x8b, 0x92}, binary.F64: {0x99, 0xa0},
	}[t]
	count := map[binary.ValType][2]int{binary.I32: {3, 15}, binary.I64: {3, 15}, binary.F32: {7, 7}, binary.F64: {7, 7}}[t]
	switch g.IntN(4) {
	case 0:
		g.expression(t, depth-1)
		g.op(first[0] + binary.Op(g.IntN(count[0])))
	case 1:
		if t == binary.I32 { // a comparison
			of := g.oneType()
			g.expression(of, depth-1)
			g.expression(of, depth-1)
			g.op(map[binary.ValType]binary.Op{binary.I32: 0x46, binary.I64: 0x51, binary.F32: 0x5b, binary.F64: 0x61}[of] + binary.Op(g.IntN(6)))
			return
		}
		fallthrough
	default:
		g.expression(t, depth-1)
		g.expression(t, depth-1)
		g.op(first[1] + binary.Op(g.IntN(count[1])))
	}
}
