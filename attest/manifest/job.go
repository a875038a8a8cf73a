package manifest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"arch.network/attest/digest"
)

// Job asks for one confined execution of a pinned program on pinned inputs.
type Job struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   Metadata    `json:"metadata"`
	Spec       JobSpec     `json:"spec"`
	Signatures []Signature `json:"signatures,omitempty"`
}

// JobSpec is the body of a Job.
type JobSpec struct {
	// Image is the program: a WebAssembly module or an OCI image for runtime wasm, an OCI image for oci, a store path for
	// nix and guix.
	Image Ref `json:"image"`
	// Runtime says how the image is run.
	Runtime Runtime `json:"runtime"`
	// Module is the path of the WebAssembly module, or of the program, inside the image. Empty: the image itself, or what
	// its configuration says.
	Module string `json:"module,omitempty" schema:"pattern=abspath" example:"/app/main.wasm"`
	// Entry is the exported function that runtime wasm calls. Empty: _start.
	Entry string `json:"entry,omitempty" schema:"pattern=symbol" example:"_start"`
	// Args are the program's arguments, without its name.
	Args []string `json:"args,omitempty" schema:"maxLen=32768"`
	// Env is the program's environment, complete: nothing is inherited.
	Env map[string]string `json:"env,omitempty" schema:"keys=env"`
	// Resources are the most that the job may use.
	Resources JobResources `json:"resources,omitzero"`
	// Capabilities are what the job may reach beside its inputs and outputs. Empty: nothing.
	Capabilities Capabilities `json:"capabilities,omitzero"`
	// Inputs are found by the job, read-only, at /inputs/NAME.
	Inputs map[string]Ref `json:"inputs,omitempty" schema:"keys=filename"`
	// Outputs are what the job must leave at /outputs/NAME, and where each goes.
	Outputs map[string]Target `json:"outputs,omitempty" schema:"keys=filename"`
	// Expected are the NAR hashes that the outputs must have, by the outputs' names.
	Expected map[string]digest.SHA256 `json:"expected,omitempty" schema:"keys=filename"`
	// Placement says where the job may run.
	Placement Placement `json:"placement,omitzero"`
	// Determinism says what clock and randomness the job sees.
	Determinism Determinism `json:"determinism,omitzero"`
	// Checkpointable says that the module was instrumented, so that it can be stopped, stored and resumed.
	Checkpointable bool `json:"checkpointable,omitempty"`
	// Replicas is how many independent executions must agree. Zero and 1: one execution.
	Replicas int `json:"replicas,omitempty" schema:"min=0 max=64"`
	// Timeout is the longest time that an execution may take. Empty: the policy's.
	Timeout Duration `json:"timeout,omitempty" example:"30m"`
	// Retries is how often an execution that could not be finished may be tried again. A wrong result is never retried.
	Retries int `json:"retries,omitempty" schema:"min=0 max=16"`
	// Priority orders the jobs of one owner: higher runs first.
	Priority int `json:"priority,omitempty" schema:"min=-100 max=100"`
	// Audience names the nodes or pools that may accept the job, by identity or name. Empty: any.
	Audience []string `json:"audience,omitempty" schema:"pattern=audience"`
	// NotBefore is the time before which the job must not run, RFC 3339 in UTC to the second. metadata.expires is the end.
	NotBefore string `json:"notBefore,omitempty" schema:"pattern=time" example:"2026-01-31T12:00:00Z"`
	// Nonce makes two otherwise equal jobs different documents.
	Nonce string `json:"nonce,omitempty" schema:"pattern=nonce"`
	// Signature is the signature of the only signer. Several stand in signatures, at the top level.
	Signature *Signature `json:"signature,omitempty"`
}

// Runtime says how a job's image is run.
type Runtime string

// The runtimes.
const (
	RuntimeWasm  Runtime = "wasm" // WebAssembly with WASI preview 1
	RuntimeOCI   Runtime = "oci"  // the program of an OCI image
	RuntimeNix   Runtime = "nix"  // a program in the closure of a Nix store path
	RuntimeGuix  Runtime = "guix" // a program in the closure of a Guix store path
	maxJobInputs         = 256    // inputs, and outputs, of a job
	inputsDir            = "/inputs"
	outputsDir           = "/outputs"
)

func (Runtime) values() []string { return texts(RuntimeWasm, RuntimeOCI, RuntimeNix, RuntimeGuix) }

