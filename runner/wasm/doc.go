// Package wasm runs WebAssembly modules with WASI preview 1 (runner.Module) on wazero, in a worker process inside the
// confinement of another driver. It implements runner.Runner around that driver, and says how a module's run ended in the same
// words.
//
// A module is never decoded, compiled or run in the caller's process: modules of a few bytes can take gigabytes or minutes
// of any engine. The worker is the same static binary in another mode (Main); it reads one task from its descriptor 0, checks the
// module's structure (package binary), makes it count its work (package gas), compiles it, runs it, and reports. The caller takes what the
// worker says as a stranger's word: it is parsed strictly, within bounds, and what the driver itself has seen (a kill, a
// limit, an exit status) outweighs it.
//
// How a run ends, beside what the driver says:
//
//	the module's _start returns, or it calls proc_exit  ReasonExit with that status
//	a trap (unreachable, out of bounds, stack overflow) ReasonExit with status 134, Detail "trap: …"
//	Module.Gas is used up                               ReasonLimit, Detail "gas: …"
//	the module is malformed, over a limit of package
//	binary, or wants what is not there                  ReasonRefused
//	the worker dies while it prepares the module        ReasonRefused, or ReasonOutOfMemory
//	the worker dies while the module runs               ReasonOutOfMemory, or ReasonSignal
//
// The engine is asked for explicitly, and named in Result.Engine. Where the host forbids executable memory the run is
// refused with a *runner.SetupError, unless Module.Interpret asks for the interpreter: it is never a silent choice.
//
// Machine code is kept in a cache of files, by what it was made from and for (Options.Cache). It is made by a worker that does nothing else,
// in a confinement of its own, and stored by the caller; whoever runs a module gets it read-only. So a hostile module
// can at most spoil the code of modules with its own digest. Workers of a runner.Pool can hold a module ready
// (Runner.Warm): then a run costs what the module itself does, and little else.
//
// What it never does: open a connection, look at a job document, keep a worker for a second job unless the Spec names the owner for
// whom that is allowed (runner.Module.Reuse).
package wasm
