package job

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"arch.network/attest/manifest"
	"arch.network/runner"
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
	if gas, err := effectiveGas(d.doc, d.options.Policy); err != nil {
		return d.errorf("", "resources.gas: %v", err)
	} else if gas > 0 {
		m.Gas = gas
	}
	return nil
}

// image derives the program of an OCI image.
func (d *derivation) image() error {
	img := d.content.Program.Image
	if img == nil {
		return d.errorf("", "there is no image among its content")
	}
	s := &d.doc.Spec
	argv := slices.Concat(img.Entrypoint, img.Cmd)
	switch {
	case s.Module != "":
		argv = append([]string{s.Module}, s.Args...)
	case len(s.Args) > 0:
		argv = slices.Concat(img.Entrypoint, s.Args)
	}
	if len(argv) == 0 {
		return d.errorf("name the program in spec.module", "the image says no entrypoint or command")
	}
	uid, gid, err := d.user(img.User)
	if err != nil {
		return err
	}
	d.spec.UID, d.spec.GID = uid, gid
	dir := img.WorkingDir
	if dir != "" && (!path.IsAbs(dir) || path.Clean(dir) != dir) {
		return d.errorf("", "the image's working directory %q is no clean absolute path", dir)
	}
	env := append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + TmpDir}, img.Env...)
	d.spec.Mounts = append(d.spec.Mounts, runner.Mount{Kind: runner.Bind, Source: img.Dir, Target: "/"})
	d.spec.Commands = []runner.Command{{Argv: argv, Env: d.environment(env, d.content.Devices.Env), Dir: dir}}
	return nil
}

// maxUID bounds the ids that an image may ask for: larger ones are reserved or no ids at all.
const maxUID = 1<<31 - 2

// user reads an image's user. Root becomes the runner's ordinary user: inside there is nothing that root could do. Names
// are refused, since they mean what a file of the image says.
func (d *derivation) user(text string) (uid, gid int, err error) {
	if text == "" || text == "root" || text == "root:root" {
		return 0, 0, nil
	}
	user, group, hasGroup := strings.Cut(text, ":")
	uid, errUser := strconv.Atoi(user)
	if hasGroup {
		gid, err = strconv.Atoi(group)
	}
	if errUser != nil || err != nil || uid < 0 || gid < 0 || uid > maxUID || gid > maxUID {
		return 0, 0, d.errorf("build the image with USER UID:GID in numbers", "the image's user %q is not in numbers from 0 to %d", text, maxUID)
	}
	return uid, gid, nil
}

// closure derives a program of a store closure.
func (d *derivation) closure() error {
	s := &d.doc.Spec
	own := s.Image.Location
	found := false
	paths := slices.Clone(d.content.Program.Closure)
	slices.SortFunc(paths, func(a, b ClosurePath) int { return strings.Compare(a.StorePath, b.StorePath) })
	store := path.Dir(own)
	for _, p := range paths {
		if path.Dir(p.StorePath) != store || path.Clean(p.StorePath) != p.StorePath {
			return d.errorf("", "closure path %q is not in %s", p.StorePath, store)
		}
		found = found || p.StorePath == own
		d.spec.Mounts = append(d.spec.Mounts, runner.Mount{Kind: runner.Bind, Source: p.Source, Target: p.StorePath})
	}
	if !found {
		return d.errorf("", "its closure does not hold %s", own)
	}
	program := path.Join(own, "bin", packageName(own))
	if s.Module != "" {
		program = path.Join(own, s.Module)
	}
	env := []string{"PATH=" + path.Join(own, "bin"), "HOME=" + TmpDir}
	d.spec.Commands = []runner.Command{{Argv: append([]string{program}, s.Args...), Env: d.environment(env, d.content.Devices.Env)}}
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
