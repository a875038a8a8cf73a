package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

// explanation is the exact confinement that a job would get.
type explanation struct {
	Name    string        `json:"name"`
	ID      digest.SHA256 `json:"id"`
	Driver  string        `json:"driver"`
	Command []commandLine `json:"commands,omitempty"`
	Module  *moduleLine   `json:"module,omitempty"`
	User    string        `json:"user"`
	Mounts  []mountLine   `json:"files"`
	Devices []string      `json:"devices"`
	Network []string      `json:"network"` // what may be reached; empty: nothing, not even loopback
	Limits  limitLines    `json:"limits"`
	Outputs []string      `json:"outputs"`
	Layers  []layer       `json:"layers"` // how each driver would enforce it, the chosen one first
}

func (explanation) kind() string { return "RunExplanation" }

type commandLine struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
}

type moduleLine struct {
	Path       string   `json:"path"`
	Args       []string `json:"args"`
	Env        []string `json:"env"`
	Entry      string   `json:"entry"`
	Dirs       []string `json:"dirs"`
	Clock      string   `json:"clock"`
	Randomness string   `json:"randomness"`
}

type mountLine struct {
	Kind     runner.MountKind `json:"kind"`
	Target   string           `json:"target"`
	Source   string           `json:"source,omitempty"`
	Writable bool             `json:"writable"`
	Size     int64            `json:"size,omitempty"` // bytes
}

// limitLines are the limits in the units of runner.Limits; zero is no limit.
type limitLines struct {
	WallSeconds float64 `json:"wallSeconds"`
	CPUMilli    int64   `json:"cpuMilli"`
	Memory      int64   `json:"memory"`
	Scratch     int64   `json:"scratch"`
	Output      int64   `json:"output"`
	Log         int64   `json:"log"`
	Processes   int     `json:"processes"`
	PowerWatts  float64 `json:"powerWatts"`
	Gas         uint64  `json:"gas,omitempty"`
}

// layer is what one driver does.
type layer struct {
	Driver     string   `json:"driver"`
	Chosen     bool     `json:"chosen"`
	Properties []string `json:"properties"`
	Problem    string   `json:"problem,omitempty"` // why it would refuse the job here
}

func (a *app) explainSpec(ctx context.Context, chosen driver, t *jobTarget, spec runner.Spec) error {
	x := explain(t, spec)
	x.Driver = chosen.name
	spec.Collect = func(runner.Output, io.Reader) error { return nil } // a Spec with outputs needs one
	if spec.Module != nil {
		var err error
		if spec, err = workerSpec(ctx, spec); err != nil {
			return err
		}
	}
	for _, d := range drivers() {
		if d.name == driverBroker { // has systemd do it
			continue
		}
		l := layer{Driver: d.name, Chosen: d.name == chosen.name}
		l.Properties, l.Problem = enforcement(d.name, spec)
		x.Layers = append(x.Layers, l)
	}
	return a.print(x, x.text)
}

// recorder is a driver that runs nothing: it keeps what it was asked to run.
type recorder struct{ spec runner.Spec }

var errRecorded = errors.New("recorded")

func (r *recorder) Run(_ context.Context, spec runner.Spec) (runner.Result, error) {
	r.spec = spec
	return runner.Result{}, errRecorded
}

// workerSpec is what a driver is asked to run for a module: the worker that runs it.
func workerSpec(ctx context.Context, spec runner.Spec) (runner.Spec, error) {
	r := &recorder{}
	m, err := wasm.New(wasm.Options{Driver: r, Worker: ownWorker()})
	if err != nil {
		return spec, err
	}
	if _, err := m.Run(ctx, spec); !errors.Is(err, errRecorded) {
		return spec, err
	}
	return r.spec, nil
}

func explain(t *jobTarget, spec runner.Spec) explanation {
	x := explanation{
		Name: t.doc.Metadata.Name, ID: t.id, User: userLine(spec), Devices: []string{}, Network: []string{}, Outputs: []string{},
		Limits: limitLines{
			WallSeconds: spec.Limits.Wall.Seconds(), CPUMilli: spec.Limits.CPU, Memory: spec.Limits.Memory, Scratch: spec.Limits.Scratch,
			Output: spec.Limits.Output, Log: spec.Limits.Log, Processes: spec.Limits.Processes, PowerWatts: spec.Limits.Power,
		},
	}
	for _, c := range spec.Commands {
		x.Command = append(x.Command, commandLine{c.Argv, append([]string{}, c.Env...), c.Dir})
	}
	for _, m := range spec.Mounts {
		x.Mounts = append(x.Mounts, mountLine{m.Kind, m.Target, m.Source, m.Writable || m.Kind == runner.Tmpfs, m.Size})
	}
	for _, d := range spec.Devices {
		x.Devices = append(x.Devices, strings.TrimSpace(d.Source+" "+d.Target+" "+d.Permissions))
	}
	for _, e := range spec.Network.Egress {
		x.Network = append(x.Network, fmt.Sprintf("%s:%s:%d", e.Protocol, orAny(e.Host), e.Port))
	}
	for _, o := range spec.Outputs {
		x.Outputs = append(x.Outputs, o.Path)
	}
	if m := spec.Module; m != nil {
		x.Limits.Gas = m.Gas
		x.Module = explainModule(m)
	}
	return x
}

