// Package derivation attests what a store of derivations builds, whoever builds in it: it finds out by itself what was built from what.
//
// Build realises a derivation, builds it a second time and compares every output; Rebuild does it from a receipt alone. What they return is
// builder's: the claim, the provenance and the negative result are made as for any other build. What is done by Nix and by Guix each in its
// own way is behind Backend; packages nix and guix have one each, and know what a person asks to be built.
//
// # Whom it believes
//
// The backend evaluates, fetches and builds. What is said of that in a claim is not what it printed: derivations are read, and every path that
// is the hash of something is computed anew (package drv); every object is hashed where it lies and compared with what the store's database, the
// derivation, or its own name says. Where only the backend knows, the path of an output that is named by its content, its answer is checked
// against the content. Signatures of substitutes are checked by the backend, by its own settings.
//
// # What a claim lists
//
// Every derivation and every source of the whole graph; every output that some derivation of it needs, with its NAR hash, realised for this
// purpose if need be; for outputs whose content is fixed, the hash that the derivation states, with every URL; the flake and its locked
// inputs. It depends on the derivation alone, so that every honest builder lists the same.
package derivation
