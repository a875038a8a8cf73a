// Package job turns a verified Job document and the content that was fetched for it into a runner.Spec, and says what a
// Policy has against a Job. It is the step between "someone may have this run" and "this is what runs": the command line,
// the broker and the agent all derive with it, so that the same document means the same confinement everywhere.
//
// It is pure: documents, host paths and options come in, a Spec or the reasons against it come out, and the same
// arguments give equal results. It opens no file, verifies no signature, knows no clock and starts nothing. Whoever calls
// it has verified the document and checked the content against its pins.
//
// # What a job finds
//
//	/inputs/NAME        each input, read-only
//	/outputs            empty and writable; /outputs/NAME must exist at the end
//	/tmp                empty and writable
//	/PATH               what the capabilities read:/PATH and write:/PATH name, at its own place
//	/dev/…              what devices name, as the host's Container Device Interface specifications say
//
// and beside that: for runtime wasm nothing; for oci the image's files, read-only; for nix and guix the closure's paths.
// A WebAssembly module sees the same directories under the same names.
//
// # Time and randomness
//
// A module reads a clock that starts at metadata.created (or 1970) and random bytes that follow from the document's id,
// unless determinism says real. A native program cannot be given either, so runtimes oci, nix and guix are refused
// until the document itself says `determinism: {clock: real, randomness: real}`: what cannot be repeated is declared, not
// passed over.
package job

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
	"arch.network/runner/closure"
	"arch.network/runner/oci"
)

// Places inside the confinement.
const (
	InputsDir  = "/inputs"
	OutputsDir = "/outputs"
	TmpDir     = "/tmp"
	ModulePath = "/module.wasm" // where a module that is not part of an image lies
)

// Content is what was fetched for a job: host paths, all checked against the document's pins.
type Content struct {
	Program Program
	Inputs  map[string]string // by name: the host path of a file or tree; exactly those of the document
	// Devices are what the host's Container Device Interface specifications say of the document's devices.
	Devices Devices
}

// Program is what the reference spec.image became. Exactly one field is set.
type Program struct {
	Module  string         // host path of a WebAssembly module, for runtime wasm
	Image   *oci.Root      // an unpacked image, for oci, and for wasm with a module inside it
	Closure []closure.Path // every store path of a closure, the program's own among them, for nix and guix
}

// Devices is what a job gets for the devices it names.
type Devices struct {
	Nodes  []runner.Device
	Mounts []runner.Mount
	Env    []string // "KEY=value"
}

// Options are what a derivation depends on beside the document and its content.
type Options struct {
	// ID is the document's id. It names the execution and seeds its randomness. Required.
	ID digest.SHA256
	// Policy bounds what the job may have; nil: LocalPolicy(nil). The caller has verified it.
	Policy *manifest.Policy
	// Instance tells executions of the same document apart on one host: 1 to 24 of a-z, 0-9, '-'. Empty: there is only one.
	Instance string
	// Timeout shortens the time that the document and the policy allow; zero: it does not.
	Timeout time.Duration
	// Interpret runs a module without compiling it to machine code.
	Interpret bool
	// Degraded allows a confinement weaker than asked for, which the result then tells. Only the drivers that say so weaken it.
	Degraded bool
}

// Error says why no Spec can be made of a document and its content.
type Error struct {
	Job  string // metadata.name
	Msg  string
	Cure string
}

func (e *Error) Error() string { return fmt.Sprintf("derive job %s: %s", e.Job, e.Msg) }

// Hint tells the way out.
func (e *Error) Hint() string { return e.Cure }

// Derive makes the Spec of one execution of doc. The error is an *Error, or a *DeniedError if the policy allows less
// than the document asks for. Stdout, Stderr, Collect and Exchange are left to the caller.
func Derive(doc *manifest.Job, c Content, o Options) (runner.Spec, error) {
	if o.Policy == nil {
		o.Policy = LocalPolicy(nil)
	}
	d := derivation{doc: doc, content: c, options: o}
	if err := d.check(); err != nil {
		return runner.Spec{}, err
	}
	limits, err := Limits(doc, o.Policy)
	if err != nil {
		return runner.Spec{}, d.errorf("", "%v", err)
	}
	if o.Timeout > 0 {
		limits.Wall = min(limits.Wall, o.Timeout)
	}
	d.spec = runner.Spec{Name: d.name(), Limits: limits, Degraded: o.Degraded, Devices: slices.Clone(c.Devices.Nodes)}
	if err := d.network(); err != nil {
		return runner.Spec{}, err
	}
	switch doc.Spec.Runtime {
	case manifest.RuntimeWasm:
		err = d.wasm()
	case manifest.RuntimeOCI:
		err = d.image()
	default:
		err = d.closure()
	}
	if err != nil {
		return runner.Spec{}, err
	}
	d.common()
	for _, name := range slices.Sorted(maps.Keys(doc.Spec.Outputs)) {
		d.spec.Outputs = append(d.spec.Outputs, runner.Output{Name: name, Path: path.Join(OutputsDir, name)})
	}
	return d.spec, nil
}

