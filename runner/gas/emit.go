package gas

import (
	"slices"

	"arch.network/runner/wasm/binary"
)

// apply returns body with the edits.
func (r *rewriter) apply(body []byte) []byte {
	out := make([]byte, 0, len(body)+len(body)/4+64)
	from := uint32(0)
	for i := range r.edits {
		e := &r.edits[i]
		out = append(out, body[from:e.at]...)
		from = e.at
		switch e.kind {
		case charge, checked:
			out = r.charge(out, e)
		case sized:
			out = r.sized(out, e)
		case grown:
			out = r.grown(out, e)
		case renumber:
			out = binary.AppendU32(append(out, byte(e.op)), e.index)
			from = e.end
		case canonical:
			if e.need {
				out = r.canonical(out, e.typ, e.lanes)
			}
		}
	}
	return append(out, body[from:]...)
}

func (r *rewriter) charge(out []byte, e *edit) []byte {
	if e.cost == 0 {
		return out
	}
	out = append(out, r.counter...)
	out = binary.AppendI64(append(out, byte(binary.I64Const)), e.cost)
	out = append(out, opI64Sub)
	out = append(out, r.set...)
	if e.kind == checked {
		out = append(out, r.check...)
	}
	return out
}

// scratch returns the number of an additional local of a type.
func (r *rewriter) scratch(t binary.ValType) uint32 {
	i := slices.Index(r.extra, t)
	if i < 0 {
		i = len(r.extra)
		r.extra = append(r.extra, t)
	}
	return r.locals + uint32(i)
}

// sized charges for the i32 on top of the stack, which stays there.
func (r *rewriter) sized(out []byte, e *edit) []byte {
	local := r.scratch(binary.I32)
	out = binary.AppendU32(append(out, byte(binary.LocalSet)), local)
	out = append(out, r.counter...)
	out = binary.AppendU32(append(out, byte(binary.LocalGet)), local)
	out = r.subtract(out, e.shift)
	return binary.AppendU32(append(out, byte(binary.LocalGet)), local)
}

// subtract takes the counter and an i32 from the stack and charges for it.
func (r *rewriter) subtract(out []byte, shift int8) []byte {
	out = append(out, opI64ExtendI32U)
	switch {
	case shift > 0:
		out = append(out, byte(binary.I64Const), byte(shift), opI64Shl)
	case shift < 0:
		out = append(out, byte(binary.I64Const), byte(-shift), opI64ShrU)
	}
	out = append(out, opI64Sub)
	out = append(out, r.set...)
	return append(out, r.check...)
}

// grown charges for the difference between the size now and the result of the grow, which stays on the stack.
func (r *rewriter) grown(out []byte, e *edit) []byte {
	local := r.scratch(binary.I32)
	out = binary.AppendU32(append(out, byte(binary.LocalTee)), local)
	out = append(out, byte(binary.I32Const), 0x7f, opI32Ne, byte(binary.If), blockEmpty)
	out = append(out, r.counter...)
	if e.op == binary.MemorySize {
		out = append(out, byte(binary.MemorySize), 0)
	} else {
		out = binary.AppendU32(append(out, 0xfc, byte(e.op&0xff)), e.index)
	}
	out = binary.AppendU32(append(out, byte(binary.LocalGet)), local)
	out = append(out, opI32Sub)
	out = r.subtract(out, e.shift)
	out = append(out, byte(binary.End))
	return binary.AppendU32(append(out, byte(binary.LocalGet)), local)
}
