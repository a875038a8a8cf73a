package builder

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"slices"
	"time"

	"arch.network/attest"
	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner"
)

// Fetcher brings inputs into the store. *source.Fetcher is one.
type Fetcher interface {
	FetchAll(ctx context.Context, inputs []manifest.BuildInput, base string) (map[string]source.Tree, error)
}

// Builder builds. Its fields are set once, before use; all are needed unless said otherwise. Its methods may be called
// from several goroutines, if Events may.
type Builder struct {
	Store  *store.Store
	Fetch  Fetcher
	Runner runner.Runner
	Logs   string           // directory for the logs of builds; it is made when missing
	Now    func() time.Time // the clock that provenance is stamped with
	Events func(Event)      // progress; nil: none

	// Degraded allows weaker confinement where the host refuses namespaces. The provenance then names another builder.
	Degraded bool
}

// Stage is a part of a build's way.
type Stage string

// The stages, in order. A build that is answered from the store has no StageBuild and no StageVary.
const (
	StageFetch   Stage = "fetch"   // Name is the number of inputs
	StageBuild   Stage = "build"   // Name is the manifest's name
	StageVary    Stage = "vary"    // Name is the factors varied
	StageDeliver Stage = "deliver" // Name is the output
)

// Event is a sign of life.
type Event struct {
	Stage  Stage
	Name   string
	Detail string
	Done   bool          // false: begins; true: ended well
	Took   time.Duration // when Done
}

// Request asks for a build.
type Request struct {
	Manifest *manifest.Build // validated
	Base     string          // directory that the manifest's paths are relative to
	Force    bool            // build even if the store has the answer
	Vary     []Factor        // factors for the second build; none: build once
}

// Made is a finished build.
type Made struct {
	ID           digest.SHA256   // of the pinned manifest, the dependencies and the normaliser
	Manifest     *manifest.Build // with every local path replaced by the pin of its tree
	Inputs       map[string]source.Tree
	Dependencies []attest.ResourceDescriptor
	Sources      []attest.Source // that the receipt carries, beside the local trees among Inputs
	Record       Record
	Cached       bool // nothing was built: the store had the answer
}

// Build fetches, builds and, if asked, builds again and compares.
//
// Its errors are a *PlatformError if the build is for another machine, a *BuildError if a step failed or an output is not
// what the manifest declares, a *NotReproducibleError if the second build differed, or what the fetcher or the runner
// reported.
func (b *Builder) Build(ctx context.Context, req Request) (*Made, error) {
	made, err := b.fetch(ctx, req.Manifest, req.Base)
	if err != nil {
		return nil, err
	}
	if !req.Force {
		if made.Cached, err = b.recall(made); err != nil {
			return nil, err
		}
	}
	fresh := !made.Cached
	if fresh {
		if err := b.first(ctx, made, ""); err != nil {
			return nil, err
		}
		if err := b.remember(made); err != nil {
			return nil, err
		}
	}
	if factors := toVary(made.Record, req.Vary); len(factors) > 0 {
		made.Cached = false
		if err := b.again(ctx, made, factors, fresh); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// toVary returns the factors for a second build of rec; none if that was made before. What was varied then is varied
// again, so that the record of one build tells all.
func toVary(rec Record, want []Factor) []Factor {
	if rec.Variation == nil {
		return want
	}
	all := slices.Clone(rec.Variation.Factors)
	for _, f := range want {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	if len(all) == len(rec.Variation.Factors) {
		return nil
	}
	return all
}

// fetch brings all inputs into the store and pins the manifest.
func (b *Builder) fetch(ctx context.Context, doc *manifest.Build, base string) (*Made, error) {
	if here := runtime.GOOS + "/" + runtime.GOARCH; doc.Spec.Platform != here {
		return nil, &PlatformError{Build: doc.Metadata.Name, Want: doc.Spec.Platform, Here: here}
	}
	pinned := *doc
	pinned.Signatures = nil
	pinned.Spec.Inputs = nil
	end := b.begin(StageFetch, fmt.Sprintf("%d inputs", len(doc.Spec.Inputs)))
	trees, err := b.Fetch.FetchAll(ctx, doc.Spec.Inputs, base)
	if err != nil {
		return nil, err
	}
	end("all there")
	made := &Made{Manifest: &pinned, Inputs: trees}
	for _, in := range doc.Spec.Inputs {
		tree, ok := trees[in.Name]
		if !ok {
			return nil, fmt.Errorf("fetch input %q: the fetcher did not deliver it", in.Name)
		}
		made.Dependencies = append(made.Dependencies, tree.Dependencies...)
		pinned.Spec.Inputs = append(pinned.Spec.Inputs, tree.Pinned)
	}
	made.ID, err = buildID(made)
	return made, err
}

// buildID is the hash of all that decides a build's bits and digests.
func buildID(made *Made) (digest.SHA256, error) {
	id, err := manifest.ID(made.Manifest)
	if err != nil {
		return digest.SHA256{}, err
	}
	data, err := canonical.Marshal(map[string]any{
		"builder": attest.BuildType, "normalizer": attest.CurrentNormalizer(), "manifest": id,
		"resolvedDependencies": made.Dependencies,
	})
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("name build: %w", err)
	}
	return digest.Of(data), nil
}

// first builds in the standard surroundings.
func (b *Builder) first(ctx context.Context, made *Made, suffix string) error {
	end := b.begin(StageBuild, made.Manifest.Metadata.Name)
	started := b.now()
	ran, err := b.run(ctx, made, standard(), suffix)
	if err != nil {
		return err
	}
	made.Record = Record{
		Outputs: ran.outputs, Confinement: ran.result.Confinement, Log: ran.log,
		Run: rand.Text(), Started: started, Finished: b.notBefore(started),
	}
	end(ran.summary())
	return nil
}

// now is the time for a record, to the second.
func (b *Builder) now() time.Time { return b.Now().UTC().Truncate(time.Second) }

// notBefore is the time now, or started if the clock was set back in between.
func (b *Builder) notBefore(started time.Time) time.Time {
	if now := b.now(); now.After(started) {
		return now
	}
	return started
}

func (b *Builder) begin(stage Stage, name string) (end func(detail string)) {
	if b.Events == nil {
		return func(string) {}
	}
	start := time.Now()
	b.Events(Event{Stage: stage, Name: name})
	return func(detail string) {
		b.Events(Event{Stage: stage, Name: name, Detail: detail, Done: true, Took: time.Since(start)})
	}
}
