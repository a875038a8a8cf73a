// Package builder makes artifacts from Build manifests, bit for bit.
//
// A build has two phases. Fetch: every input is brought into the store and checked against its pin; only here is there a
// network. Build: the steps run in a confinement that holds the listed inputs, each at its place and read-only, two
// private file systems (/build and /tmp) and nothing else: no network, fixed environment, ids, names and clock. What the
// manifest declares as outputs comes back as NAR streams, is put into the store, and is named by its NAR, tar, file and
// OCI digests.
//
// A build is known by its id, the hash of its pinned manifest and complete dependencies. The same id is not built twice
// unless asked for. With Vary, it is built again in deliberately different surroundings, and if the bits differ the
// guilty factor is named. Rebuild starts from nothing but a receipt.
//
// The package starts no process itself (runner.Runner does), opens no socket (source.Fetcher does), and holds no key:
// signers are handed in.
package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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

// Builder builds. Its fields are set once, before use; all are needed unless said otherwise.
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

// The stages, in order. A build that is answered from the store has only StageFetch.
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
	ID           digest.SHA256   // of the pinned manifest and the dependencies
	Manifest     *manifest.Build // with every local path replaced by the pin of its tree
	Inputs       map[string]source.Tree
	Dependencies []attest.ResourceDescriptor
	Record       Record
	Cached       bool // nothing was built: the store had the answer
}

// Record is what the store remembers of a build.
type Record struct {
	Outputs     []Output           `json:"outputs"`
	Confinement runner.Confinement `json:"confinement"`
	Started     time.Time          `json:"started"`
	Finished    time.Time          `json:"finished"`
	Variation   *Variation         `json:"variation,omitempty"` // nil: built once
}

// Variation records a second build that gave the same bits.
type Variation struct {
	Factors []Factor `json:"factors"`
	Missing []Factor `json:"missing,omitempty"` // asked for, but the runner could not vary them here
}

// Build fetches, builds and, if asked, builds again and compares.
//
// Its errors are a *BuildError if a step failed, a *NotReproducibleError if the second build differed, or what the
// fetcher or the runner reported.
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
	if !made.Cached {
		if err := b.first(ctx, made); err != nil {
			return nil, err
		}
	}
	if len(req.Vary) > 0 && (made.Record.Variation == nil || req.Force || !covers(made.Record.Variation.Factors, req.Vary)) {
		made.Cached = false
		if err := b.again(ctx, made, req.Vary); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// fetch brings all inputs into the store and pins the manifest.
func (b *Builder) fetch(ctx context.Context, doc *manifest.Build, base string) (*Made, error) {
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
		tree := trees[in.Name]
		made.Dependencies = append(made.Dependencies, tree.Dependencies...)
		pinned.Spec.Inputs = append(pinned.Spec.Inputs, tree.Pinned)
	}
	made.ID, err = buildID(made)
	return made, err
}

// buildID is the hash of all that decides a build's bits.
func buildID(made *Made) (digest.SHA256, error) {
	id, err := manifest.ID(made.Manifest)
	if err != nil {
		return digest.SHA256{}, err
	}
	data, err := canonical.Marshal(map[string]any{
		"builder": attest.BuildType, "manifest": id, "resolvedDependencies": made.Dependencies,
	})
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("name build: %w", err)
	}
	return digest.Of(data), nil
}

// recordKind is under what the store remembers builds.
const recordKind = "build"

// recall looks for a finished build whose outputs are all still there.
func (b *Builder) recall(made *Made) (bool, error) {
	data, ok, err := b.Store.Recall(recordKind, made.ID.Hex())
	if err != nil || !ok {
		return false, err
	}
	var rec Record
	if err := json.Unmarshal(data, &rec); err != nil {
		return false, fmt.Errorf("read record of build %s: %w", made.ID, err)
	}
	for i := range rec.Outputs {
		path, ok := b.Store.TreePath(rec.Outputs[i].NAR)
		if !ok {
			return false, nil
		}
		rec.Outputs[i].Path = path
	}
	// Degraded and hermetic results are never mixed.
	if rec.degraded() && !b.Degraded {
		return false, nil
	}
	made.Record = rec
	return true, nil
}

func (b *Builder) remember(made *Made) error {
	data, err := json.Marshal(made.Record)
	if err != nil {
		return err
	}
	return b.Store.Remember(recordKind, made.ID.Hex(), data)
}

// first builds in the standard surroundings.
func (b *Builder) first(ctx context.Context, made *Made) error {
	end := b.begin(StageBuild, made.Manifest.Metadata.Name)
	started := b.Now().UTC().Truncate(time.Second)
	ran, err := b.run(ctx, made, standard(), "")
	if err != nil {
		return err
	}
	made.Record = Record{
		Outputs: ran.outputs, Confinement: ran.result.Confinement,
		Started: started, Finished: b.Now().UTC().Truncate(time.Second),
	}
	end(ran.summary())
	return b.remember(made)
}

// ran is one execution of a build's steps.
type ran struct {
	outputs []Output
	result  runner.Result
}

func (r ran) summary() string {
	return fmt.Sprintf("%s CPU, %d MiB peak", r.result.CPU.Round(10*time.Millisecond), r.result.MemoryPeak>>20)
}

// run executes the steps in the given surroundings and puts the outputs into the store. The log goes to
// <Logs>/<id><suffix>.log.
func (b *Builder) run(ctx context.Context, made *Made, s surroundings, suffix string) (*ran, error) {
	spec, err := plan(made.Manifest, made.Inputs, s)
	if err != nil {
		return nil, err
	}
	log, err := b.openLog(made.ID.Hex() + suffix)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	got := map[string]digest.SHA256{}
	spec.Stdout, spec.Stderr, spec.Degraded = log, log, b.Degraded
	spec.Collect = func(out runner.Output, nar io.Reader) error {
		d, err := b.Store.AddTree(ctx, nar, digest.SHA256{})
		if err != nil {
			return fmt.Errorf("store output %s: %w", out.Name, err)
		}
		got[out.Name] = d
		return nil
	}
	result, err := b.Runner.Run(ctx, spec)
	if err != nil {
		return nil, err
	}
	if !result.OK() {
		if result.Reason == runner.ReasonCancelled && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, newBuildError(made, result, log)
	}
	outputs, err := b.describe(ctx, made.Manifest, got)
	if err != nil {
		return nil, err
	}
	return &ran{outputs, result}, log.Close()
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

// openLog makes the log file of a build; an earlier log of the same name is replaced.
func (b *Builder) openLog(name string) (*buildLog, error) {
	if err := os.MkdirAll(b.Logs, 0o755); err != nil {
		return nil, fmt.Errorf("make directory for logs: %w", err)
	}
	path := filepath.Join(b.Logs, name+".log")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make log: %w", err)
	}
	return &buildLog{file: f}, nil
}
