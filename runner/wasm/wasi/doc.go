// Package wasi gives WebAssembly modules the host functions of WASI preview 1 (module "wasi_snapshot_preview1",
// github.com/WebAssembly/WASI, tag snapshot-01, phases/snapshot/docs.md), on wazero.
//
// A module sees a System: a table of descriptors that holds stdin, stdout, stderr and the directories that a Config names,
// a clock, and a source of random bytes. There is nothing else: no descriptor, variable, argument or time of the process
// that runs the module shows through, and no connection can be made (preview 1 has no call for that).
//
// What it promises: a path never leads out of its directory, whatever links lie on the way; with Config.Clock and
// Config.Seed every answer is a function of the module, the Config and the content of the directories: entries come sorted,
// files have one time and numbers made of their names, clocks stand still but for being read, sleeping takes no time. The
// state of a System (open descriptors, positions, clock, randomness) can be taken out as a State between two calls of a
// module, and put into another System over the same directories.
//
// What it never does: open a device, a pipe or a socket; wait for input (stdin is at its end); run longer than the call, but
// for sleeping by the host's clock where Config.Clock is nil. Calls that it does not offer say ENOSYS (proc_raise), and
// those on sockets ENOTSOCK.
//
// Where it differs from wazero's own imports/wasi_snapshot_preview1: rights are kept, and may be given up; paths that leave
// their directory are EPERM; stdio is of unknown type, so that programs do not take it for a terminal.
package wasi
