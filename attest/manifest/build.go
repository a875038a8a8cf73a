package manifest

import (
	"fmt"
	"strings"
)

// Build says how an artifact is made from pinned inputs. See builder for what becomes of it.
type Build struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   Metadata    `json:"metadata"`
	Spec       BuildSpec   `json:"spec"`
	Signatures []Signature `json:"signatures,omitempty"`
}

// BuildSpec is the body of a Build.
type BuildSpec struct {
	// Platform is what the outputs are made on, as GOOS/GOARCH; only "linux/amd64" and "linux/arm64" exist.
	Platform string `json:"platform" schema:"enum=linux/amd64|linux/arm64"`
	// SourceDateEpoch is the one clock of the build, in Unix seconds: SOURCE_DATE_EPOCH and every file time.
	// At most the end of the year 9999.
	SourceDateEpoch int64 `json:"sourceDateEpoch" schema:"min=0 max=253402300799" example:"1767225600"`
	// Derivation says that Nix or Guix builds it. Then outputs are all that is beside it: the derivation has everything else.
	Derivation *BuildDerivation `json:"derivation,omitempty"`
	// Inputs are everything that the build sees: each is mounted read-only, and nothing else exists. Needed without a derivation.
	Inputs []BuildInput `json:"inputs,omitempty"`
	// Env is the environment of every step; it beats the builder's defaults. SOURCE_DATE_EPOCH is the builder's.
	Env map[string]string `json:"env,omitempty" schema:"keys=env"`
	// Steps are the commands, run in order; the first that fails ends the build. Needed without a derivation.
	Steps []BuildStep `json:"steps,omitempty"`
	// Outputs are what the build must leave behind.
	Outputs []BuildOutput `json:"outputs"`
	// Limits bound the build.
	Limits BuildLimits `json:"limits,omitzero"`
}

// BuildDerivation is a recipe of a Nix or Guix store. Its path is the hash of all that it says; what it was evaluated from is said beside it.
type BuildDerivation struct {
	// Ref pins the .drv file by its NAR hash.
	Ref Ref `json:"ref"`
	// Flakes are the flake that it was evaluated from, first, and the inputs that are locked for that. Empty: it was not
	// evaluated from a flake. Guix has none.
	Flakes []BuildFlake `json:"flakes,omitempty"`
	// Attribute is the part of the first flake that it is; empty: the default.
	Attribute string `json:"attribute,omitempty" schema:"maxLen=1024" example:"packages.x86_64-linux.agent"`
}

// BuildFlake is a tree that Nix expressions were read from, with what Nix tells them of it.
type BuildFlake struct {
	// Ref names the tree by its NAR hash.
	Ref Ref `json:"ref"`
	// URL is where it may be found, locked; empty if it was found on the machine of whoever evaluated it. It is a hint like Rev: whoever
	// rebuilds from the tree does not vouch for where it came from.
	URL string `json:"url,omitempty" schema:"maxLen=2048" example:"github:NixOS/nixpkgs/34268251cf5547d39063f2c5ea9a196246f7f3a6"`
	// Dir is the directory within the tree that holds flake.nix; empty: its root.
	Dir string `json:"dir,omitempty" schema:"maxLen=1024"`
	// Rev is the revision in its version control.
	Rev string `json:"rev,omitempty" schema:"maxLen=64"`
	// RevCount is the number of revisions before it and including it.
	RevCount int64 `json:"revCount,omitempty" schema:"min=0 max=9007199254740991"`
	// LastModified is the time of the revision in Unix seconds.
	LastModified int64 `json:"lastModified,omitempty" schema:"min=0 max=253402300799"`
}

