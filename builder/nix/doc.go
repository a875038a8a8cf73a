// Package nix has an installed Nix build. What is found out of that, and claimed, is package derivation's; here is what is done by Nix: Evaluate
// turns what a person asks for, a flake's output, an expression, a derivation, a store path, into a derivation, and pins what it was
// evaluated from; the rest implements derivation.Backend by Nix's programs.
//
// nix build --rebuild compares only what is named by its recipe, and only if it is there already. The second build here is in a new store,
// into which the inputs were copied, with one processor in place of all, and the outputs are compared by name, whatever their paths.
// Inputs that are named by their content are built again, too.
//
// The package opens no connection itself and holds no key.
package nix
