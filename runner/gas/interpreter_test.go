package gas

import (
	"errors"
	"math/bits"

	"arch.network/runner/wasm/binary"
)

// interpreter executes the integer subset of WebAssembly, one instruction after the other, and adds up what the schedule says
// of each. It knows nothing of regions.
type interpreter struct {
	m       *binary.Module
	gas     uint64
	memory  []byte
	globals []uint64
	table   int
	bodies  []parsed
}

type parsed struct {
	code  []binary.Instr
	other []int // for block, loop, if, else: where the else or end is
}

var errTrap = errors.New("trap")

func newInterpreter(m *binary.Module) *interpreter {
	v := &interpreter{m: m, memory: make([]byte, 1<<16), globals: []uint64{7, ^uint64(1)}, table: int(m.Tables[0].Min)}
	for _, c := range m.Codes {
		var p parsed
		var open []int
		s := binary.ReadInstrs(c.Body)
		for in := (binary.Instr{}); s.Next(&in); {
			i := len(p.code)
			in.Targets = append([]uint32(nil), in.Targets...)
			p.code, p.other = append(p.code, in), append(p.other, 0)
			switch in.Op {
			case binary.Block, binary.Loop, binary.If:
				open = append(open, i)
			case binary.Else:
				p.other[open[len(open)-1]] = i
				open[len(open)-1] = i
			case binary.End:
				if len(open) > 0 {
					p.other[open[len(open)-1]] = i
					open = open[:len(open)-1]
				}
			}
		}
		v.bodies = append(v.bodies, p)
	}
	return v
}

// end returns where the block that starts at i ends.
func (p *parsed) end(i int) int {
	for p.code[i].Op != binary.End {
		i = p.other[i]
	}
	return i
}

type open struct{ start, height int }

func (v *interpreter) call(f int, args []uint64) ([]uint64, error) {
	t, p, c := v.m.Types[v.m.Funcs[f]], &v.bodies[f], v.m.Codes[f]
	locals := append([]uint64(nil), args...)
	declared := 0
	for _, l := range c.Locals {
		declared += int(l.Count)
	}
	locals = append(locals, make([]uint64, declared)...)
	v.gas += uint64(declared / 8)
	var stack []uint64
	var blocks []open
	pop := func() uint64 {
		x := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		return x
	}
	push := func(x uint64) { stack = append(stack, x) }
	for pc := 0; pc < len(p.code); pc++ {
		in := &p.code[pc]
		v.gas += v.cost(in.Op)
		// branch goes to the label at a depth; it returns whether that ends the function.
		branch := func(depth int) bool {
			if depth == len(blocks) {
				return true
			}
			b := blocks[len(blocks)-1-depth]
			block := &p.code[b.start]
			if block.Op == binary.Loop {
				blocks = blocks[:len(blocks)-depth]
				pc = b.start
				stack = stack[:b.height]
				return false
			}
			blocks = blocks[:len(blocks)-1-depth]
			pc = p.end(b.start)
			stack = stack[:b.height]
			return false
		}
		switch in.Op {
		case binary.Unreachable:
			return nil, errTrap
		case binary.Block, binary.Loop:
			blocks = append(blocks, open{pc, len(stack)})
		case binary.If:
			cond := pop()
			blocks = append(blocks, open{pc, len(stack)})
			if uint32(cond) == 0 {
				pc = p.other[pc]
				if p.code[pc].Op == binary.End {
					blocks = blocks[:len(blocks)-1]
				}
			}
		case binary.Else: // the end of the then part
			pc = p.end(pc)
			blocks = blocks[:len(blocks)-1]
		case binary.End:
			if len(blocks) == 0 {
				return stack[len(stack)-len(t.Results):], nil
			}
			blocks = blocks[:len(blocks)-1]
		case binary.Br:
			if branch(int(in.A)) {
				return stack[len(stack)-len(t.Results):], nil
			}
		case binary.BrIf:
			if uint32(pop()) != 0 && branch(int(in.A)) {
				return stack[len(stack)-len(t.Results):], nil
			}
		case binary.BrTable:
			i := min(int(uint32(pop())), len(in.Targets)-1)
			if branch(int(in.Targets[i])) {
				return stack[len(stack)-len(t.Results):], nil
			}
		case binary.Return:
			return stack[len(stack)-len(t.Results):], nil
		case binary.Call, binary.CallIndirect:
			callee := int(in.A)
			if in.Op == binary.CallIndirect {
				callee = int(pop())
			}
			n := len(v.m.Types[v.m.Funcs[callee]].Params)
			results, err := v.call(callee, stack[len(stack)-n:])
			if err != nil {
				return nil, err
			}
			stack = append(stack[:len(stack)-n], results...)
		case binary.Drop:
			pop()
		case binary.Select:
			if c, b := pop(), pop(); uint32(c) == 0 {
				pop()
				push(b)
			}
		case binary.LocalGet:
			push(locals[in.A])
		case binary.LocalSet:
			locals[in.A] = pop()
		case binary.LocalTee:
			locals[in.A] = stack[len(stack)-1]
		case binary.GlobalGet:
			push(v.globals[in.A])
		case binary.GlobalSet:
			v.globals[in.A] = pop()
		case binary.Nop:
		default:
			if err := v.plain(in, c.Body, pop, push); err != nil {
				return nil, err
			}
		}
	}
	panic("function without an end")
}