// BuildInput is one tree or file that the build sees. Exactly one of Ref, Path and GoModules is set.
type BuildInput struct {
	// Name is unique among the inputs.
	Name string `json:"name" schema:"pattern=filename" example:"source"`
	// Ref pins what is fetched.
	Ref Ref `json:"ref,omitzero"`
	// Path is a local file or tree, relative to the manifest. The receipt pins it by its NAR hash.
	Path string `json:"path,omitempty" schema:"maxLen=1024" example:"../src"`
	// Ignore holds gitignore-style patterns of what to leave out; only for path.
	Ignore []string `json:"ignore,omitempty" schema:"maxLen=256"`
	// GoModules is the complete dependency set of a Go module, by the go.sum of another input.
	GoModules *GoModules `json:"goModules,omitempty"`
	// Mount is the absolute path in the sandbox. "/" is the root file system (for an OCI image or an unpacked tree).
	Mount string `json:"mount" schema:"pattern=abspath" example:"/build/src"`
	// Writable gives the build a private copy instead of the read-only original. Only below /build.
	Writable bool `json:"writable,omitempty"`
	// Unpack says what to do with a fetched file: "" leaves it as it is, or "tar" (gzip, xz, zstd or plain), "zip", "deb".
	Unpack string `json:"unpack,omitempty" schema:"enum=tar|zip|deb"`
	// Strip drops that many leading path elements while unpacking.
	Strip int `json:"strip,omitempty" schema:"min=0 max=32"`
}

// GoModules names the go.sum that pins a module cache.
type GoModules struct {
	// Of is the name of the input that holds go.mod and go.sum.
	Of string `json:"of" schema:"pattern=filename" example:"source"`
	// Dir is the directory within that input. Empty: its root.
	Dir string `json:"dir,omitempty" schema:"maxLen=1024"`
}

// BuildStep is one command. There is no shell unless argv names one.
type BuildStep struct {
	// Name names the step in logs.
	Name string `json:"name,omitempty" schema:"pattern=filename" example:"compile"`
	// Argv is the program, as a path or a name looked up in PATH, and its arguments.
	Argv []string `json:"argv" schema:"maxLen=32768"`
	// Dir is the working directory, absolute. Empty: /build.
	Dir string `json:"dir,omitempty" schema:"pattern=abspath"`
	// Env is the environment of this step; it beats the one of the build.
	Env map[string]string `json:"env,omitempty" schema:"keys=env"`
}

// OutputType says what an output is.
type OutputType string

// The types of outputs.
const (
	OutputFile OutputType = "file" // one regular file
	OutputTree OutputType = "tree" // a directory
	OutputTar  OutputType = "tar"  // a directory, delivered as a normalised tar
	OutputOCI  OutputType = "oci"  // a directory, delivered as an OCI image layout with one layer
	OutputWasm OutputType = "wasm" // one WebAssembly module
)

func (OutputType) values() []string {
	return texts(OutputFile, OutputTree, OutputTar, OutputOCI, OutputWasm)
}

// BuildOutput is something the build must leave behind.
type BuildOutput struct {
	// Name is unique among the outputs; it is the artifact's file name.
	Name string `json:"name" schema:"pattern=filename" example:"hello"`
	// Path is the absolute path in the sandbox, below /build. Not of a derivation's output.
	Path string `json:"path,omitempty" schema:"pattern=abspath" example:"/build/hello"`
	// Of is the derivation's output that it is.
	Of string `json:"of,omitempty" schema:"pattern=filename" example:"out"`
	// Type says what the output is.
	Type OutputType `json:"type"`
	// Image is the runtime configuration of an output of type oci.
	Image *BuildImage `json:"image,omitempty"`
}

// BuildImage is the configuration of an OCI output (image-spec, config.md).
type BuildImage struct {
	// Entrypoint is the program that the image runs, with its first arguments.
	Entrypoint []string `json:"entrypoint,omitempty"`
	// Cmd are further arguments, which whoever runs the image may replace.
	Cmd []string `json:"cmd,omitempty"`
	// Env is the environment of the program.
	Env map[string]string `json:"env,omitempty" schema:"keys=env"`
	// User is who the program runs as: UID, UID:GID, or names of the image's own user database.
	User string `json:"user,omitempty" schema:"pattern=imageUser" example:"65532:65532"`
	// WorkingDir is the program's working directory, absolute.
	WorkingDir string `json:"workingDir,omitempty" schema:"pattern=abspath"`
}

