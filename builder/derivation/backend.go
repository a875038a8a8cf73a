package derivation

import (
	"context"
	"fmt"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/nix/drv"
	"arch.network/builder/source"
	"arch.network/runner"
)

// Backend is a store with what builds in it. Paths are those that objects have in the store, wherever it lies.
type Backend interface {
	Kind() Kind
	// Version returns the version of the program.
	Version(ctx context.Context) (string, error)
	// Confinement says what holds for builds.
	Confinement() runner.Confinement
	// Surroundings are what builders see of this machine besides what they depend on, such as a shell as /bin/sh, each by its hash. They are part of this
	// builder's account, not of the claim: who builds where another one is shown gives the same claim, if the bits are the same.
	Surroundings() []attest.ResourceDescriptor
	// File returns where an object is on this machine.
	File(path string) string

	// Hashes returns what the store's database says of the NAR hash of each object. That one is not there is an error.
	Hashes(ctx context.Context, paths []string) (map[string]digest.SHA256, error)
	// References returns what the store's database says that an object refers to, besides itself.
	References(ctx context.Context, path string) ([]string, error)
	// Missing returns those paths that the store does not have.
	Missing(ctx context.Context, paths []string) (map[string]bool, error)

	// Realise has outputs whose paths are known before building built, or got from whoever the backend trusts, so far as they are not
	// there. A builder that fails is a *BuildError about top, for which they are needed.
	Realise(ctx context.Context, top string, outputs []drv.Wanted) error
	// Build realises all outputs of a derivation and returns the paths of some; with none named, of all. A builder that fails is a *BuildError.
	Build(ctx context.Context, path string, outputs []string) (map[string]string, error)
	// Again builds a derivation a second time and calls use with what came out, which may be gone when use has returned. What use is given as
	// the backend has those objects, and builds as the second build was.
	Again(ctx context.Context, o Order, use func(b Backend, outputs map[string]Object) error) error

	// Import brings objects into the store, each after what it refers to. Their hashes are computed by the backend itself; that they are what
	// they should be is checked by whoever calls.
	Import(ctx context.Context, objects []Import) error
	// EvaluateAgain evaluates what a claim's manifest says that its derivation was evaluated from, if it does: that it gives something else is a
	// *builder.ClaimError.
	EvaluateAgain(ctx context.Context, doc *manifest.Build, fetch Fetcher) error
}

// Kind says what a backend is.
type Kind struct {
	Dir    string           // of the store: storepath.Nix or storepath.Guix
	Type   string           // of builds: attest.BuildTypeNix
	Tool   string           // in the versions of a provenance: "nix"
	Second string           // where the second build is, for people: "in a new store"
	Varied []builder.Factor // in the second build
}

// Order is a second build.
type Order struct {
	Top        string
	Derivation *drv.Derivation
	// Needs are the outputs that the build is given; what they refer to is, too. What is named by its content is not among them: it is built
	// again.
	Needs []string
	Temp  string // directory for temporary files; empty: os.TempDir
}

// Import is an object to be brought into a store.
type Import struct {
	Path       string
	File       string // where it is on this machine
	References []string
}

// Fetcher gets pinned sources that a rebuild lacks. *source.Fetcher is one.
type Fetcher interface {
	FetchAll(ctx context.Context, inputs []manifest.BuildInput, base string) (map[string]source.Tree, error)
}

// Evaluated is what an evaluation gave, with what it was made from. Outputs, and their names, are known after building.
type Evaluated struct {
	Drv       string
	Flakes    []manifest.BuildFlake // none: it was not a flake that was evaluated
	Attribute string                // of the first flake
	// Tools are what it was evaluated with, so far as they are known by their source: the channels of Guix. They are part of this builder's
	// account, not of the claim: the derivation is the same whatever it was evaluated with.
	Tools []attest.ResourceDescriptor
}

// UnknownDeriverError says that nothing is known of how a store path was made.
type UnknownDeriverError struct{ Path string }

func (e *UnknownDeriverError) Error() string {
	return fmt.Sprintf("the store does not have the derivation that %s was built from", e.Path)
}

// Hint tells the way out.
func (e *UnknownDeriverError) Hint() string {
	return "name the .drv, or what it comes from: the flake, the expression or the package"
}

// BuildError says that a derivation could not be built.
type BuildError struct {
	Drv string
	Err error  // what the backend says; it may have a hint
	Log string // the end of it; untrusted
}

func (e *BuildError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *BuildError) Unwrap() error { return e.Err }
