package drv

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
)

// Graph is a derivation with all that it depends on, every path of which was computed anew: no file is at another path than its
// content gives, and no output that is known before building is said to be elsewhere than where the recipe puts it.
type Graph struct {
	drvs   map[string]*Derivation
	order  []string // each after what it needs
	modulo map[string]modulo
}

// modulo is what a derivation counts as in the hash of those who need it.
type modulo struct {
	sum      digest.SHA256            // of all kinds but Fixed
	masked   digest.SHA256            // the same without the paths of its outputs
	outputs  map[string]digest.SHA256 // of a Fixed one, by output
	deferred bool                     // outputs are not known before building
}

// MaxGraph bounds the derivations of a graph. All of a NixOS system are some 30,000.
const MaxGraph = 1 << 18

// PathError says that something is not at the path that its own content or recipe gives: a file was changed, or lies.
type PathError struct {
	What string // "derivation", or "output NAME of PATH"
	Path string // where it is said to be
	Want string // where it belongs
}

func (e *PathError) Error() string {
	return fmt.Sprintf("%s is not what its path says: it is at %q, but belongs at %s", e.What, e.Path, e.Want)
}

// Load reads top and everything that it needs by read, which returns the content of the .drv file at a store path.
func Load(top string, read func(path string) ([]byte, error)) (*Graph, error) {
	g := &Graph{drvs: map[string]*Derivation{}, modulo: map[string]modulo{}}
	for todo := []string{top}; len(todo) > 0; {
		path := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if g.drvs[path] != nil {
			continue
		}
		if len(g.drvs) == MaxGraph {
			return nil, fmt.Errorf("read derivations of %s: more than %d", top, MaxGraph)
		}
		d, err := load(path, read)
		if err != nil {
			return nil, err
		}
		g.drvs[path] = d
		for _, in := range d.Inputs {
			todo = append(todo, in.Path)
		}
	}
	if err := g.sort(top); err != nil {
		return nil, err
	}
	for _, path := range g.order {
		if err := g.compute(path); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// load reads one file and checks that it is what its path says.
func load(path string, read func(string) ([]byte, error)) (*Derivation, error) {
	at, err := storepath.Parse(path)
	if err != nil {
		return nil, err
	}
	name, err := Name(path)
	if err != nil {
		return nil, err
	}
	data, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("read derivation %s: %w", path, err)
	}
	d, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	want, err := storepath.Text(at.Dir, name+Suffix, digest.Of(data), d.References())
	if err != nil {
		return nil, err
	}
	if want != at {
		return nil, &PathError{"derivation", path, want.String()}
	}
	return d, nil
}

// sort fills in order.
func (g *Graph) sort(top string) error {
	const open, done = 1, 2
	state := map[string]int{}
	stack := []string{top}
	for len(stack) > 0 {
		path := stack[len(stack)-1]
		switch state[path] {
		case 0:
			state[path] = open
			for _, in := range g.drvs[path].Inputs {
				switch state[in.Path] {
				case open:
					return fmt.Errorf("derivation %s needs itself", in.Path)
				case 0:
					stack = append(stack, in.Path)
				}
			}
		case open:
			state[path] = done
			g.order = append(g.order, path)
			fallthrough
		case done:
			stack = stack[:len(stack)-1]
		}
	}
	return nil
}

// compute checks the outputs of one derivation, whose inputs are computed already.
func (g *Graph) compute(path string) error {
	d := g.drvs[path]
	at, err := storepath.Parse(path)
	if err != nil {
		return err
	}
	name, err := Name(path)
	if err != nil {
		return err
	}
	if err := d.checkOutputs(path); err != nil {
		return err
	}
	if d.Kind() == Fixed {
		return g.computeFixed(path, at.Dir, name, d)
	}
	inputs, deferred, err := g.inputs(path, d)
	if err != nil {
		return err
	}
	var masked, plain writer
	masked.derivation(d, inputs, true)
	plain.derivation(d, inputs, false)
	g.modulo[path] = modulo{sum: digest.Of(plain.Bytes()), masked: digest.Of(masked.Bytes()), deferred: deferred || d.Kind() != InputAddressed}
	if d.Kind() != InputAddressed {
		return nil
	}
	if deferred {
		return fmt.Errorf("derivation %s names its outputs, although the names of its inputs are not known yet", path)
	}
	sum := g.modulo[path].masked
	for _, o := range d.Outputs {
		want, err := storepath.Output(at.Dir, name, o.Name, sum)
		if err != nil {
			return err
		}
		if want.String() != o.Path {
			return &PathError{fmt.Sprintf("output %s of %s", o.Name, path), o.Path, want.String()}
		}
	}
	return nil
}

func (g *Graph) computeFixed(path, dir, name string, d *Derivation) error {
	o := d.Outputs[0]
	method, algo := o.Address()
	want, err := storepath.Fixed(dir, storepath.OutputName(name, o.Name), method, algo, o.Hash)
	if err != nil {
		return fmt.Errorf("derivation %s: %w", path, err)
	}
	if want.String() != o.Path {
		return &PathError{fmt.Sprintf("output %s of %s", o.Name, path), o.Path, want.String()}
	}
	sum := digest.Of([]byte("fixed:out:" + o.Algo + ":" + o.Hash + ":" + o.Path))
	g.modulo[path] = modulo{outputs: map[string]digest.SHA256{o.Name: sum}}
	return nil
}

// inputs returns the inputs with hashes in place of paths, merged and sorted, and whether the names of any are not known yet.
func (g *Graph) inputs(path string, d *Derivation) ([]Input, bool, error) {
	deferred := false
	byHash := map[string]map[string]bool{}
	for _, in := range d.Inputs {
		if len(in.Dynamic) > 0 {
			deferred = true
		}
		m := g.modulo[in.Path]
		deferred = deferred || m.deferred
		for _, name := range in.Outputs {
			if _, ok := g.drvs[in.Path].Output(name); !ok {
				return nil, false, fmt.Errorf("derivation %s needs the output %q, which %s does not have", path, name, in.Path)
			}
			sum := m.sum
			if m.outputs != nil {
				sum = m.outputs[name]
			}
			if byHash[sum.Hex()] == nil {
				byHash[sum.Hex()] = map[string]bool{}
			}
			byHash[sum.Hex()][name] = true
		}
	}
	var inputs []Input
	for _, hash := range slices.Sorted(maps.Keys(byHash)) {
		inputs = append(inputs, Input{Path: hash, Outputs: slices.Sorted(maps.Keys(byHash[hash]))})
	}
	return inputs, deferred, nil
}

// checkOutputs wants all outputs to be of one kind.
func (d *Derivation) checkOutputs(path string) error {
	if d.Kind() == Fixed && len(d.Outputs) > 1 {
		return fmt.Errorf("derivation %s has %d outputs, although its content is fixed", path, len(d.Outputs))
	}
	for _, o := range d.Outputs {
		one := Derivation{Outputs: []Output{o}}
		if one.Kind() != d.Kind() || one.Kind() == ContentAddressed && o.Path != "" {
			return fmt.Errorf("derivation %s has outputs of several kinds", path)
		}
	}
	return nil
}

// Address splits the content address of an output into method and algorithm.
func (o Output) Address() (storepath.Method, string) {
	for _, m := range []storepath.Method{storepath.Recursive, storepath.ByText, storepath.ByGit} {
		if algo, ok := strings.CutPrefix(o.Algo, string(m)); ok {
			return m, algo
		}
	}
	return storepath.Flat, o.Algo
}

// RealisationID returns the hash that names a derivation's outputs in the realisations of Nix until 2.34; zero for one of a fixed content.
func (g *Graph) RealisationID(path string) digest.SHA256 { return g.modulo[path].masked }

// Derivation returns one derivation of the graph; nil if it is not there.
func (g *Graph) Derivation(path string) *Derivation { return g.drvs[path] }

// Paths returns the paths of all derivations, each after those that it needs.
func (g *Graph) Paths() []string { return slices.Clone(g.order) }

// Sources returns all sources of all derivations, sorted.
func (g *Graph) Sources() []string {
	all := map[string]bool{}
	for _, d := range g.drvs {
		for _, s := range d.Sources {
			all[s] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Wanted is an output that some derivation of a graph needs.
type Wanted struct {
	Drv    string
	Output string
}

// Wanted returns every output that some derivation needs, sorted by derivation and name. Outputs of derivations that are outputs
// themselves are not among them.
func (g *Graph) Wanted() []Wanted {
	all := map[Wanted]bool{}
	for _, d := range g.drvs {
		for _, in := range d.Inputs {
			for _, name := range in.Outputs {
				all[Wanted{in.Path, name}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b Wanted) int {
		return cmp.Or(strings.Compare(a.Drv, b.Drv), strings.Compare(a.Output, b.Output))
	})
}