// BuildLimits bound a build. Zero values mean the builder's defaults.
type BuildLimits struct {
	// TimeSeconds is the longest time that all steps together may take; at most a week.
	TimeSeconds int64 `json:"timeSeconds,omitempty" schema:"min=0 max=604800"`
	// Memory is the most memory of all processes together.
	Memory Quantity `json:"memory,omitempty" example:"8Gi"`
	// Scratch is the size of the writable file systems.
	Scratch Quantity `json:"scratch,omitempty" example:"16Gi"`
	// Output is the size of each output.
	Output Quantity `json:"output,omitempty" example:"1Gi"`
	// Processes is the most processes and threads at one time.
	Processes int `json:"processes,omitempty" schema:"min=0 max=65536"`
}

// DocumentKind returns "Build".
func (*Build) DocumentKind() string { return "Build" }

// Head returns the document's metadata.
func (b *Build) Head() *Metadata { return &b.Metadata }

// Validate checks the fields and how they fit together.
func (b *Build) Validate() error { return validate(b) }

// buildDir is the one writable place of a build, beside a private /tmp.
const buildDir = "/build"

// reservedEnv is set by the builder from sourceDateEpoch: a second value would be a second clock.
const reservedEnv = "SOURCE_DATE_EPOCH"

// reservedMounts are made by the sandbox itself.
var reservedMounts = []string{"/dev", "/proc", "/sys", "/tmp"}

func (b *Build) related(p *problems) {
	if b.Spec.Derivation != nil {
		b.relateDerivation(p)
		return
	}
	if len(b.Spec.Inputs) == 0 {
		p.add("spec.inputs", "", "missing")
	}
	if len(b.Spec.Steps) == 0 {
		p.add("spec.steps", "", "missing")
	}
	relateBuildInputs(p, b.Spec.Inputs)
	checkReservedEnv(p, "spec.env", b.Spec.Env)
	for i, s := range b.Spec.Steps {
		at := fmt.Sprintf("spec.steps[%d]", i)
		checkReservedEnv(p, at+".env", s.Env)
		if len(s.Argv) > 0 && s.Argv[0] == "" {
			p.add(at+".argv[0]", "name the program to run", "empty")
		}
	}
	relateBuildOutputs(p, b.Spec.Outputs, b.Spec.Inputs)
	for _, q := range []struct {
		name  string
		value Quantity
	}{{"memory", b.Spec.Limits.Memory}, {"scratch", b.Spec.Limits.Scratch}, {"output", b.Spec.Limits.Output}} {
		checkBytes(p, "spec.limits."+q.name, q.value)
	}
}

// relateDerivation refuses what a derivation says itself, and what is no derivation of a Nix or Guix store.
func (b *Build) relateDerivation(p *problems) {
	d := b.Spec.Derivation
	guix := strings.HasPrefix(d.Ref.Location, "/gnu/store/")
	if d.Ref.Scheme != RefStore || !guix && !strings.HasPrefix(d.Ref.Location, "/nix/store/") || !strings.HasSuffix(d.Ref.Location, ".drv") {
		p.add("spec.derivation.ref", "write /nix/store/HASH-NAME.drv#sha256-…, or the like of /gnu/store", "%q is no derivation of a Nix or Guix store", d.Ref.String())
	}
	if guix && len(d.Flakes) > 0 {
		p.add("spec.derivation.flakes", "leave it out", "no derivation of Guix comes from a flake")
	}
	for i, f := range d.Flakes {
		if f.Ref.Scheme != RefTree {
			p.add(fmt.Sprintf("spec.derivation.flakes[%d].ref", i), "write tree:NAME#sha256-…", "%q is no tree", f.Ref.String())
		}
	}
	if len(d.Flakes) == 0 && d.Attribute != "" {
		p.add("spec.derivation.attribute", "name the flake that has it", "without flakes there is nothing that it is an attribute of")
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"inputs", len(b.Spec.Inputs) > 0}, {"env", len(b.Spec.Env) > 0}, {"steps", len(b.Spec.Steps) > 0}, {"limits", b.Spec.Limits != BuildLimits{}},
	} {
		if f.set {
			p.add("spec."+f.name, "leave it out", "the derivation says how it is built")
		}
	}
	outputs := map[string]int{}
	relateOutputNames(p, b.Spec.Outputs)
	for i, out := range b.Spec.Outputs {
		at := fmt.Sprintf("spec.outputs[%d]", i)
		first, dup := outputs[out.Of]
		switch {
		case out.Of == "":
			p.add(at+".of", "such as of: out", "missing")
		case dup:
			p.add(at+".of", "", "spec.outputs[%d] is the output %q already", first, out.Of)
		case out.Path != "":
			p.add(at+".path", "leave it out", "the derivation says where its outputs are")
		case out.Type != OutputFile && out.Type != OutputTree:
			p.add(at+".type", "one of file, tree", "an output of a derivation is no %s", out.Type)
		}
		outputs[out.Of] = i
	}
}

