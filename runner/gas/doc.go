// Package gas makes a WebAssembly module count its own work, so that the count is the same on every machine, in every process
// and every time, and can be a limit, a price, and a position in an execution.
//
// Instrument rewrites the module: an additional global of type i64 holds the gas that is left, and each run of instructions
// that is entered only at its start (a charge region) begins by subtracting its cost. At the start of functions, at the heads of loops
// and at operations whose cost depends on a size the count is compared with zero; below zero, the module traps, or calls its host.
// Nothing else changes what the module computes.
//
// # What is promised
//
//   - The gas of an execution is a function of the module, of what its host gives it, and of Version; not of the engine, the
//     machine, or how often it was stopped and resumed.
//   - An execution that ends by returning from its entry has used exactly the sum of the costs of the instructions that it executed. One
//     that ends otherwise (a trap, proc_exit) has been charged for the rest of the region in which it ended, and of the
//     regions that called it.
//   - Within one region of acyclic code after the limit is passed, the execution stops. What it does in between is the
//     same everywhere; a run whose counter is below zero at its end is over its limit, however it ended.
//   - Module text that is not valid does not become valid, and valid text stays so. The module can neither read nor change the counter.
//   - Time and memory of Instrument are linear in the length of the module.
//
// # The schedule (Version "arch-gas-1")
//
//	0   block, loop, else, end, nop
//	1   every other instruction, in addition to what follows
//	+3  integer div and rem, float div and sqrt; also of vectors
//	+4  call; +6 call_indirect
//	+1  per 8 values that a br, br_if, return or a taken br_table target may carry (of a br_table: the most of its targets)
//	+1  per 8 declared local variables, at each call of the function (rounded down)
//	+1  per 8 bytes of memory.copy, memory.fill, memory.init (rounded down), before it is done
//	+1  per element of table.copy, table.fill, table.init, before it is done
//	+1024 per page that memory.grow added, +1 per element that table.grow added; nothing if it could not
//
// A host function's work is not in the count: the host charges for it, if it wants to, by changing the global.
//
// # NaN
//
// The only results of WebAssembly instructions that processors disagree on are the sign and payload of a NaN that arithmetic makes
// (W3C WebAssembly Core Specification 2.0, section 4.3.3, "NaN Propagation"). With Options.CanonicalNaN each such result becomes the
// canonical NaN, positive and without payload, unless the next use of it cannot tell NaNs apart (another arithmetic instruction, a comparison, a
// conversion to an integer) or it is dropped. Concerned are add, sub, mul, div, sqrt, min, max, ceil, floor, trunc, nearest,
// demote and promote of f32, f64 and of vectors of them. abs, neg, copysign, pmin, pmax, loads, constants and reinterpretation move
// bits and need nothing. Gas is the same with and without.
//
// The package never runs a module, and never touches an engine.
package gas
