package binary

// BlockType says what a block takes and gives: Type is an index of the module's types, unless it is negative; then there are no
// parameters, and one result of type Result, or none if that is zero.
type BlockType struct {
	Type   int
	Result ValType
}

// Instr is one instruction of a body.
type Instr struct {
	Op         Op
	Start, End int    // its bytes in the body
	A, B       uint32 // indexes, in the order of the encoding: label depth, function, type and table, …
	Block      BlockType
	Targets    []uint32 // of a br_table, the default last; valid until the next instruction is read
}

// Instrs reads the instructions of a body that Decode has accepted.
type Instrs struct {
	r       reader
	targets []uint32
}

// ReadInstrs returns a reader of body, which must be one of a decoded module.
func ReadInstrs(body []byte) *Instrs {
	return &Instrs{r: reader{data: body, section: "code", limits: new(Limits)}}
}

// Next reads one instruction into in. It reports false at the end.
func (s *Instrs) Next(in *Instr) bool {
	if s.r.left() == 0 || s.r.err != nil {
		return false
	}
	s.read(in)
	return s.r.err == nil
}

func (s *Instrs) read(in *Instr) {
	r := &s.r
	in.Start = r.pos
	op := r.byte()
	in.Op = Op(op)
	kind := plainImmediates[op]
	if kind != none {
		if kind == bad {
			kind = s.prefixed(in, op)
		}
		s.immediates(in, kind)
	}
	in.End = r.pos
}

func (s *Instrs) prefixed(in *Instr, op byte) immediate {
	r := &s.r
	if name := refused(op); name != "" {
		r.pos = in.Start
		r.failf("instruction %#x: %s not supported", op, name)
		return none
	}
	if op != 0xfc && op != 0xfd {
		r.pos = in.Start
		r.failf("instruction %#x does not exist", op)
		return none
	}
	n := r.u32()
	kind := bad
	switch {
	case op == 0xfc && n < uint32(len(bulkImmediates)):
		kind = bulkImmediates[n]
	case op == 0xfd && n < uint32(len(vectorImmediates)):
		kind = vectorImmediates[n]
	case op == 0xfd && n < 0x200:
		r.pos = in.Start
		r.failf("instruction 0xfd %#x: relaxed vector instructions are not supported", n)
	}
	if r.err == nil && kind == bad {
		r.pos = in.Start
		r.failf("instruction %#x %#x does not exist", op, n)
	}
	in.Op = Op(op)<<8 | Op(n&0xff)
	if r.err != nil {
		return none
	}
	return kind
}

func (s *Instrs) immediates(in *Instr, kind immediate) {
	r := &s.r
	switch kind {
	case none:
	case blockType:
		in.Block = s.blockType()
	case label, function, local, global, table, data, elem:
		in.A = r.u32()
	case labels:
		s.labels(in)
	case signature, elemTable, tableTwice:
		in.A, in.B = r.u32(), r.u32()
	case memArg:
		s.memArg()
	case memArgLane:
		s.memArg()
		r.byte()
	case memoryZero:
		s.zero()
	case memoryTwice:
		s.zero()
		s.zero()
	case dataMemory:
		in.A = r.u32()
		s.zero()
	case i32:
		in.A = uint32(r.signed(32))
	case i64:
		r.signed(64)
	case bytes4:
		r.bytes(4)
	case bytes8:
		r.bytes(8)
	case bytes16:
		r.bytes(16)
	case shuffle:
		for _, l := range r.bytes(16) {
			if l >= 32 {
				r.failf("lane %d of a shuffle", l)
			}
		}
	case lane:
		r.byte()
	case heapType:
		r.refType()
	case valTypes:
		if n := r.count("types of a select", 1, 1); r.err == nil && n != 1 {
			r.failf("select of %d types", n)
		}
		r.valType()
	}
}

func (s *Instrs) zero() {
	if b := s.r.byte(); s.r.err == nil && b != 0 {
		s.r.pos--
		s.r.failf("memory %d: more than one memory is not supported", b)
	}
}

func (s *Instrs) memArg() {
	align := s.r.u32()
	if s.r.err == nil && align >= 32 {
		s.r.failf("alignment of 2 to the power of %d, or several memories, which are not supported", align)
	}
	s.r.u32()
}

func (s *Instrs) blockType() BlockType {
	r := &s.r
	if r.left() > 0 && r.data[r.pos]&0xc0 == 0x40 { // a negative number of one byte
		if r.data[r.pos] == 0x40 {
			r.pos++
			return BlockType{Type: -1}
		}
		return BlockType{-1, r.valType()}
	}
	t := r.signed(33)
	if r.err == nil && t < 0 {
		r.failf("type of a block %d", t)
	}
	return BlockType{Type: int(t)}
}

func (s *Instrs) labels(in *Instr) {
	limit := s.r.limits.Targets
	if limit == 0 { // accepted before
		limit = 1 << 30
	}
	n := s.r.count("targets of one br_table", 1, limit)
	s.targets = s.targets[:0]
	for range n + 1 {
		s.targets = append(s.targets, s.r.u32())
		if s.r.err != nil {
			break
		}
	}
	in.Targets = s.targets
}