// derivation is the work of one Derive.
type derivation struct {
	doc     *manifest.Job
	content Content
	options Options
	spec    runner.Spec
}

func (d *derivation) errorf(cure, format string, args ...any) error {
	return &Error{Job: d.doc.Metadata.Name, Msg: fmt.Sprintf(format, args...), Cure: cure}
}

// check refuses what cannot be honoured, before anything is derived.
func (d *derivation) check() error {
	s := &d.doc.Spec
	if d.options.ID.IsZero() {
		return d.errorf("", "its id is not given")
	}
	if !validInstance(d.options.Instance) {
		return d.errorf("", "instance %q is not 1 to 24 of a-z, 0-9 and '-'", d.options.Instance)
	}
	if reasons := Allowed(d.options.Policy, d.doc); len(reasons) > 0 {
		return &DeniedError{Job: d.doc.Metadata.Name, Policy: d.options.Policy.Metadata.Name, Reasons: reasons}
	}
	if s.Runtime != manifest.RuntimeWasm && !IsReal(d.doc) {
		return d.errorf("add determinism: {clock: real, randomness: real}, or compile the program to WebAssembly and use runtime wasm",
			"runtime %s cannot give a program a fixed clock and seeded randomness, which the document asks for by default", s.Runtime)
	}
	if n, err := s.Resources.GPU.Milli(); err != nil || n > int64(len(s.Capabilities.Devices))*1000 {
		return d.errorf("name each one in spec.capabilities.devices, such as nvidia.com/gpu=0", "it asks for %s GPUs but names %d devices", s.Resources.GPU, len(s.Capabilities.Devices))
	}
	if s.Runtime == manifest.RuntimeWasm && len(s.Capabilities.Net)+len(s.Capabilities.Devices) > 0 {
		return d.errorf("leave out capabilities.net and capabilities.devices, or use runtime oci", "a WebAssembly module has neither sockets nor devices")
	}
	if dev := d.content.Devices; len(s.Capabilities.Devices) > 0 && len(dev.Nodes)+len(dev.Mounts)+len(dev.Env) == 0 {
		return d.errorf("", "it names the devices %q, which nothing was found for", s.Capabilities.Devices)
	}
	for _, p := range d.paths() {
		if p.path == "/" || p.path == TmpDir || p.path == OutputsDir || p.path == InputsDir || p.path == "/dev" || p.path == "/proc" || p.path == "/sys" {
			return d.errorf("name the directories below it that the job needs", "%s cannot be given to a job as a whole", p.path)
		}
	}
	return d.checkInputs()
}

// checkInputs wants exactly the document's inputs.
func (d *derivation) checkInputs() error {
	want, got := slices.Sorted(maps.Keys(d.doc.Spec.Inputs)), slices.Sorted(maps.Keys(d.content.Inputs))
	if !slices.Equal(want, got) {
		return d.errorf("", "its inputs are %q, but %q were fetched", want, got)
	}
	for _, name := range got {
		if !path.IsAbs(d.content.Inputs[name]) {
			return d.errorf("", "input %s has no absolute path on the host", name)
		}
	}
	return nil
}

func validInstance(s string) bool {
	return len(s) <= 24 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// name is unique among different documents, and with Instance among executions of one.
func (d *derivation) name() string {
	name := "job-" + d.options.ID.Hex()[:24]
	if d.options.Instance != "" {
		name += "-" + d.options.Instance
	}
	return name
}

// network turns capabilities.net into rules.
func (d *derivation) network() error {
	for _, text := range d.doc.Spec.Capabilities.Net {
		rule, err := ParseEgress(text)
		if err != nil {
			return d.errorf("", "%v", err)
		}
		d.spec.Network.Egress = append(d.spec.Network.Egress, rule)
	}
	return nil
}

// ParseEgress reads a capability egress:PORT or egress:HOST:PORT, TCP unless /udp follows.
func ParseEgress(text string) (runner.Egress, error) {
	rest, ok := strings.CutPrefix(text, "egress:")
	rest, udp := strings.CutSuffix(rest, "/udp")
	rule := runner.Egress{Protocol: "tcp"}
	if udp {
		rule.Protocol = "udp"
	}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		rule.Host, rest = strings.ToLower(rest[:i]), rest[i+1:]
	}
	port, err := strconv.Atoi(rest)
	if !ok || err != nil || port < 1 || port > 65535 {
		return runner.Egress{}, fmt.Errorf("capability %q is not egress:PORT or egress:HOST:PORT with a port from 1 to 65535", text)
	}
	rule.Port = port
	return rule, nil
}

