// Package binarycache reads and writes what binary caches of Nix and substitute servers of Guix publish: narinfos with their signatures,
// nix-cache-info, listings, packed NARs, and where receipts lie beside them. Its subpackages fetch from caches, serve one, and file receipts.
//
// It promises strict and bounded reading: what is not of the format, is there twice, or is over a limit is an error that says which field.
// Fields that it does not know are skipped, as Nix does. What of a narinfo somebody signed, and what nobody did, is told apart: of
// a Guix narinfo only the text before the signature is read but for where the NAR lies.
//
// It never believes anything: whose signature counts is for the caller, and content is nothing before its hash was compared.
package binarycache
