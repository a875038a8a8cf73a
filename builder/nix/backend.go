package nix

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/builder"
	"arch.network/builder/derivation"
	"arch.network/builder/nix/drv"
	"arch.network/runner"
)

// Backend is a derivation.Backend: a store in which an installed Nix builds. What is attested needs one that Open returns.
type Backend struct {
	Nix Nix
	At  Store

	oneCPU bool                        // the second build
	shown  []attest.ResourceDescriptor // what builders see besides what they depend on, and is known: see Open
	lent   []string                    // and what is not
}

// Kind implements derivation.Backend.
func (b Backend) Kind() derivation.Kind {
	return derivation.Kind{
		Dir: storepath.Nix, Type: attest.BuildTypeNix, Tool: "nix",
		Second: "in a new store", Varied: []builder.Factor{builder.FactorCPUs},
	}
}

// Version implements derivation.Backend.
func (b Backend) Version(ctx context.Context) (string, error) { return b.Nix.version(ctx, b.At) }

// Confinement implements derivation.Backend.
func (b Backend) Confinement() runner.Confinement {
	c := runner.Confinement{Driver: builder.DriverNix}
	switch {
	case !b.At.own():
		c.Missing = []string{"nix-sandbox: the daemon's settings decide"}
	case len(b.lent) > 0:
		c.Enforced = []string{"store-of-its-own"}
		c.Missing = []string{"nix-sandbox: builders see " + strings.Join(b.lent, ", ")}
	default:
		c.Enforced = []string{"nix-sandbox", "store-of-its-own"}
	}
	return c
}

// Surroundings implements derivation.Backend.
func (b Backend) Surroundings() []attest.ResourceDescriptor { return b.shown }

// File implements derivation.Backend.
func (b Backend) File(path string) string { return b.At.file(path) }

// Hashes implements derivation.Backend.
func (b Backend) Hashes(ctx context.Context, paths []string) (map[string]digest.SHA256, error) {
	return b.Nix.Database(b.At).Hashes(ctx, paths)
}

// References implements derivation.Backend.
func (b Backend) References(ctx context.Context, path string) ([]string, error) {
	return b.Nix.Database(b.At).References(ctx, path)
}

// Missing implements derivation.Backend.
func (b Backend) Missing(ctx context.Context, paths []string) (map[string]bool, error) {
	return b.Nix.Database(b.At).Missing(ctx, paths)
}

// Realise implements derivation.Backend.
func (b Backend) Realise(ctx context.Context, top string, outputs []drv.Wanted) error {
	var list []string
	for _, w := range outputs {
		list = append(list, w.Drv+"!"+w.Output)
	}
	for some := range slices.Chunk(list, maxArgs) {
		c := call{act: "realise what is needed", program: "nix-store", args: append([]string{"--realise"}, some...)}
		if _, err := b.Nix.run(ctx, b.At, c); err != nil {
			return asBuildError(top, err)
		}
	}
	return nil
}

// Build implements derivation.Backend.
func (b Backend) Build(ctx context.Context, path string, outputs []string) (map[string]string, error) {
	return b.Nix.build(ctx, b.At, path, outputs, b.oneCPU)
}

// Import implements derivation.Backend.
func (b Backend) Import(ctx context.Context, objects []derivation.Import) error {
	return b.Nix.bring(ctx, b.At, objects)
}

// Again implements derivation.Backend: the second build is in a new store, into which its inputs are copied, with one processor in place of all,
// and nothing configured but what we say. It gets nothing from elsewhere. The store is removed afterwards.
func (b Backend) Again(ctx context.Context, o derivation.Order, use func(derivation.Backend, map[string]derivation.Object) error) error {
	dir, err := os.MkdirTemp(o.Temp, "arch-nix-*")
	if err != nil {
		return fmt.Errorf("make a second Nix store: %w", err)
	}
	defer nar.RemoveAll(dir)
	s := Store{Dir: filepath.Join(dir, "store")}
	if err := b.Nix.copyClosure(ctx, b.At, s, append(slices.Clone(o.Needs), o.Top)); err != nil {
		return err
	}
	second := Backend{Nix: Nix{Bin: b.Nix.Bin, Offline: true, Conf: dir}, At: s, oneCPU: true}
	outputs, err := derivation.Built(ctx, second, o.Top, o.Derivation)
	if err != nil {
		return err
	}
	return use(second, outputs)
}

// DaemonError says that somebody else decides how builds in a store are confined.
type DaemonError struct{}

func (e *DaemonError) Error() string {
	return "attest a build in the machine's Nix store: its daemon decides by its own settings whether builds are confined, which cannot be seen from here"
}

// Hint tells the way out.
func (e *DaemonError) Hint() string {
	return "build in a store of your own with --nix-store DIR; or allow it with --degraded, and the receipt names another builder"
}

func asBuildError(path string, err error) error {
	if c, ok := err.(*CommandError); ok && isBuildFailure(c.Status) {
		c.Act = "build " + path
		return &derivation.BuildError{Drv: path, Err: c, Log: c.Output}
	}
	return err
}

// build realises all outputs of a derivation and returns the paths of some; with none named, of all.
func (n *Nix) build(ctx context.Context, s Store, path string, outputs []string, oneCPU bool) (map[string]string, error) {
	data, err := derivation.ReadFile(s.file(path))
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", path, err)
	}
	d, err := drv.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", path, err)
	}
	if len(outputs) == 0 {
		for _, o := range d.Outputs {
			outputs = append(outputs, o.Name)
		}
	}
	all := call{act: "build " + path, program: "nix-store", args: []string{"--realise", path}, oneCPU: oneCPU}
	if _, err := n.run(ctx, s, all); err != nil {
		return nil, asBuildError(path, err)
	}
	var made map[string]string
	paths := map[string]string{}
	for _, name := range outputs {
		o, ok := d.Output(name)
		if !ok {
			return nil, fmt.Errorf("build %s: it has no output %q", path, name)
		}
		if paths[name] = o.Path; o.Path != "" {
			continue
		}
		if made == nil {
			if made, err = n.outputs(ctx, s, path); err != nil {
				return nil, err
			}
		}
		if paths[name] = made[name]; paths[name] == "" {
			return nil, fmt.Errorf("build %s: Nix does not say where output %q is", path, name)
		}
	}
	return paths, nil
}

// outputs returns the paths of the outputs of a derivation, of which some may be named by their content.
func (n *Nix) outputs(ctx context.Context, s Store, path string) (map[string]string, error) {
	c, err := n.Database(s)(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Outputs(ctx, path)
}
