// Package closure makes programs of a Nix or Guix store ready to be run: it finds everything that a store path refers to, checks each
// path against the NAR hash that somebody vouches for, and says what to mount. A job then sees these paths at their own names, and
// nothing else of the store.
//
// # What is trusted
//
// A store path names how something was built, not what it is: /nix/store/HASH-NAME may have other bytes on another machine. So a job pins the NAR
// hash of its top path; and since that pins only the names of what the path refers to, every further path needs a NAR hash, too. In this
// order, it is one that
//
//   - Options.Known has: from the signed job or its receipt;
//   - the path itself says, if it is content-addressed: sources, files written by the evaluator and fixed outputs have names that are a hash
//     of their content and references (Nix: store-path specification), truncated to 160 bits;
//   - Options.Verify gives: the database of the host's own store (Daemon, Nix).
//
// A path for which none of them speaks is an *UnpinnedError; one with another hash a *HashError; one that is not there a
// *MissingError. All of them name it.
//
// # References
//
// What Options.Verify knows of a path's references is believed, since it comes with the hash. Otherwise they are found as Nix itself finds them
// when it registers a build: the NAR is searched for the hash parts of store paths. Those looked for are the names in the
// store's directory and those of Options.Known; beside that, every text STORE/HASH-NAME that names none of them is missing. Nothing is
// read twice: hashing and searching see the same bytes.
//
// The package never fetches, never follows a symbolic link of a store path, and never writes. What was checked may change before it is
// mounted if somebody can write to the store: the host's own belongs to root.
package closure
