package binary

// code returns a function that reads one function's code after the other, and checks it.
func (d *decoder) code() func() Code {
	var b body
	next := len(d.funcs) - len(d.m.Funcs)
	return func() Code {
		if next >= len(d.funcs) {
			d.failf("more codes than functions")
			return Code{}
		}
		c := d.oneCode(&b, d.m.Types[d.funcs[next]])
		next++
		return c
	}
}

func (d *decoder) oneCode(b *body, t FuncType) Code {
	at := d.pos
	size := d.u32()
	if d.err == nil && uint64(size) > uint64(d.left()) {
		d.failf("%d bytes announced, %d left", size, d.left())
	}
	if d.err == nil && uint64(size) > uint64(d.limits.Body) {
		d.pos = at
		d.over("bytes of one function", uint64(size), d.limits.Body)
	}
	if d.err != nil {
		return Code{}
	}
	whole, end := d.data, d.pos+int(size)
	d.data = whole[:end]
	locals, n := d.localRuns()
	c := Code{Locals: locals, Offset: d.pos}
	if d.err == nil {
		b.check(d, t, len(t.Params)+n)
		c.Body = d.data[c.Offset:end:end]
	}
	if d.err == nil && d.pos != end {
		d.failf("%d bytes after the end of a function", end-d.pos)
	}
	d.data = whole
	return c
}

// localRuns reads the declarations of local variables, and returns how many there are.
func (d *decoder) localRuns() ([]Locals, int) {
	sum := uint64(0)
	runs := list(d, "runs of locals", 2, d.limits.Locals, func() Locals {
		at := d.pos
		run := Locals{d.u32(), 0}
		if sum += uint64(run.Count); d.err == nil && sum > uint64(d.limits.Locals) {
			d.pos = at
			d.over("locals of one function", sum, d.limits.Locals)
		}
		run.Type = d.valType()
		return run
	})
	if d.err != nil {
		return nil, 0
	}
	if d.locals += int(sum); d.locals > d.limits.AllLocals {
		d.over("locals of all functions", uint64(d.locals), d.limits.AllLocals)
	}
	return runs, int(sum)
}

// body checks the structure of one function: nesting, and that everything it names exists.
type body struct {
	frames  []frame
	control int // instructions that begin a block or branch
}

type frame struct {
	op      Op
	carries int // values that a branch to it carries
	results int
}

func (b *body) check(d *decoder, t FuncType, locals int) {
	s := Instrs{r: d.reader}
	b.control = 0
	b.frames = append(b.frames[:0], frame{Block, len(t.Results), len(t.Results)})
	var in Instr
	for len(b.frames) > 0 && s.r.err == nil {
		s.read(&in)
		if s.r.err == nil {
			b.instr(d, &s.r, &in, locals)
		}
	}
	if d.squares += b.control * b.control; s.r.err == nil && d.squares > d.limits.ControlSquares {
		s.r.over("blocks and branches, squared and summed over the functions", uint64(d.squares), d.limits.ControlSquares)
	}
	d.pos, d.err = s.r.pos, s.r.err
}

// branching counts an instruction that begins a block or branches.
func (b *body) branching(d *decoder, r *reader, in *Instr) {
	if b.control++; b.control > d.limits.Control {
		r.pos = in.Start
		r.over("blocks and branches of one function", uint64(b.control), d.limits.Control)
	}
}