func checkReservedEnv(p *problems, path string, env map[string]string) {
	if _, ok := env[reservedEnv]; ok {
		p.add(join(path, reservedEnv), "set spec.sourceDateEpoch instead", "%s is set by the builder", reservedEnv)
	}
}

// checkBytes wants a whole, positive number of bytes or nothing.
func checkBytes(p *problems, path string, q Quantity) {
	if q == "" || q.Validate() != nil { // a bad quantity is reported already
		return
	}
	if n, err := q.Bytes(); err != nil {
		p.wrap(path, err)
	} else if n == 0 {
		p.add(path, "leave the field out for the default", "a limit of %q allows nothing", string(q))
	}
}

func relateBuildInputs(p *problems, inputs []BuildInput) {
	names := map[string]int{}
	for i, in := range inputs {
		at := fmt.Sprintf("spec.inputs[%d]", i)
		if first, dup := names[in.Name]; dup {
			p.add(at+".name", "give each input its own name", "spec.inputs[%d] has the name %q already", first, in.Name)
		} else {
			names[in.Name] = i
		}
		in.relate(p, at)
	}
	for i, in := range inputs {
		at := fmt.Sprintf("spec.inputs[%d]", i)
		if in.GoModules != nil {
			relateGoModules(p, at, in, inputs, names)
		}
		for j, other := range inputs[:i] {
			relateMounts(p, at, in, j, other)
		}
	}
}

// relate checks the input's fields against each other.
func (in *BuildInput) relate(p *problems, at string) {
	set := 0
	for _, is := range []bool{!in.Ref.IsZero(), in.Path != "", in.GoModules != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		p.add(at, "set one of them; an input is fetched, local, or a module set", "%d of ref, path and goModules are set; want exactly one", set)
	}
	if strings.HasPrefix(in.Path, "/") {
		p.add(at+".path", "write the path relative to the manifest", "%q is absolute, so it would name another place on another machine", in.Path)
	} else if in.Path != "" && !cleanUpward(in.Path) {
		p.add(at+".path", "write it without empty, '.' or inner '..' elements and without a slash at the end", "%q is not a clean path", in.Path)
	}
	if len(in.Ignore) > 0 && in.Path == "" {
		p.add(at+".ignore", "", "only a local input (path) can leave files out")
	}
	if in.Unpack != "" && !in.unpackable() {
		p.add(at+".unpack", "leave unpack out", "only a file can be unpacked; this input is a tree already")
	}
	if in.Strip != 0 && in.Unpack == "" {
		p.add(at+".strip", "", "only an input that is unpacked can lose leading path elements")
	}
	in.relateMount(p, at)
}

// unpackable reports whether the input can be a single file.
func (in *BuildInput) unpackable() bool {
	switch in.Ref.Scheme {
	case RefURL, RefModel, RefCID:
		return true
	}
	return in.Path != ""
}

