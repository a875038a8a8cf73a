// Package nix has an installed Nix build, and finds out by itself what was built from what.
//
// It is where a build's environment comes from when the Build document names a derivation: Evaluate turns what a person asks for, a
// flake's output, an expression, a derivation, a store path, into a derivation, and pins what it was evaluated from; Build realises
// it, builds it again in a store of its own and compares every output; Rebuild does it from a receipt alone. What they return is
// builder's: the claim, the provenance and the negative result are made as for any other build.
//
// # Whom it believes
//
// Nix evaluates, fetches and builds. What is said of that in a claim is not what Nix printed: derivations are read, and every path that
// is the hash of something is computed anew (package drv); every object is hashed where it lies and compared with what Nix's database, the
// derivation, or its own name says. Where only Nix knows, the path of an output that is named by its content, its answer is checked against
// the content. Signatures of substitutes are checked by Nix, by its own settings.
//
// # What a claim lists
//
// Every derivation and every source of the whole graph; every output that some derivation of it needs, with its NAR hash, realised for this
// purpose if need be; for outputs whose content is fixed, the hash that the derivation states, with every URL; the flake and its locked
// inputs. It depends on the derivation alone, so that every honest builder lists the same.
//
// # Comparing
//
// nix build --rebuild compares only what is named by its recipe, and only if it is there already. The second build here is in a new store,
// into which the inputs were copied, with one processor in place of all, and the outputs are compared by name, whatever their paths.
// Inputs that are named by their content are built again, too.
//
// The package opens no connection itself and holds no key.
package nix
