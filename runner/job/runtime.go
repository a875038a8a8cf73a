package job

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"arch.network/attest/manifest"
	"arch.network/runner"
	"arch.network/runner/closure"
	"arch.network/runner/oci"
)

// WorkerMemory is what a module's process may use beside the module's own memories: the engine, and the compiler's
// work for large modules (measured: 110 MiB for a module of 2.6 MB).
const WorkerMemory = 512 << 20

// wasm derives a module.
func (d *derivation) wasm() error {
	s := &d.doc.Spec
	m := &runner.Module{
		Path: ModulePath, Args: append([]string{d.doc.Metadata.Name}, s.Args...), Env: d.environment(),
		Entry: s.Entry, Gas: uint64(max(s.Resources.Gas, 0)), Interpret: d.options.Interpret,
	}
	switch p := d.content.Program; {
	case p.Module != "" && s.Module == "":
		d.spec.Mounts = append(d.spec.Mounts, runner.Mount{Kind: runner.Bind, Source: p.Module, Target: ModulePath})
	case p.Image != nil && s.Module != "":
		d.spec.Mounts = append(d.spec.Mounts, runner.Mount{Kind: runner.Bind, Source: p.Image.Dir, Target: "/"})
		m.Path = s.Module
	case p.Image != nil:
		return d.errorf("add spec.module, such as /app/main.wasm", "its image holds files, but it does not say which one is the module")
	case s.Module != "":
		return d.errorf("leave out spec.module", "spec.module names %s inside the image, but the image is the module itself", s.Module)
	default:
		return d.errorf("", "there is no module among its content")
	}
	d.reuse(m)
	if err := d.boundModule(m); err != nil {
		return err
	}
	if s.Determinism.Clock != manifest.ClockReal {
		start := Start(d.doc)
		m.Clock = &start
	}
	if s.Determinism.Randomness != manifest.RandomReal {
		seed := Seed(d.options.ID)
		m.Seed = &seed
	}
	if len(s.Inputs) > 0 {
		m.Dirs = append(m.Dirs, runner.Dir{Path: InputsDir, As: InputsDir})
	}
	m.Dirs = append(m.Dirs, runner.Dir{Path: OutputsDir, As: OutputsDir, Writable: true}, runner.Dir{Path: TmpDir, As: TmpDir, Writable: true})
	for _, p := range d.paths() {
		m.Dirs = append(m.Dirs, runner.Dir{Path: p.path, As: p.path, Writable: p.writable})
	}
	d.spec.Module = m
	return nil
}

// OwnProcess is what Policy.spec.degradations and a receipt call the guarantee that no other job was in a job's process before.
const OwnProcess = "own-process"

// reuse says what a pool may do for the module: know it by its pin, and, where the policy allows it by name, keep the process that
// ran it for the next job of the same owner. A job that belongs to nobody has a process of its own.
func (d *derivation) reuse(m *runner.Module) {
	if ref := d.doc.Spec.Image; d.content.Program.Module != "" && (ref.Scheme == manifest.RefURL || ref.Scheme == manifest.RefModel) {
		m.Digest = ref.Digest
	}
	if slices.Contains(d.options.Policy.Spec.Degradations, OwnProcess) {
		m.Reuse = d.doc.Metadata.Owner
	}
}

// boundModule sets what a module may use. Its own memory limit is what the document says and nothing else, since a module
// sees it: a policy's bound must not change what a job computes, so that is put on the process.
func (d *derivation) boundModule(m *runner.Module) error {
	memory, err := d.doc.Spec.Resources.Memory.Bytes()
	if err != nil {
		return d.errorf("", "resources.memory: %v", err)
	}
	m.Memory = memory
	if d.spec.Limits.Memory > 0 {
		d.spec.Limits.Memory += WorkerMemory
	}
	if gas, err := Gas(d.doc, d.options.Policy); err != nil {
		return d.errorf("", "resources.gas: %v", err)
	} else if gas > 0 {
		m.Gas = gas
	}
	return nil
}

// image derives the program of an OCI image: see oci.Spec for what of its configuration is honoured.
func (d *derivation) image() error {
	img := d.content.Program.Image
	if img == nil {
		return d.errorf("", "there is no image among its content")
	}
	s := &d.doc.Spec
	spec, err := oci.Spec(*img, oci.Run{Program: s.Module, Args: s.Args, Env: d.variables(nil)})
	if err != nil {
		return fmt.Errorf("derive job %s: %w", d.doc.Metadata.Name, err)
	}
	d.spec.Commands, d.spec.Mounts, d.spec.UID, d.spec.GID = spec.Commands, spec.Mounts, spec.UID, spec.GID
	return nil
}

// closure derives a program of a store closure: spec.module, or else bin/NAME, where NAME is that of the package.
func (d *derivation) closure() error {
	s := &d.doc.Spec
	own := s.Image.Location
	for _, p := range d.content.Program.Closure {
		if path.Dir(p.StorePath) != path.Dir(own) || path.Clean(p.StorePath) != p.StorePath {
			return d.errorf("", "closure path %q is not in %s", p.StorePath, path.Dir(own))
		}
	}
	if !slices.ContainsFunc(d.content.Program.Closure, func(p closure.Path) bool { return p.StorePath == own }) {
		return d.errorf("", "its closure does not hold %s", own)
	}
	program := s.Module
	if program == "" {
		program = path.Join("/bin", packageName(own))
	}
	env := d.variables(map[string]string{"PATH": path.Join(own, "bin"), "HOME": TmpDir})
	spec, err := closure.Spec(d.content.Program.Closure, closure.Run{Top: own, Program: program, Args: s.Args, Env: env})
	if err != nil {
		return fmt.Errorf("derive job %s: %w", d.doc.Metadata.Name, err)
	}
	d.spec.Commands, d.spec.Mounts = spec.Commands, spec.Mounts
	return nil
}

// packageName is the name of a store path without its hash and version, as Nix's getName tells them apart: the version
// begins at the first '-' that is followed by a digit. "/nix/store/HASH-hello-2.12.1" is "hello".
func packageName(storePath string) string {
	_, name, _ := strings.Cut(path.Base(storePath), "-")
	for i := range len(name) - 1 {
		if next := name[i+1]; name[i] == '-' && next >= '0' && next <= '9' {
			return name[:i]
		}
	}
	return name
}
