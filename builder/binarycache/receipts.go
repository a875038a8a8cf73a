package binarycache

import (
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
)

// Receipts of a store path lie beside its narinfo, in a directory that Nix and Guix do not look at:
//
//	receipts/HASH.receipt.jsonl             by the hash part of the store path
//	receipts/sha256-NIXBASE32.receipt.jsonl by its NAR hash
//
// Each holds the signed statements of everybody, one a line (attest.Receipt): a second builder's stands beside the first's. They are
// nobody's word for being complete, and prove only what their signatures do.
const ReceiptDir = "receipts"

const receiptEnding = ".receipt.jsonl"

// ReceiptPath returns where in a cache the receipts of a store path lie.
func ReceiptPath(p storepath.Path) string { return ReceiptDir + "/" + p.Hash + receiptEnding }

// ReceiptPathOfNAR returns where in a cache the receipts of a NAR lie.
func ReceiptPathOfNAR(nar digest.SHA256) string {
	return ReceiptDir + "/sha256-" + nar.Nix32()[len("sha256:"):] + receiptEnding
}

// ValidReceiptPath reports whether name is one that ReceiptPath or ReceiptPathOfNAR returns.
func ValidReceiptPath(name string) bool {
	base, below := strings.CutPrefix(name, ReceiptDir+"/")
	base, ends := strings.CutSuffix(base, receiptEnding)
	if nar, ok := strings.CutPrefix(base, "sha256-"); ok {
		_, err := digest.ParseNix32("sha256:" + nar)
		return below && ends && err == nil
	}
	return below && ends && ValidHash(base)
}

// Subject names the content of a store path in a statement: receipts are found, and vouch, by such subjects. Claims of
// what Nix builds have them, too.
func Subject(p storepath.Path, nar digest.SHA256) attest.ResourceDescriptor {
	return attest.ResourceDescriptor{Name: p.Name, URI: p.String(), MediaType: attest.MediaNAR, Digest: map[string]string{"sha256": nar.Hex()}}
}

// SubjectOf reads a subject; ok is false if it is none of a store path.
func SubjectOf(d attest.ResourceDescriptor) (p storepath.Path, nar digest.SHA256, ok bool) {
	p, err := storepath.Parse(d.URI)
	nar, ok = d.SHA256()
	return p, nar, ok && err == nil && d.MediaType == attest.MediaNAR
}
