// Package daemon talks to the daemon of a store, Nix's or Guix's, over its Unix socket: it asks what the store has, adds to it, has it build,
// and reads objects out of it.
//
//	c, err := daemon.Dial(ctx, daemon.NixSocket)
//	defer c.Close()
//	info, err := c.PathInfo(ctx, "/nix/store/…-hello")
//
// # The protocol
//
// Both daemons speak what Nix calls the worker protocol (github.com/NixOS/nix, src/libstore/worker-protocol.hh and daemon.cc;
// guix/store.scm and nix/nix-daemon of Guix). Numbers are 8 bytes, little endian; texts are a length, bytes, and zeros up to a multiple of 8;
// lists a number and that many texts. A request is a number and its arguments. The daemon answers with frames of what it has to say meanwhile,
// up to one that says that it is done, or what went wrong; then come the results.
//
// The client says that it speaks version 1.34, that of Nix 2.8, which newer daemons of Nix still speak; daemons before 1.26 (Nix 2.4) are
// refused. Guix left the common line before 1.16 and numbers its own from 1.96 on: where it has another request for the same thing, that
// one is used; where it has none, *UnsupportedError says so.
//
// # What it promises
//
// Every length and number is bounded before anything is allocated for it; padding, flags, frames, store paths and hashes that are not as
// they must be are errors, and end the connection. An object that is read is a valid NAR with the hash and size that the store's database
// has. What is added as a source is where its content says it must be, whatever the daemon answers.
//
// It does not decide whether a daemon is honest: that an object has the content it had when it was built is the store's word. Texts that a
// daemon sends, its messages and logs, are untrusted.
package daemon