// JobResources are upper bounds. Those left out are the policy's.
type JobResources struct {
	// CPU is in cores: "4", "500m".
	CPU Quantity `json:"cpu,omitempty" example:"4"`
	// Memory is in bytes.
	Memory Quantity `json:"memory,omitempty" example:"8Gi"`
	// GPU is in devices.
	GPU Quantity `json:"gpu,omitempty" example:"0"`
	// Scratch is the size of the writable file system, in bytes.
	Scratch Quantity `json:"scratch,omitempty" example:"1Gi"`
	// Output is the size of all outputs together, in bytes.
	Output Quantity `json:"output,omitempty" example:"100Mi"`
	// Processes is the most processes and threads at one time.
	Processes int `json:"processes,omitempty" schema:"min=0 max=65536"`
	// Gas is the most metered work of a WebAssembly module.
	Gas int64 `json:"gas,omitempty" schema:"min=0"`
	// PowerBudgetW is in watts: the job is slowed down rather than let it draw more.
	PowerBudgetW float64 `json:"powerBudgetW,omitempty" schema:"min=0 max=1000000" example:"80"`
}

// Capabilities are what a job may reach beside its inputs and outputs.
type Capabilities struct {
	// Net lists allowed outgoing connections: egress:PORT or egress:HOST:PORT, TCP unless /udp follows.
	Net []string `json:"net,omitempty" schema:"pattern=netCapability" example:"egress:443"`
	// FS lists allowed paths of the node: read:/PATH or write:/PATH, with everything below.
	FS []string `json:"fs,omitempty" schema:"pattern=fsCapability" example:"read:/datasets/wiki"`
	// Devices lists devices by their Container Device Interface names.
	Devices []string `json:"devices,omitempty" schema:"pattern=cdiDevice" example:"nvidia.com/gpu=0"`
}

// Placement says where a job may run.
type Placement struct {
	// Constraints must all hold.
	Constraints []Constraint `json:"constraints,omitempty"`
}

// Constraint compares one fact about a node with a value.
type Constraint struct {
	// Key names the fact: one that the node measures (node.os, node.arch, node.kernel, node.cpus, node.memory in bytes, and the lists
	// node.cpu_features and node.devices, of which == and in need one; node.driver, energy.meter), or one that its policy states, such as
	// energy.price_eur_kwh.
	Key string `json:"key" schema:"pattern=factKey" example:"energy.price_eur_kwh"`
	// Op is the comparison.
	Op Operator `json:"op"`
	// Value is what the fact is compared with: a number, a string, a boolean, or for in and not-in a list of those.
	Value Raw `json:"value" schema:"types=number|string|boolean|array"`
}

// Operator is a comparison.
type Operator string

// The operators.
const (
	OpEqual        Operator = "=="     // the same
	OpNotEqual     Operator = "!="     // not the same
	OpLess         Operator = "<"      // a smaller number
	OpLessEqual    Operator = "<="     // a smaller number or the same
	OpGreater      Operator = ">"      // a larger number
	OpGreaterEqual Operator = ">="     // a larger number or the same
	OpIn           Operator = "in"     // one of a list
	OpNotIn        Operator = "not-in" // none of a list
)

func (Operator) values() []string {
	return texts(OpEqual, OpNotEqual, OpLess, OpLessEqual, OpGreater, OpGreaterEqual, OpIn, OpNotIn)
}

// Determinism says what clock and randomness a job sees. The defaults make every execution the same.
type Determinism struct {
	// Clock is what the job sees as time. Empty: fixed.
	Clock ClockMode `json:"clock,omitempty"`
	// Randomness is where the job's random bytes come from. Empty: seeded.
	Randomness RandomMode `json:"randomness,omitempty"`
}

// ClockMode is a source of time.
type ClockMode string

// The clocks.
const (
	ClockFixed ClockMode = "fixed" // starts at metadata.created, or at 0, and advances with the work done
	ClockReal  ClockMode = "real"  // the node's
)

func (ClockMode) values() []string { return texts(ClockFixed, ClockReal) }

// RandomMode is a source of randomness.
type RandomMode string

// The sources of randomness.
const (
	RandomSeeded RandomMode = "seeded" // derived from the job's id
	RandomReal   RandomMode = "real"   // the node's
)

func (RandomMode) values() []string { return texts(RandomSeeded, RandomReal) }

// DocumentKind returns "Job".
func (*Job) DocumentKind() string { return "Job" }

// Head returns the document's metadata.
func (j *Job) Head() *Metadata { return &j.Metadata }

// Validate checks the fields and how they fit together.
func (j *Job) Validate() error { return validate(j) }