func (b *body) instr(d *decoder, r *reader, in *Instr, locals int) {
	exists := func(what string, i uint32, n int) bool {
		if uint64(i) >= uint64(n) {
			r.pos = in.Start
			r.failf("%s %d does not exist", what, i)
			return false
		}
		return true
	}
	switch op := in.Op; op {
	case LocalGet, LocalSet, LocalTee:
		if uint64(in.A) >= uint64(locals) {
			exists("local", in.A, locals)
		}
	case Block, Loop, If:
		b.branching(d, r, in)
		b.enter(d, r, in)
	case Else:
		b.branching(d, r, in)
		b.otherwise(r, in)
	case End:
		b.frames = b.frames[:len(b.frames)-1]
	case Br, BrIf:
		b.branching(d, r, in)
		if exists("label", in.A, len(b.frames)) {
			d.move(r, b.frames[len(b.frames)-1-int(in.A)].carries)
		}
	case BrTable:
		b.branching(d, r, in)
		b.branches(d, r, in)
	case Return:
		d.move(r, b.frames[0].results)
	case Call:
		if exists("function", in.A, len(d.funcs)) {
			d.call(r, d.m.Types[d.funcs[in.A]])
		}
	case CallIndirect:
		if exists("type", in.A, len(d.m.Types)) && exists("table", in.B, len(d.tables)) {
			d.call(r, d.m.Types[in.A])
		}
	case GlobalGet, GlobalSet:
		if exists("global", in.A, len(d.globals)) && op == GlobalSet && !d.globals[in.A].Mutable {
			r.pos = in.Start
			r.failf("global %d cannot be changed", in.A)
		}
	case RefFunc:
		exists("function", in.A, len(d.funcs))
	case TableGet, TableSet, TableGrow, TableSize, TableFill:
		exists("table", in.A, len(d.tables))
	case TableCopy:
		_ = exists("table", in.A, len(d.tables)) && exists("table", in.B, len(d.tables))
	case TableInit:
		_ = exists("element segment", in.A, len(d.m.Elements)) && exists("table", in.B, len(d.tables))
	case ElemDrop:
		exists("element segment", in.A, len(d.m.Elements))
	case MemoryInit, DataDrop:
		n := 0
		if d.m.DataCount != nil {
			n = int(*d.m.DataCount)
		}
		exists("data segment", in.A, n)
		if op == MemoryInit {
			exists("memory", 0, d.memories)
		}
	case MemorySize, MemoryGrow, MemoryCopy, MemoryFill:
		exists("memory", 0, d.memories)
	default:
		if d.memories == 0 && usesMemory(op) {
			exists("memory", 0, 0)
		}
	}
}

// usesMemory reports whether op loads or stores.
func usesMemory(op Op) bool {
	return op >= I32Load && op <= I64Store32 || op >= V128Load && op <= V128Load+0x0b || op >= V128Load+0x54 && op <= V128Load+0x5d
}

func (b *body) enter(d *decoder, r *reader, in *Instr) {
	f := frame{op: in.Op}
	params := 0
	if in.Block.Result != 0 {
		f.results = 1
	}
	if i := in.Block.Type; i >= len(d.m.Types) {
		r.pos = in.Start
		r.failf("type %d does not exist", i)
		return
	} else if i >= 0 {
		t := &d.m.Types[i]
		params, f.results = len(t.Params), len(t.Results)
	}
	if n := max(params, f.results); n > d.limits.BlockArity {
		r.pos = in.Start
		r.over("parameters or results of one block", uint64(n), d.limits.BlockArity)
		return
	}
	if f.carries = f.results; in.Op == Loop {
		f.carries = params
	}
	d.move(r, params+f.results)
	if b.frames = append(b.frames, f); len(b.frames) > d.limits.Nesting {
		r.pos = in.Start
		r.over("nested blocks", uint64(len(b.frames)), d.limits.Nesting)
	}
}

func (b *body) otherwise(r *reader, in *Instr) {
	f := &b.frames[len(b.frames)-1]
	if f.op != If {
		r.pos = in.Start
		r.failf("else without an if")
		return
	}
	f.op = Else
}

func (b *body) branches(d *decoder, r *reader, in *Instr) {
	if d.targets += len(in.Targets); d.targets > d.limits.AllTargets {
		r.pos = in.Start
		r.over("targets of all br_tables", uint64(d.targets), d.limits.AllTargets)
		return
	}
	for _, t := range in.Targets {
		if uint64(t) >= uint64(len(b.frames)) {
			r.pos = in.Start
			r.failf("label %d does not exist", t)
			return
		}
		d.move(r, b.frames[len(b.frames)-1-int(t)].carries)
	}
}

func (d *decoder) call(r *reader, t FuncType) { d.move(r, len(t.Params)+len(t.Results)) }

func (d *decoder) move(r *reader, n int) {
	if d.moves += n; d.moves > d.limits.Moves {
		r.over("values that blocks, branches and calls carry", uint64(d.moves), d.limits.Moves)
	}
}
