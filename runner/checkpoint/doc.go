// Package checkpoint stops a WebAssembly job in the middle and resumes it in another process, on another machine, at another
// time: the outputs and the gas are those of a job that was never stopped.
//
// A job is stopped only where its gas runs out: package gas lets the module call its host there (gas.Options.Hook). The host gives gas in slices, so
// that a job can be stopped at each end of a slice, which is the same place in every execution. What is kept is one of two:
//
//   - A snapshot: memory, globals, WASI state, what it has written to directories in memory, and the call stack. Only a module that Instrument has prepared can save its
//     call stack: when it is built, wasm-opt of binaryen rewrites it so that all its functions can return early and be entered
//     again where they were ("asyncify"; binaryen: src/passes/Asyncify.cpp).
//   - A mark: how much gas was used, and a hash of the state. It is resumed by doing everything again up to that gas, and
//     comparing the hash. That works for every module, takes the time it took, and proves that the first part was honest.
//
// Both kinds count gas as an unprepared module does: Instrument counts first, and asyncify's own code is not counted. So anyone with
// the original module can check the gas of a job that was stopped and moved. The converse is not checked here: that a prepared module counts
// honestly is what the receipt of its build says (Record), and who runs it without one has the clock as its only limit.
//
// A snapshot borrows the module's own memory as the place for the saved call stack, and puts back what was there: the module never sees a difference,
// not even in the size of its memory.
//
// The package never starts a process but wasm-opt, in Instrument. Extension's part runs in package wasm's worker, in confinement.
package checkpoint
