package gas

import (
	"arch.network/runner/wasm/binary"
)

// rewriter rewrites one function after the other. Each is read once, which gives edits, and copied once with them.
type rewriter struct {
	m       *binary.Module
	o       Options
	imports int // functions that are imported

	counter []byte // global.get of the counter
	set     []byte // global.set of it
	check   []byte // what compares it with zero, and acts

	// Of the function being read.
	typ    *binary.FuncType
	locals uint32 // first free number of a local
	extra  []binary.ValType
	edits  []edit
	frames []frame
	region int // the edit that holds the current region's cost, or dead
	nans   stack
}

// dead is the region of code that nothing reaches.
const dead = -1

// editKind says what an edit does at its position.
type editKind uint8

const (
	charge    editKind = iota // subtract cost
	checked                   // subtract cost, and check
	sized                     // charge for the i32 on the stack, and check
	grown                     // charge for what the grow before did, and check
	renumber                  // the function index of an instruction
	canonical                 // make the value on the stack a canonical NaN if it is a NaN
)

// edit is small: a function may need one for every second byte.
type edit struct {
	cost  int64
	at    uint32 // position in the original body
	end   uint32 // of renumber: where the original instruction ends
	index uint32 // of renumber: the new index; of grown: the table
	op    binary.Op
	kind  editKind
	need  bool           // of canonical: false if nobody can tell
	shift int8           // of sized and grown: the cost is the size shifted to the left
	typ   binary.ValType // of canonical
	lanes binary.ValType // of canonical, for a vector
}

// frame is a block that is being read.
type frame struct {
	op       binary.Op
	region   int  // in which the block was entered
	targeted bool // a branch to its end exists
	skipped  bool // of an if: the end is reached past the then part
	lowest   int  // the outermost frame that something inside of it branches to
	carries  int
}

func newRewriter(m *binary.Module, o Options) *rewriter {
	r := &rewriter{m: m, o: o, imports: m.ImportedFuncs()}
	global := uint32(m.ImportedGlobals() + len(m.Globals))
	r.counter = binary.AppendU32([]byte{byte(binary.GlobalGet)}, global)
	r.set = binary.AppendU32([]byte{byte(binary.GlobalSet)}, global)
	act := []byte{byte(binary.Unreachable)}
	if o.Hook {
		act = binary.AppendU32([]byte{byte(binary.Call)}, uint32(r.imports))
	}
	r.check = append(r.check, r.counter...)
	r.check = append(r.check, byte(binary.I64Const), 0, opI64LtS, byte(binary.If), blockEmpty)
	r.check = append(r.check, act...)
	r.check = append(r.check, byte(binary.End))
	return r
}

// Codes that are written here.
const (
	blockEmpty      = 0x40
	opI32Ne         = 0x47
	opI64LtS        = 0x53
	opF32Ne         = 0x5c
	opF64Ne         = 0x62
	opI32Sub        = 0x6b
	opI64Sub        = 0x7d
	opI64Shl        = 0x86
	opI64ShrU       = 0x88
	opI64ExtendI32U = 0xad
)

// function rewrites the code of the i-th own function.
func (r *rewriter) function(i int) {
	c := &r.m.Codes[i]
	r.typ = &r.m.Types[r.m.Funcs[i]]
	r.extra, r.edits, r.frames = r.extra[:0], r.edits[:0], r.frames[:0]
	r.nans.reset()
	declared := uint32(0)
	for _, l := range c.Locals {
		declared += l.Count
	}
	r.locals = uint32(len(r.typ.Params)) + declared
	r.start(0, checked)
	r.cost(int64(declared / localsPerUnit))
	r.frames = append(r.frames, frame{op: binary.Block, region: r.region, carries: len(r.typ.Results)})
	var in binary.Instr
	for s := binary.ReadInstrs(c.Body); s.Next(&in); {
		r.instr(&in)
	}
	c.Body = r.apply(c.Body)
	for _, t := range r.extra {
		c.Locals = append(c.Locals[:len(c.Locals):len(c.Locals)], binary.Locals{Count: 1, Type: t})
	}
}

// start begins a region at a position.
func (r *rewriter) start(at int, kind editKind) {
	r.region = len(r.edits)
	r.edits = append(r.edits, edit{at: uint32(at), kind: kind})
}

func (r *rewriter) cost(n int64) {
	if r.region != dead {
		r.edits[r.region].cost += n
	}
}