// common adds what every runtime has: inputs, outputs, scratch and the declared paths, parents first.
func (d *derivation) common() {
	var mounts []runner.Mount
	for _, name := range slices.Sorted(maps.Keys(d.content.Inputs)) {
		mounts = append(mounts, runner.Mount{Kind: runner.Bind, Source: d.content.Inputs[name], Target: path.Join(InputsDir, name)})
	}
	mounts = append(mounts,
		runner.Mount{Kind: runner.Tmpfs, Target: OutputsDir, Size: d.spec.Limits.Output},
		runner.Mount{Kind: runner.Tmpfs, Target: TmpDir, Size: d.spec.Limits.Scratch},
	)
	for _, p := range d.paths() {
		mounts = append(mounts, runner.Mount{Kind: runner.Bind, Source: p.path, Target: p.path, Writable: p.writable})
	}
	d.spec.Mounts = slices.DeleteFunc(d.spec.Mounts, func(m runner.Mount) bool { // an image may have volumes where a job has its own
		return m.Kind == runner.Tmpfs && (m.Target == OutputsDir || m.Target == TmpDir)
	})
	d.spec.Mounts = append(append(d.spec.Mounts, mounts...), d.content.Devices.Mounts...)
	slices.SortStableFunc(d.spec.Mounts, func(a, b runner.Mount) int {
		return cmp.Or(cmp.Compare(depth(a.Target), depth(b.Target)), cmp.Compare(a.Target, b.Target))
	})
}

// depth counts the elements of a clean absolute path.
func depth(p string) int {
	if p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}

// hostPath is one path of the node that a job may see.
type hostPath struct {
	path     string
	writable bool
}

// paths are those of capabilities.fs, sorted, each once; write includes read.
func (d *derivation) paths() []hostPath {
	set := map[string]bool{}
	for _, text := range d.doc.Spec.Capabilities.FS {
		kind, p, _ := strings.Cut(text, ":")
		set[p] = set[p] || kind == "write"
	}
	var list []hostPath
	for _, p := range slices.Sorted(maps.Keys(set)) {
		list = append(list, hostPath{p, set[p]})
	}
	return list
}

// variables are the defaults, then what devices need, then the document's own: what is later wins.
func (d *derivation) variables(defaults map[string]string) map[string]string {
	set := map[string]string{}
	maps.Copy(set, defaults)
	for _, kv := range d.content.Devices.Env {
		if key, value, ok := strings.Cut(kv, "="); ok {
			set[key] = value
		}
	}
	maps.Copy(set, d.doc.Spec.Env)
	return set
}

// environment is the document's own, sorted.
func (d *derivation) environment() []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(d.doc.Spec.Env)) {
		out = append(out, key+"="+d.doc.Spec.Env[key])
	}
	return out
}

// IsReal reports whether a document declares both clock and randomness to be the node's.
func IsReal(doc *manifest.Job) bool {
	d := doc.Spec.Determinism
	return d.Clock == manifest.ClockReal && d.Randomness == manifest.RandomReal
}

// Deterministic reports whether an execution of doc is a function of the document alone.
func Deterministic(doc *manifest.Job) bool { return attest.Deterministic(doc) }

// Seed is what a document's random bytes are made of: SHA-256 of a label and the document's id.
func Seed(id digest.SHA256) [32]byte {
	return sha256.Sum256(slices.Concat([]byte("arch.network/job/seed/v1\x00"), id[:]))
}

// Start is what a document's fixed clock starts at: metadata.created, or the beginning of 1970.
func Start(doc *manifest.Job) time.Time {
	if t, err := time.Parse(time.RFC3339, doc.Metadata.Created); err == nil {
		return t.UTC()
	}
	return time.Unix(0, 0).UTC()
}