func (j *Job) related(p *problems) {
	s := &j.Spec
	j.relateRuntime(p)
	for _, q := range []struct {
		name  string
		value Quantity
	}{{"memory", s.Resources.Memory}, {"scratch", s.Resources.Scratch}, {"output", s.Resources.Output}} {
		checkBytes(p, "spec.resources."+q.name, q.value)
	}
	if n, err := s.Resources.CPU.Milli(); s.Resources.CPU != "" && err == nil && n == 0 {
		p.add("spec.resources.cpu", "leave the field out for the policy's", "a limit of %q allows nothing", string(s.Resources.CPU))
	}
	if n, err := s.Resources.GPU.Milli(); err == nil && n%1000 != 0 {
		p.add("spec.resources.gpu", "", "%q is not a whole number of devices", string(s.Resources.GPU))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Expected)) {
		if _, ok := s.Outputs[name]; !ok {
			p.add(join("spec.expected", name), didYouMean(name, keysOf(s.Outputs)), "there is no output %q", name)
		}
	}
	if len(s.Inputs) > maxJobInputs || len(s.Outputs) > maxJobInputs {
		p.add("spec", "", "%d inputs and %d outputs; at most %d of each are allowed", len(s.Inputs), len(s.Outputs), maxJobInputs)
	}
	for i, fs := range s.Capabilities.FS {
		relateFSCapability(p, fmt.Sprintf("spec.capabilities.fs[%d]", i), fs)
	}
	for i, c := range s.Placement.Constraints {
		c.relate(p, fmt.Sprintf("spec.placement.constraints[%d]", i))
	}
	if before, expires := s.NotBefore, j.Metadata.Expires; before != "" && expires != "" && before >= expires {
		p.add("spec.notBefore", "", "%s is not before metadata.expires, %s", before, expires)
	}
}

// relateRuntime checks that the image is of a kind that the runtime can run.
func (j *Job) relateRuntime(p *problems) {
	s, scheme := &j.Spec, j.Spec.Image.Scheme
	if s.Image.IsZero() {
		return
	}
	isStore := scheme == RefStore
	switch s.Runtime {
	case RuntimeWasm:
		if isStore || scheme == RefGit || scheme == RefGo {
			p.add("spec.image", "refer to an OCI image, or to the module by its URL or CID", "runtime wasm cannot run a %s reference", scheme)
		}
	case RuntimeOCI:
		if scheme != RefOCI {
			p.add("spec.image", "write HOST/REPOSITORY@sha256:…", "runtime oci needs an OCI reference, not a %s one", scheme)
		}
	case RuntimeNix, RuntimeGuix:
		store := map[Runtime]string{RuntimeNix: "/nix/store/", RuntimeGuix: "/gnu/store/"}[s.Runtime]
		if !isStore || !strings.HasPrefix(s.Image.Location, store) {
			p.add("spec.image", "write "+store+"HASH-NAME#sha256-…", "runtime %s needs a path in %s", s.Runtime, store)
		}
	}
	if s.Entry != "" && s.Runtime != RuntimeWasm {
		p.add("spec.entry", "", "only runtime wasm calls a function; this is %s", s.Runtime)
	}
	if s.Checkpointable && s.Runtime != RuntimeWasm {
		p.add("spec.checkpointable", "", "only runtime wasm can be stopped and resumed; this is %s", s.Runtime)
	}
}

// relateFSCapability wants a clean path that is not one of the job's own.
func relateFSCapability(p *problems, at, capability string) {
	_, dir, ok := strings.Cut(capability, ":")
	switch {
	case !ok || !strings.HasPrefix(dir, "/"): // refused by its pattern already
	case path.Clean(dir) != dir:
		p.add(at, "write "+path.Clean(dir), "%q is not a clean path", dir)
	case within(dir, inputsDir), within(dir, outputsDir):
		p.add(at, "declare it in spec.inputs or spec.outputs", "%q belongs to the job's own inputs and outputs", dir)
	}
}

func (c *Constraint) relate(p *problems, at string) {
	kind := rawKind(c.Value)
	switch c.Op {
	case OpLess, OpLessEqual, OpGreater, OpGreaterEqual:
		if kind != "number" {
			p.add(at+".value", "", "operator %s compares numbers, not a value of type %s", c.Op, kind)
		}
	case OpIn, OpNotIn:
		if kind != "array" {
			p.add(at+".value", "write a list, such as [a, b]", "operator %s needs a list, not a value of type %s", c.Op, kind)
		}
	case OpEqual, OpNotEqual:
		if kind == "array" {
			p.add(at+".value", "use in or not-in", "operator %s compares one value, not a list", c.Op)
		}
	}
}
