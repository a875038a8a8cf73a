// Package binary reads and writes the WebAssembly binary format (W3C WebAssembly Core Specification 2.0, chapter 5).
// It stands between a module that a stranger made and everything that would believe its numbers.
//
// It promises: Decode takes time and memory in proportion to the module's length, whatever the module claims; no count
// is believed before it was compared with the bytes that are left; what it accepts is well-formed, refers
// to nothing outside of its own index spaces, stays within Limits, and encodes again.
// It does not check types: an engine does so, and what this package's users insert leaves ill-typed code ill-typed.
//
// It knows the features that runner/wasm runs: those of version 2.0 of the specification, fixed-width SIMD included.
// Threads, exceptions, tail calls, garbage collection, typed function references, several memories, 64-bit memories, relaxed
// SIMD and extended constant expressions are refused by name.
//
// It never runs anything, and holds no state.
package binary
