package binary

// Op is an instruction's code: the byte, or for prefixed instructions the prefix and the number after it, as 0xFCnn and 0xFDnn.
type Op uint16

// The operations that need to be told apart by name; the others are named by their number (section 5.4).
const (
	Unreachable  Op = 0x00
	Nop          Op = 0x01
	Block        Op = 0x02
	Loop         Op = 0x03
	If           Op = 0x04
	Else         Op = 0x05
	End          Op = 0x0b
	Br           Op = 0x0c
	BrIf         Op = 0x0d
	BrTable      Op = 0x0e
	Return       Op = 0x0f
	Call         Op = 0x10
	CallIndirect Op = 0x11
	Drop         Op = 0x1a
	Select       Op = 0x1b
	SelectTyped  Op = 0x1c
	LocalGet     Op = 0x20
	LocalSet     Op = 0x21
	LocalTee     Op = 0x22
	GlobalGet    Op = 0x23
	GlobalSet    Op = 0x24
	TableGet     Op = 0x25
	TableSet     Op = 0x26
	I32Load      Op = 0x28
	I64Store32   Op = 0x3e
	MemorySize   Op = 0x3f
	MemoryGrow   Op = 0x40
	I32Const     Op = 0x41
	I64Const     Op = 0x42
	F32Const     Op = 0x43
	F64Const     Op = 0x44
	RefNull      Op = 0xd0
	RefIsNull    Op = 0xd1
	RefFunc      Op = 0xd2
	MemoryInit   Op = 0xfc08
	DataDrop     Op = 0xfc09
	MemoryCopy   Op = 0xfc0a
	MemoryFill   Op = 0xfc0b
	TableInit    Op = 0xfc0c
	ElemDrop     Op = 0xfc0d
	TableCopy    Op = 0xfc0e
	TableGrow    Op = 0xfc0f
	TableSize    Op = 0xfc10
	TableFill    Op = 0xfc11
	V128Load     Op = 0xfd00
	V128Const    Op = 0xfd0c
	I8x16Shuffle Op = 0xfd0d
)

// refused names the proposal that a code belongs to, with a verb.
func refused(op byte) string {
	switch {
	case op == 0x12 || op == 0x13:
		return "tail calls are"
	case op >= 0x06 && op <= 0x0a || op == 0x18 || op == 0x19 || op == 0x1f:
		return "exceptions are"
	case op == 0x14 || op == 0x15 || op >= 0xd3 && op <= 0xd6:
		return "typed function references are"
	case op == 0xfb:
		return "garbage collection is"
	case op == 0xfe:
		return "threads are"
	}
	return ""
}

// immediate is what follows an instruction's code.
type immediate uint8

const (
	bad immediate = iota
	none
	blockType
	label
	labels
	function
	signature // a type and a table
	local
	global
	table
	memArg
	memArgLane
	memoryZero
	i32
	i64
	bytes4
	bytes8
	bytes16
	shuffle
	lane
	heapType
	valTypes
	dataMemory
	data
	memoryTwice
	elemTable
	elem
	tableTwice
)

// plainImmediates are those of the one-byte operations.
var plainImmediates = func() (t [256]immediate) {
	set := func(kind immediate, from, to Op) {
		for op := from; op <= to; op++ {
			t[op] = kind
		}
	}
	set(none, Unreachable, Nop)
	set(blockType, Block, If)
	set(none, Else, Else)
	set(none, End, End)
	set(label, Br, BrIf)
	set(labels, BrTable, BrTable)
	set(none, Return, Return)
	set(function, Call, Call)
	set(signature, CallIndirect, CallIndirect)
	set(none, Drop, Select)
	set(valTypes, SelectTyped, SelectTyped)
	set(local, LocalGet, LocalTee)
	set(global, GlobalGet, GlobalSet)
	set(table, TableGet, TableSet)
	set(memArg, I32Load, I64Store32)
	set(memoryZero, MemorySize, MemoryGrow)
	set(i32, I32Const, I32Const)
	set(i64, I64Const, I64Const)
	set(bytes4, F32Const, F32Const)
	set(bytes8, F64Const, F64Const)
	set(none, 0x45, 0xc4)
	set(heapType, RefNull, RefNull)
	set(none, RefIsNull, RefIsNull)
	set(function, RefFunc, RefFunc)
	return t
}()

// bulkImmediates are those of the operations with prefix 0xFC.
var bulkImmediates = [18]immediate{
	none, none, none, none, none, none, none, none, // conversions that saturate
	dataMemory, data, memoryTwice, memoryZero, elemTable, elem, tableTwice, table, table, table,
}

// vectorImmediates are those of the operations with prefix 0xFD.
var vectorImmediates = func() (t [256]immediate) {
	for i := range t {
		t[i] = none
	}
	for i := 0x00; i <= 0x0b; i++ { // loads and store
		t[i] = memArg
	}
	t[0x0c], t[0x0d] = bytes16, shuffle
	for i := 0x15; i <= 0x22; i++ { // extract_lane, replace_lane
		t[i] = lane
	}
	for i := 0x54; i <= 0x5b; i++ { // load_lane, store_lane
		t[i] = memArgLane
	}
	t[0x5c], t[0x5d] = memArg, memArg // load32_zero, load64_zero
	// Numbers that the specification leaves free.
	for _, i := range []int{0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee} {
		t[i] = bad
	}
	return t
}()
