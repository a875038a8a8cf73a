package manifest

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
	Platform string `json:"platform"`
	// SourceDateEpoch is the one clock of the build, in Unix seconds: SOURCE_DATE_EPOCH and every file time.
	SourceDateEpoch int64             `json:"sourceDateEpoch"`
	Inputs          []BuildInput      `json:"inputs"`
	Env             map[string]string `json:"env,omitempty"` // for every step; beats the builder's defaults
	Steps           []BuildStep       `json:"steps"`
	Outputs         []BuildOutput     `json:"outputs"`
	Limits          BuildLimits       `json:"limits,omitzero"`
}

// BuildInput is one tree or file that the build sees. Exactly one of Ref, Path and GoModules is set.
type BuildInput struct {
	Name string `json:"name"` // unique in the build
	// Ref pins what is fetched.
	Ref Ref `json:"ref,omitzero"`
	// Path is a local file or tree, relative to the manifest. The receipt pins it by its NAR hash.
	Path   string   `json:"path,omitempty"`
	Ignore []string `json:"ignore,omitempty"` // for Path: gitignore-style patterns of what to leave out
	// GoModules is the complete dependency set of a Go module, by the go.sum of another input.
	GoModules *GoModules `json:"goModules,omitempty"`
	// Mount is the absolute path in the sandbox. "/" is the root file system (for an OCI image or an unpacked tree).
	Mount string `json:"mount"`
	// Writable gives the build a private copy instead of the read-only original. Only below /build.
	Writable bool `json:"writable,omitempty"`
	// Unpack says what to do with a fetched file: "" leaves it as it is, or "tar" (gzip, xz, zstd or plain), "zip", "deb".
	Unpack string `json:"unpack,omitempty"`
	// Strip drops that many leading path elements while unpacking.
	Strip int `json:"strip,omitempty"`
}

// GoModules names the go.sum that pins a module cache.
type GoModules struct {
	Of  string `json:"of"`            // name of the input that holds go.mod and go.sum
	Dir string `json:"dir,omitempty"` // directory within it; empty: its root
}

// BuildStep is one command. There is no shell unless argv names one.
type BuildStep struct {
	Name string            `json:"name,omitempty"`
	Argv []string          `json:"argv"`
	Dir  string            `json:"dir,omitempty"` // absolute; empty: /build
	Env  map[string]string `json:"env,omitempty"`
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

// BuildOutput is something the build must leave behind.
type BuildOutput struct {
	Name string     `json:"name"` // unique; the artifact's file name
	Path string     `json:"path"` // absolute path in the sandbox
	Type OutputType `json:"type"`
	// Image is the runtime configuration of an OutputOCI.
	Image *BuildImage `json:"image,omitempty"`
}

// BuildImage is the configuration of an OCI output (image-spec, config.md).
type BuildImage struct {
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	User       string            `json:"user,omitempty"`
	WorkingDir string            `json:"workingDir,omitempty"`
}

// BuildLimits bound a build. Zero values mean the builder's defaults.
type BuildLimits struct {
	TimeSeconds int64    `json:"timeSeconds,omitempty"`
	Memory      Quantity `json:"memory,omitempty"`
	Scratch     Quantity `json:"scratch,omitempty"` // size of the writable file systems
	Output      Quantity `json:"output,omitempty"`  // size of each output
	Processes   int      `json:"processes,omitempty"`
}