// cost is the schedule of the package's documentation, written once more.
func (v *interpreter) cost(op binary.Op) uint64 {
	switch op {
	case binary.Block, binary.Loop, binary.Else, binary.End, binary.Nop:
		return 0
	case binary.Call:
		return 5
	case binary.CallIndirect:
		return 7
	case 0x6d, 0x6e, 0x6f, 0x70, 0x7f, 0x80, 0x81, 0x82:
		return 4
	}
	return 1
}

func (v *interpreter) plain(in *binary.Instr, body []byte, pop func() uint64, push func(uint64)) error {
	switch op := in.Op; op {
	case binary.I32Const:
		push(uint64(in.A))
	case binary.I64Const:
		push(uint64(readI64(body[in.Start+1 : in.End])))
	case binary.RefNull:
		push(0)
	case binary.MemoryGrow:
		delta, pages := int(uint32(pop())), len(v.memory)>>16
		if pages+delta > 3 {
			push(0xffffffff)
			break
		}
		v.memory = append(v.memory, make([]byte, delta<<16)...)
		v.gas += uint64(delta) * 1024
		push(uint64(pages))
	case binary.TableGrow:
		delta := int(uint32(pop()))
		pop()
		if v.table+delta > 20 {
			push(0xffffffff)
			break
		}
		push(uint64(v.table))
		v.table += delta
		v.gas += uint64(delta)
	case binary.MemoryFill:
		n, x, at := uint32(pop()), byte(pop()), uint32(pop())
		v.gas += uint64(n) / 8
		for i := range n {
			v.memory[at+i] = x
		}
	case binary.MemoryCopy:
		n, from, to := uint32(pop()), uint32(pop()), uint32(pop())
		v.gas += uint64(n) / 8
		copy(v.memory[to:to+n], v.memory[from:from+n])
	case 0x28, 0x29:
		at := uint32(pop()) + uint32(body[in.Start+2])
		var x uint64
		for i := range map[binary.Op]uint32{0x28: 4, 0x29: 8}[op] {
			x |= uint64(v.memory[at+i]) << (8 * i)
		}
		push(x)
	case 0x36, 0x37:
		x, at := pop(), uint32(pop())+uint32(body[in.Start+2])
		for i := range map[binary.Op]uint32{0x36: 4, 0x37: 8}[op] {
			v.memory[at+i] = byte(x >> (8 * i))
		}
	default:
		return v.numeric(op, pop, push)
	}
	return nil
}

func readI64(b []byte) int64 {
	var v int64
	shift := uint(0)
	for _, x := range b {
		v |= int64(x&0x7f) << shift
		shift += 7
	}
	if shift < 64 && b[len(b)-1]&0x40 != 0 {
		v |= -1 << shift
	}
	return v
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (v *interpreter) numeric(op binary.Op, pop func() uint64, push func(uint64)) error {
	switch op {
	case 0x45:
		push(flag(uint32(pop()) == 0))
	case 0x50:
		push(flag(pop() == 0))
	case 0x67:
		push(uint64(bits.LeadingZeros32(uint32(pop()))))
	case 0x68:
		push(uint64(bits.TrailingZeros32(uint32(pop()))))
	case 0x69:
		push(uint64(bits.OnesCount32(uint32(pop()))))
	case 0x79:
		push(uint64(bits.LeadingZeros64(pop())))
	case 0x7a:
		push(uint64(bits.TrailingZeros64(pop())))
	case 0x7b:
		push(uint64(bits.OnesCount64(pop())))
	case 0xa7:
		push(uint64(uint32(pop())))
	case 0xac:
		push(uint64(int64(int32(pop()))))
	default:
		b, a := pop(), pop()
		if op >= 0x51 && op <= 0x5a {
			push(compare(op-0x51, int64(a), int64(b), a, b))
			return nil
		}
		if op >= 0x46 && op <= 0x4f {
			push(compare(op-0x46, int64(int32(a)), int64(int32(b)), uint64(uint32(a)), uint64(uint32(b))))
			return nil
		}
		if op >= 0x7c {
			return arithmetic(op-0x7c, int64(a), int64(b), a, b, 64, push)
		}
		return arithmetic(op-0x6a, int64(int32(a)), int64(int32(b)), uint64(uint32(a)), uint64(uint32(b)), 32, push)
	}
	return nil
}

func compare(op binary.Op, a, b int64, ua, ub uint64) uint64 {
	return flag([]bool{a == b, a != b, a < b, ua < ub, a > b, ua > ub, a <= b, ua <= ub, a >= b, ua >= ub}[op])
}

func arithmetic(op binary.Op, a, b int64, ua, ub uint64, width uint, push func(uint64)) error {
	if op >= 3 && op <= 6 && (ub == 0 || op == 3 && b == -1 && a == -1<<(width-1)) {
		return errTrap
	}
	shift := uint(ub) % width
	var x uint64
	switch op {
	case 0:
		x = ua + ub
	case 1:
		x = ua - ub
	case 2:
		x = ua * ub
	case 3:
		x = uint64(a / b)
	case 4:
		x = ua / ub
	case 5:
		if b != -1 {
			x = uint64(a % b)
		}
	case 6:
		x = ua % ub
	case 7:
		x = ua & ub
	case 8:
		x = ua | ub
	case 9:
		x = ua ^ ub
	case 10:
		x = ua << shift
	case 11:
		x = uint64(a >> shift)
	case 12:
		x = ua >> shift
	case 13:
		x = ua<<shift | ua>>(width-shift)
	case 14:
		x = ua>>shift | ua<<(width-shift)
	}
	if width == 32 {
		x = uint64(uint32(x))
	}
	push(x)
	return nil
}
