package source

import (
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
)

// bytesDependency is a thing pinned by the SHA-256 of its bytes.
func bytesDependency(uri string, d digest.SHA256, mediaType string) attest.ResourceDescriptor {
	return attest.ResourceDescriptor{URI: uri, Digest: map[string]string{"sha256": d.Hex()}, MediaType: mediaType}
}

// treeDependency is a thing pinned by its NAR hash.
func treeDependency(ref manifest.Ref) attest.ResourceDescriptor {
	return bytesDependency(ref.String(), ref.Digest, nar.MediaType)
}

// gitDependency is a commit: its id, and the NAR hash of its tree.
func gitDependency(ref manifest.Ref) attest.ResourceDescriptor {
	d := treeDependency(ref)
	d.Digest["gitCommit"] = ref.Version
	return d
}

// goDependency is a Go module, or its go.mod file, pinned by h1: dirHash is the same hash in hexadecimal
// (in-toto attestation spec/v1/digest_set.md).
func goDependency(uri string, d digest.SHA256) attest.ResourceDescriptor {
	return attest.ResourceDescriptor{URI: uri, Digest: map[string]string{"dirHash": d.Hex()}}
}