func (r *rewriter) instr(in *binary.Instr) {
	if r.o.Hook && (in.Op == binary.Call || in.Op == binary.RefFunc) && int(in.A) >= r.imports {
		r.edits = append(r.edits, edit{at: uint32(in.Start), kind: renumber, op: in.Op, index: in.A + 1, end: uint32(in.End)})
	}
	if r.region != dead {
		r.cost(flatCost(in.Op))
		r.size(in)
		if r.o.CanonicalNaN {
			r.nan(in)
		}
	}
	r.flow(in)
}

// flow follows the control flow: where regions begin and end.
func (r *rewriter) flow(in *binary.Instr) {
	switch in.Op {
	case binary.Block, binary.Loop, binary.If:
		r.enter(in)
	case binary.Else:
		f := &r.frames[len(r.frames)-1]
		f.targeted = f.targeted || r.region != dead
		f.skipped = false
		r.resume(f, in.End)
	case binary.End:
		r.leave(in.End)
	case binary.Br:
		r.branch(int(in.A))
		r.region = dead
	case binary.BrIf:
		r.branch(int(in.A))
		if r.region != dead {
			r.start(in.End, charge)
		}
	case binary.BrTable:
		r.branches(in.Targets)
		r.region = dead
	case binary.Return:
		r.branch(len(r.frames) - 1)
		r.region = dead
	case binary.Unreachable:
		r.region = dead
	}
}

func (r *rewriter) enter(in *binary.Instr) {
	f := frame{op: in.Op, region: r.region, skipped: in.Op == binary.If, lowest: len(r.frames)}
	params, results := 0, 0
	if in.Block.Result != 0 {
		results = 1
	} else if in.Block.Type >= 0 {
		t := &r.m.Types[in.Block.Type]
		params, results = len(t.Params), len(t.Results)
	}
	if f.carries = results; in.Op == binary.Loop {
		f.carries = params
	}
	r.frames = append(r.frames, f)
	switch {
	case r.region == dead || in.Op == binary.Block:
	case in.Op == binary.Loop:
		r.start(in.End, checked)
	default:
		r.start(in.End, charge)
	}
}

// resume begins a region for code that is reached when the block of f is.
func (r *rewriter) resume(f *frame, at int) {
	if f.region == dead {
		r.region = dead
		return
	}
	r.start(at, charge)
}

// leave ends the innermost block. What follows belongs to the region in which the block was entered, if everything
// inside of it leads to its end.
func (r *rewriter) leave(at int) {
	i := len(r.frames) - 1
	f := r.frames[i]
	r.frames = r.frames[:i]
	if i == 0 {
		return
	}
	r.frames[i-1].lowest = min(r.frames[i-1].lowest, f.lowest)
	switch reached := r.region != dead || f.targeted || f.skipped; {
	case f.region == dead || !reached:
		r.region = dead
	case f.lowest >= i:
		r.region = f.region
	default:
		r.start(at, charge)
	}
}

func (r *rewriter) branch(depth int) {
	if r.region == dead {
		return
	}
	i := len(r.frames) - 1 - depth
	f := &r.frames[i]
	if f.op != binary.Loop {
		f.targeted = true
	}
	inner := &r.frames[len(r.frames)-1]
	inner.lowest = min(inner.lowest, i)
	r.cost(int64(f.carries / carriedPerUnit))
}

func (r *rewriter) branches(targets []uint32) {
	if r.region == dead {
		return
	}
	most := 0
	for _, t := range targets {
		before := r.edits[r.region].cost
		r.branch(int(t))
		r.edits[r.region].cost = before
		most = max(most, r.frames[len(r.frames)-1-int(t)].carries)
	}
	r.cost(int64(most / carriedPerUnit))
}

// size notes the charge of an operation that costs by size.
func (r *rewriter) size(in *binary.Instr) {
	switch in.Op {
	case binary.MemoryCopy, binary.MemoryFill, binary.MemoryInit:
		r.edits = append(r.edits, edit{at: uint32(in.Start), kind: sized, shift: -byteShift})
	case binary.TableCopy, binary.TableFill, binary.TableInit:
		r.edits = append(r.edits, edit{at: uint32(in.Start), kind: sized})
	case binary.MemoryGrow:
		r.edits = append(r.edits, edit{at: uint32(in.End), kind: grown, op: binary.MemorySize, shift: pageShift})
	case binary.TableGrow:
		r.edits = append(r.edits, edit{at: uint32(in.End), kind: grown, op: binary.TableSize, index: in.A})
	}
}