func (in *BuildInput) relateMount(p *problems, at string) {
	for _, dir := range reservedMounts {
		if within(in.Mount, dir) {
			p.add(at+".mount", "choose another place, such as "+buildDir+"/"+in.Name, "%s belongs to the sandbox", dir)
		}
	}
	switch {
	case in.Mount == buildDir:
		p.add(at+".mount", "mount the input below it, such as "+buildDir+"/"+in.Name, "%s is the build's own writable directory", buildDir)
	case in.Writable && !within(in.Mount, buildDir):
		p.add(at+".writable", "mount it below "+buildDir, "only an input below %s can be writable; this one is at %q", buildDir, in.Mount)
	}
}

func relateGoModules(p *problems, at string, in BuildInput, inputs []BuildInput, names map[string]int) {
	of, ok := names[in.GoModules.Of]
	switch {
	case !ok:
		p.add(at+".goModules.of", didYouMean(in.GoModules.Of, keysOf(names)), "there is no input %q", in.GoModules.Of)
	case inputs[of].GoModules != nil:
		p.add(at+".goModules.of", "name the input that holds go.mod and go.sum", "input %q is a module set itself", in.GoModules.Of)
	}
	if in.GoModules.Dir != "" && !cleanRelative(in.GoModules.Dir) {
		p.add(at+".goModules.dir", "write it relative to the input's root, without '.' and '..'", "%q is not a clean relative path", in.GoModules.Dir)
	}
}

// relateMounts refuses two inputs of which one would hide the other, or would need a mount point in a read-only tree.
// Everything may lie below "/", whose mount points the sandbox makes, and below a writable copy.
func relateMounts(p *problems, at string, in BuildInput, j int, other BuildInput) {
	inner, outer := in, other
	if within(other.Mount, in.Mount) {
		inner, outer = other, in
	}
	switch {
	case in.Mount == other.Mount:
		p.add(at+".mount", "mount each input at its own place", "spec.inputs[%d] is mounted at %q already", j, in.Mount)
	case within(inner.Mount, outer.Mount) && outer.Mount != "/" && !outer.Writable:
		p.add(at+".mount", "mount them side by side, or make the outer one writable", "%q lies inside the read-only input %q at %q", inner.Mount, outer.Name, outer.Mount)
	}
}

func relateBuildOutputs(p *problems, outputs []BuildOutput, inputs []BuildInput) {
	relateOutputNames(p, outputs)
	for i, out := range outputs {
		at := fmt.Sprintf("spec.outputs[%d]", i)
		if out.Image != nil && out.Type != OutputOCI {
			p.add(at+".image", "", "only an output of type oci has an image configuration")
		}
		if out.Of != "" {
			p.add(at+".of", "leave it out", "there is no derivation that it could be the output %q of", out.Of)
		}
		if out.Path == "" {
			p.add(at+".path", "such as path: /build/hello", "missing")
			continue
		}
		relateOutputPath(p, at, out, inputs)
	}
}

func relateOutputNames(p *problems, outputs []BuildOutput) {
	names := map[string]int{}
	for i, out := range outputs {
		at := fmt.Sprintf("spec.outputs[%d]", i)
		if first, dup := names[out.Name]; dup {
			p.add(at+".name", "give each output its own name", "spec.outputs[%d] has the name %q already", first, out.Name)
		}
		names[out.Name] = i
		if strings.HasSuffix(out.Name, ".jsonl") {
			p.add(at+".name", "choose another ending", "names ending in .jsonl are kept for receipts")
		}
	}
}

// relateOutputPath wants a place that the build can write and that holds no read-only input.
func relateOutputPath(p *problems, at string, out BuildOutput, inputs []BuildInput) {
	if out.Path == buildDir || !within(out.Path, buildDir) {
		p.add(at+".path", "let the steps write it below "+buildDir, "%q is not below the writable %s", out.Path, buildDir)
		return
	}
	for _, in := range inputs {
		switch {
		case in.Writable || in.Mount == "/":
		case within(out.Path, in.Mount):
			p.add(at+".path", "write the output elsewhere below "+buildDir, "%q lies inside the read-only input %q", out.Path, in.Name)
		case within(in.Mount, out.Path):
			p.add(at+".path", "write the output elsewhere below "+buildDir, "%q holds the read-only input %q", out.Path, in.Name)
		}
	}
}
