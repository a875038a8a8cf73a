package gas

import "arch.network/runner/wasm/binary"

// Version names the schedule and the rewriting. It changes whenever any module's count could.
const Version = "arch-gas-1"

const (
	costDivision     = 3
	costCall         = 4
	costCallIndirect = 6
	carriedPerUnit   = 8
	localsPerUnit    = 8
	pageShift        = 10 // a page costs 2 to the power of it
	byteShift        = 3  // as many bytes as 2 to the power of it cost one
)

// flatCost is the cost of an instruction without what depends on sizes and on values carried.
func flatCost(op binary.Op) int64 {
	switch op {
	case binary.Block, binary.Loop, binary.Else, binary.End, binary.Nop:
		return 0
	case binary.Call:
		return 1 + costCall
	case binary.CallIndirect:
		return 1 + costCallIndirect
	}
	if divides(op) {
		return 1 + costDivision
	}
	return 1
}

// divides reports whether op is a division, remainder or square root.
func divides(op binary.Op) bool {
	switch op {
	case 0x6d, 0x6e, 0x6f, 0x70, // i32.div_s, div_u, rem_s, rem_u
		0x7f, 0x80, 0x81, 0x82, // i64
		0x91, 0x95, 0x9f, 0xa3, // f32.sqrt, div, f64.sqrt, div
		0xfde3, 0xfde7, 0xfdef, 0xfdf3: // f32x4.sqrt, div, f64x2.sqrt, div
		return true
	}
	return false
}
