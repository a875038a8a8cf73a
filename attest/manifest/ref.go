package manifest

import "arch.network/attest/digest"

// RefScheme is the kind of a Ref.
type RefScheme string

// The schemes of references, with their grammar.
const (
	RefOCI   RefScheme = "oci"   // [oci:]HOST/REPOSITORY[:TAG]@sha256:HEX; image-spec descriptor digest
	RefStore RefScheme = "store" // /nix/store/HASH-NAME#sha256-BASE64 or /gnu/store/…: NAR hash
	RefCID   RefScheme = "ipfs"  // ipfs://CID[/PATH]
	RefURL   RefScheme = "url"   // http://, https:// or file:// … #sha256-BASE64: hash of the bytes
	RefModel RefScheme = "model" // SCHEME://NAME@sha256:HEX, such as onnx://…: hash of the bytes
	RefGo    RefScheme = "go"    // go:MODULE@VERSION#h1:BASE64; golang.org/x/mod/sumdb/dirhash Hash1
	RefGit   RefScheme = "git"   // git+https://…@COMMIT#sha256-BASE64: commit id (40 or 64 hex digits) and NAR hash of its tree
	RefTree  RefScheme = "tree"  // tree:NAME#sha256-BASE64: a tree by NAR hash, wherever it may be found
)

// Ref is a pinned reference: it says where something may be found and which bytes it must be.
// The zero Ref refers to nothing.
type Ref struct {
	Scheme   RefScheme
	Location string        // the reference without its pin: URL, repository, module path, store path, CID, name
	Version  string        // RefGo: module version; RefGit: commit; RefOCI: tag, which is only a remark
	Digest   digest.SHA256 // what the pin says; what it is the hash of depends on Scheme
}
