// Package guix has an installed Guix build. What is found out of that, and claimed, is package derivation's; here is what is done by Guix:
// Evaluate turns what a person asks for, a package, a manifest, a file of Scheme, a derivation, a store path, into derivations; the rest
// implements derivation.Backend by the daemon's protocol (package daemon).
//
// Packages are evaluated without grafts, as substitute servers have them: a graft is made of packages, and can only be computed where those
// are built.
//
// Guix has one store for all of the machine, and a daemon whose settings decide how builds are confined. Open tries that, by a derivation that looks for
// something which only a builder outside the sandbox can see. The second build is the daemon's own check: it builds again, on one
// processor, and compares. The daemon stops at the first output that differs, so that of several outputs that differ only one is told.
// An output that was not there before is not checked but built, and compared by whoever asked.
//
// The package opens no connection but to the daemon's socket and holds no key.
package guix
