// Package attest says what was built from what, by whom, and whether that may be believed.
//
// It holds the statements of a build's life as Go types, exact to their specifications: the build claim and the
// negative result (our own predicates, see the documents that PredicateDoc returns), SLSA Provenance v1 and the SLSA
// Verification Summary. It reads and writes receipts, which are bundles of signed statements (Receipt), and it
// checks an artifact against receipts, a trust root and a policy (Verify), or against an in-toto layout (VerifyLayout).
//
// A build leaves two kinds of statement. The Claim holds nothing but the build itself: no time, no host, no builder.
// Its bytes are therefore equal at every honest builder, and all of them sign the same bytes. The Provenance is each
// builder's own account, and carries what differs: who, when, in which confinement.
//
// The package promises that nothing is believed before its signature was checked, that the bytes that were checked
// are the bytes that are parsed, and that a Report is OK only if every required check passed, a signature among them.
// It never opens a connection, never reads the clock, never runs a command and holds no private key.
package attest

// Types of the things this package reads and writes.
const (
	// PayloadType is the DSSE payload type of every statement (in-toto attestation spec/v1/envelope.md).
	PayloadType = "application/vnd.in-toto+json"
	// StatementType is the `_type` of every statement (in-toto attestation spec/v1/statement.md).
	StatementType = "https://in-toto.io/Statement/v1"

	DecisionType   = "https://arch.network/attestation/decision/v1"
	ClaimType      = "https://arch.network/attestation/build-claim/v1"
	NegativeType   = "https://arch.network/attestation/build-negative/v1"
	JobResultType  = "https://arch.network/attestation/job-result/v1"
	JobRunType     = "https://arch.network/attestation/job-run/v1"
	ProvenanceType = "https://slsa.dev/provenance/v1"
	VSAType        = "https://slsa.dev/verification_summary/v1"
)

// Ways of building. Each way has an identity of its own, so that a policy can accept one and refuse another.
const (
	BuildType       = "https://arch.network/buildtypes/native/v1"
	BuilderHermetic = "https://arch.network/builders/native/hermetic/v1" // everything asked for was enforced
	BuilderDegraded = "https://arch.network/builders/native/degraded/v1" // the confinement record says what was not

	// A derivation that Nix built.
	BuildTypeNix       = "https://arch.network/buildtypes/nix/v1"
	BuilderNix         = "https://arch.network/builders/nix/sandboxed/v1" // in Nix's sandbox, in a store that no one else writes
	BuilderNixDegraded = "https://arch.network/builders/nix/degraded/v1"  // the confinement record says what was not enforced

	// A derivation that Guix built.
	BuildTypeGuix       = "https://arch.network/buildtypes/guix/v1"
	BuilderGuix         = "https://arch.network/builders/guix/sandboxed/v1" // by the machine's guix-daemon, whose sandbox was seen to hold
	BuilderGuixDegraded = "https://arch.network/builders/guix/degraded/v1"  // the confinement record says what was not enforced
)

// Media types of descriptors.
const (
	MediaNAR         = "application/x-nix-nar"
	MediaNARZstd     = "application/x-nix-nar+zstd"
	MediaTar         = "application/x-tar"
	MediaOCIManifest = "application/vnd.oci.image.manifest.v1+json"
	MediaFile        = "application/octet-stream"
	MediaFileZstd    = "application/octet-stream+zstd"
)

// Limits of what is read. They bound memory before anything is allocated.
const (
	MaxStatement = 8 << 20 // bytes of one statement
	// MaxDescriptors bounds subjects, dependencies and byproducts, each. 5,000 dependencies fit in MaxStatement.
	MaxDescriptors = 16384
	// MaxContent bounds the bytes embedded in one descriptor. The specification recommends 1 KB; a confinement
	// record with its reasons may be larger.
	MaxContent = 64 << 10
)