func explainModule(m *runner.Module) *moduleLine {
	line := &moduleLine{Path: m.Path, Args: append([]string{}, m.Args...), Env: append([]string{}, m.Env...), Entry: m.Entry, Clock: "the host's", Randomness: "the host's"}
	if line.Entry == "" {
		line.Entry = "_start"
	}
	if m.Clock != nil {
		line.Clock = "fixed, from " + m.Clock.Format("2006-01-02T15:04:05Z")
	}
	if m.Seed != nil {
		line.Randomness = "from the document's id"
	}
	for _, d := range m.Dirs {
		line.Dirs = append(line.Dirs, d.As+access(d.Writable))
	}
	return line
}

func access(writable bool) string {
	if writable {
		return " (read and write)"
	}
	return " (read)"
}

func orAny(host string) string {
	if host == "" {
		return "*"
	}
	return host
}

func userLine(spec runner.Spec) string {
	uid, gid := spec.UID, spec.GID
	if uid == 0 {
		uid = 1000
	}
	if gid == 0 {
		gid = 100
	}
	return fmt.Sprintf("%d:%d", uid, gid)
}

// enforcement says how a driver would enforce spec.
func enforcement(name string, spec runner.Spec) (properties []string, problem string) {
	if name != driverSystemd {
		return namespaceLayer(spec), ""
	}
	list, err := new(systemd.Runner).Properties(spec)
	if err != nil {
		problem = err.Error()
	}
	for _, p := range list {
		properties = append(properties, p.String())
	}
	if fit := fitsSystemd(); fit != nil && problem == "" {
		problem = "not here: " + fit.Error()
	}
	return properties, problem
}

// namespaceLayer tells what package namespace promises of every execution.
func namespaceLayer(spec runner.Spec) []string {
	list := []string{
		"namespaces: user, mount, process, network, IPC, host name, cgroup",
		"root: a new file system of the files above alone; /proc of the confinement; a minimal /dev",
		"capabilities: none, and no way to get one (no_new_privs, locked secure bits)",
		"Landlock: what is not writable above cannot be written; no abstract socket or signal reaches outside",
		"system calls: mounts, namespaces, ptrace, keyrings, bpf, perf, io_uring, userfaultfd, modules, clocks and foreign architectures are refused",
	}
	switch {
	case spec.Network.IsZero():
		list = append(list, "network: no interface is up, not even loopback")
	default:
		list = append(list, "network: an interface of its own, behind a gateway that lets through and counts what is listed above")
	}
	return append(list, "limits: by a control group where one may be made, else by counting; time by the clock")
}

func (x explanation) text(s *screen) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(s, "  %-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(s, "%s, confined by %s\n", x.Name, x.Driver)
	line("job", "%s", x.ID)
	for _, c := range x.Command {
		line("runs", "%q in %s", c.Argv, orRoot(c.Dir))
		line("", "environment %q", c.Env)
	}
	if m := x.Module; m != nil {
		line("runs", "%s of %s with %q", m.Entry, m.Path, m.Args)
		line("", "environment %q", m.Env)
		line("", "sees %s", strings.Join(m.Dirs, ", "))
		line("clock", "%s", m.Clock)
		line("random", "%s", m.Randomness)
	}
	line("as", "%s", x.User)
	for i, m := range x.Mounts {
		name := "files"
		if i > 0 {
			name = ""
		}
		line(name, "%s", m)
	}
	line("devices", "%s", orNone(x.Devices))
	line("network", "%s", orNone(x.Network))
	x.Limits.text(line)
	line("outputs", "%s", orNone(x.Outputs))
	for _, l := range x.Layers {
		which := "would be"
		if l.Chosen {
			which = "is"
		}
		fmt.Fprintf(s, "driver %s (%s)\n", l.Driver, which)
		if l.Problem != "" {
			line("", "%s", l.Problem)
		}
		for _, p := range l.Properties {
			line("", "%s", p)
		}
	}
}

func (m mountLine) String() string {
	text := fmt.Sprintf("%s%s", m.Target, access(m.Writable))
	if m.Source != "" {
		text += " from " + m.Source
	}
	if m.Kind == runner.Tmpfs {
		text += ", empty, in memory"
	}
	if m.Size > 0 {
		text += ", at most " + size(m.Size)
	}
	return text
}

func (l limitLines) text(line func(name, format string, args ...any)) {
	line("limits", "%g s, %s of memory, %s of scratch, %s of outputs, %s printed, %d processes", l.WallSeconds, size(l.Memory), size(l.Scratch), size(l.Output), size(l.Log), l.Processes)
	if l.CPUMilli > 0 {
		line("", "%g processors", float64(l.CPUMilli)/1000)
	}
	if l.PowerWatts > 0 {
		line("", "%g W", l.PowerWatts)
	}
	if l.Gas > 0 {
		line("", "%d gas", l.Gas)
	}
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func orRoot(dir string) string {
	if dir == "" {
		return "/"
	}
	return dir
}
