package nix

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"

	"arch.network/attest/digest/nar"
	"arch.network/builder/derivation"
)

// exportMagic follows each object of an export (github.com/NixOS/nix, src/libstore/export-import.cc: "NIXE").
const exportMagic = 0x4558494e

// bring puts objects into a store of our own, each after what it refers to. Nix computes their hashes itself; that they are what they
// should be is checked by whoever calls, before or after.
func (n *Nix) bring(ctx context.Context, to Store, objects []derivation.Import) error {
	if len(objects) == 0 {
		return nil
	}
	return n.receive(ctx, to, func(w io.Writer) error { return writeExports(ctx, w, objects) })
}

// copyClosure brings paths with all that they refer to from one store into another, which is our own.
func (n *Nix) copyClosure(ctx context.Context, from, to Store, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	list, err := n.run(ctx, from, call{act: "list what is needed", program: "nix-store", args: append([]string{"--query", "--requisites"}, paths...)})
	if err != nil {
		return err
	}
	return n.receive(ctx, to, func(w io.Writer) error {
		_, err := n.run(ctx, from, call{act: "copy inputs", program: "nix-store", args: append([]string{"--export"}, strings.Fields(string(list))...), out: w})
		return err
	})
}

// receive has Nix import what write sends.
func (n *Nix) receive(ctx context.Context, to Store, write func(io.Writer) error) error {
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := write(w)
		w.CloseWithError(err)
		sent <- err
	}()
	_, err := n.run(ctx, to, call{
		act: "bring inputs into " + to.Dir, program: "nix-store", args: []string{"--option", "require-sigs", "false", "--import"}, in: r,
	})
	r.CloseWithError(io.ErrClosedPipe)
	if sendErr := <-sent; sendErr != nil && !errors.Is(sendErr, io.ErrClosedPipe) {
		return sendErr
	}
	return err
}

// writeExports writes the stream that nix-store --import reads: for each object 1, its NAR, the magic, its path, references and
// deriver, and 0 for no signature; and 0 at the end. Numbers are 64 bits, little-endian; strings are padded to 8 bytes.
func writeExports(ctx context.Context, to io.Writer, objects []derivation.Import) error {
	w := bufio.NewWriterSize(to, 64<<10)
	number := func(n uint64) { w.Write(binary.LittleEndian.AppendUint64(nil, n)) }
	text := func(s string) {
		number(uint64(len(s)))
		w.WriteString(s + strings.Repeat("\x00", (8-len(s)%8)%8))
	}
	for _, o := range objects {
		number(1)
		if err := nar.Dump(ctx, w, o.File, nar.Options{}); err != nil {
			return err
		}
		number(exportMagic)
		text(o.Path)
		refs := slices.Sorted(slices.Values(o.References))
		number(uint64(len(refs)))
		for _, ref := range refs {
			text(ref)
		}
		text("")
		number(0)
	}
	number(0)
	return w.Flush()
}
