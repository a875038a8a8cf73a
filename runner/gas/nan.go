package gas

import (
	"encoding/binary"

	wasm "arch.network/runner/wasm/binary"
)

// stack follows the values that the instructions since the last change of control flow have left on the stack: for each the edit that would
// canonicalise it, or none. It is shorter than the real one: below are values that need nothing any more.
type stack struct {
	values []int32
}

const settled = -1 // a value that is no NaN of arithmetic, or was canonicalised

func (s *stack) reset() { s.values = s.values[:0] }

func (s *stack) push(edit int) { s.values = append(s.values, int32(edit)) }

func (s *stack) pop() int32 {
	n := len(s.values)
	if n == 0 {
		return settled
	}
	v := s.values[n-1]
	s.values = s.values[:n-1]
	return v
}

// nan notes where the results of in have to be made canonical.
func (r *rewriter) nan(in *wasm.Instr) {
	switch op := in.Op; {
	case op == wasm.Drop:
		r.nans.pop()
	case op >= wasm.I32Const && op <= wasm.F64Const, op == wasm.LocalGet, op == wasm.GlobalGet:
		r.nans.push(settled)
	case op == wasm.LocalTee, op >= wasm.I32Load && op <= 0x35:
		r.observe(1)
		r.nans.push(settled)
	case op == wasm.LocalSet, op == wasm.GlobalSet:
		r.observe(1)
	case op >= 0x36 && op <= wasm.I64Store32:
		r.observe(2)
	case op >= 0x45 && op <= 0xc4:
		r.numeric(in)
	case op >= 0xfc00 && op <= 0xfc07: // conversions that saturate
		r.nans.pop()
		r.nans.push(settled)
	default:
		r.observe(len(r.nans.values))
		if t := vectorNaN(op); t != 0 {
			r.edits = append(r.edits, edit{at: uint32(in.End), kind: canonical, op: op, typ: wasm.V128, lanes: t, need: true})
		}
	}
}

// observe takes values from the stack for something that could tell NaNs apart.
func (r *rewriter) observe(n int) {
	for range n {
		if v := r.nans.pop(); v != settled {
			r.edits[v].need = true
		}
	}
}

func (r *rewriter) numeric(in *wasm.Instr) {
	operands := 1
	if binaryOp(in.Op) {
		operands = 2
	}
	if movesBits(in.Op) {
		r.observe(operands)
	} else {
		for range operands {
			r.nans.pop()
		}
	}
	t := scalarNaN(in.Op)
	if t == 0 {
		r.nans.push(settled)
		return
	}
	r.nans.push(len(r.edits))
	r.edits = append(r.edits, edit{at: uint32(in.End), kind: canonical, op: in.Op, typ: t})
}

func binaryOp(op wasm.Op) bool {
	switch {
	case op == 0x45, op == 0x50: // eqz
		return false
	case op <= 0x66: // comparisons
		return true
	}
	return op >= 0x6a && op <= 0x78 || op >= 0x7c && op <= 0x8a || op >= 0x92 && op <= 0x98 || op >= 0xa0 && op <= 0xa6
}

// movesBits reports whether op lets sign or payload of a NaN through: abs, neg, copysign, reinterpret.
func movesBits(op wasm.Op) bool {
	switch op {
	case 0x8b, 0x8c, 0x98, 0x99, 0x9a, 0xa6, 0xbc, 0xbd, 0xbe, 0xbf:
		return true
	}
	return false
}

// scalarNaN returns the type of the result of op if it can be a NaN that processors disagree on, or zero.
func scalarNaN(op wasm.Op) wasm.ValType {
	switch {
	case op >= 0x8d && op <= 0x97, op == 0xb6: // f32 ceil … max, demote
		return wasm.F32
	case op >= 0x9b && op <= 0xa5, op == 0xbb: // f64 ceil … max, promote
		return wasm.F64
	}
	return 0
}

// vectorNaN is the same for the lanes of a vector.
func vectorNaN(op wasm.Op) wasm.ValType {
	switch op {
	case 0xfd67, 0xfd68, 0xfd69, 0xfd6a, // f32x4.ceil, floor, trunc, nearest
		0xfd5e,                                                 // f32x4.demote_f64x2_zero
		0xfde3, 0xfde4, 0xfde5, 0xfde6, 0xfde7, 0xfde8, 0xfde9: // f32x4.sqrt, add, sub, mul, div, min, max
		return wasm.F32
	case 0xfd74, 0xfd75, 0xfd7a, 0xfd94, // f64x2.ceil, floor, trunc, nearest
		0xfd5f,                                                 // f64x2.promote_low_f32x4
		0xfdef, 0xfdf0, 0xfdf1, 0xfdf2, 0xfdf3, 0xfdf4, 0xfdf5: // f64x2.sqrt, add, sub, mul, div, min, max
		return wasm.F64
	}
	return 0
}

// The canonical NaNs.
const (
	nan32 = 0x7fc0_0000
	nan64 = 0x7ff8_0000_0000_0000
)

// canonical replaces the value on top of the stack by the canonical NaN if it is not equal to itself.
func (r *rewriter) canonical(out []byte, t wasm.ValType, lanes wasm.ValType) []byte {
	if t == wasm.V128 {
		return r.canonicalLanes(out, lanes)
	}
	local := r.scratch(t)
	out = wasm.AppendU32(append(out, byte(wasm.LocalTee)), local)
	out = wasm.AppendU32(append(out, byte(wasm.LocalGet)), local)
	if t == wasm.F32 {
		out = append(out, opF32Ne, byte(wasm.If), blockEmpty, byte(wasm.F32Const))
		out = binary.LittleEndian.AppendUint32(out, nan32)
	} else {
		out = append(out, opF64Ne, byte(wasm.If), blockEmpty, byte(wasm.F64Const))
		out = binary.LittleEndian.AppendUint64(out, nan64)
	}
	out = wasm.AppendU32(append(out, byte(wasm.LocalSet)), local)
	out = append(out, byte(wasm.End))
	return wasm.AppendU32(append(out, byte(wasm.LocalGet)), local)
}

// canonicalLanes does so for each lane of a vector.
func (r *rewriter) canonicalLanes(out []byte, lanes wasm.ValType) []byte {
	local := r.scratch(wasm.V128)
	lane, equal := uint64(nan64), byte(0x47) // f64x2.eq
	if lanes == wasm.F32 {
		lane, equal = nan32<<32|nan32, 0x41 // f32x4.eq
	}
	out = wasm.AppendU32(append(out, byte(wasm.LocalTee)), local)
	out = append(out, 0xfd, byte(wasm.V128Const&0xff))
	out = binary.LittleEndian.AppendUint64(out, lane)
	out = binary.LittleEndian.AppendUint64(out, lane)
	out = wasm.AppendU32(append(out, byte(wasm.LocalGet)), local)
	out = wasm.AppendU32(append(out, byte(wasm.LocalGet)), local)
	return append(out, 0xfd, equal, 0xfd, 0x52) // v128.bitselect
}
