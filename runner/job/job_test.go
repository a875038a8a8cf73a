package job_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
	"arch.network/runner"
	"arch.network/runner/closure"
	"arch.network/runner/job"
	"arch.network/runner/oci"

	"github.com/google/go-cmp/cmp"
)

const pin = "sha256:" + "11111111111111111111111111111111" + "22222222222222222222222222222222"

var sorter = imagespec.Execution{Entrypoint: []string{"/bin/sort"}, Cmd: []string{"-u"}, Env: []string{"A=1", "B=2"}}

var id = digest.Of([]byte("a job"))

// read makes a Job of the lines of its spec.
func read(t *testing.T, spec string) *manifest.Job {
	t.Helper()
	var text strings.Builder
	text.WriteString("apiVersion: arch.network/v1\nkind: Job\nmetadata: {name: example, owner: \"user:alice\", created: \"2026-01-31T12:00:00Z\"}\nspec:\n")
	for line := range strings.Lines(strings.TrimSpace(spec)) {
		text.WriteString("  " + strings.TrimSpace(line) + "\n")
	}
	doc, err := manifest.ReadYAML([]byte(text.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text.String())
	}
	return doc.(*manifest.Job)
}

func clock() *time.Time {
	t := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	return &t
}

func seed() *[32]byte {
	s := job.Seed(id)
	return &s
}

const name = "job-" // the rest is the beginning of the id

func limits(change func(*runner.Limits)) runner.Limits {
	l := runner.Limits{
		Memory: job.DefaultMemory, Scratch: job.DefaultScratch, Output: job.DefaultOutput,
		Processes: job.DefaultProcesses, Log: job.DefaultLog, Wall: job.DefaultTimeout,
	}
	if change != nil {
		change(&l)
	}
	return l
}

// pinned is what the references above say: sixteen times 0x11, sixteen times 0x22.
func pinned() (d digest.SHA256) {
	for i := range d {
		d[i] = 0x11 * byte(1+i/16)
	}
	return d
}

// A worker may be kept for the document's owner if the policy says so, and only then.
func TestReuse(t *testing.T) {
	allowed := job.LocalPolicy(nil)
	allowed.Spec.Degradations = []string{"cpu", job.OwnProcess}
	const spec = "image: file:///words.wasm#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: wasm\n"
	for name, c := range map[string]struct {
		owner  string
		policy *manifest.Policy
		want   string
	}{
		"allowed":     {"user:alice", allowed, "user:alice"},
		"nobody's":    {"", allowed, ""},
		"not allowed": {"user:alice", job.LocalPolicy(nil), ""},
	} {
		t.Run(name, func(t *testing.T) {
			doc := read(t, spec)
			doc.Metadata.Owner = c.owner
			got, err := job.Derive(doc, job.Content{Program: job.Program{Module: "/m"}}, job.Options{ID: id, Policy: c.policy})
			if err != nil || got.Module.Reuse != c.want || got.Module.Digest != pinned() {
				t.Errorf("got %+v, %v", got.Module, err)
			}
		})
	}
}

func outputs(size int64) runner.Mount {
	return runner.Mount{Kind: runner.Tmpfs, Target: "/outputs", Size: size}
}

func tmp(size int64) runner.Mount {
	return runner.Mount{Kind: runner.Tmpfs, Target: "/tmp", Size: size}
}

func TestDerive(t *testing.T) {
	const image = "image: ghcr.io/arch/example@" + pin + "\n"
	real := "determinism: {clock: real, randomness: real}\n"
	env := func(kv ...string) []string {
		return append([]string{"HOME=/home/x", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, kv...)
	}
	tests := []struct {
		name    string
		spec    string
		content job.Content
		options job.Options
		want    runner.Spec
	}{
		{
			name:    "a module with an input and an output",
			spec:    "image: file:///words.wasm#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: wasm\nargs: [-c]\nenv: {LANG: C}\ninputs: {text: \"https://example.org/t#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\"}\noutputs: {counts: store}\nresources: {memory: 64Mi, gas: 1000, output: 1Mi}\ntimeout: 90s",
			content: job.Content{Program: job.Program{Module: "/store/m"}, Inputs: map[string]string{"text": "/store/t"}},
			want: runner.Spec{
				Module: &runner.Module{
					Digest: pinned(), Path: "/module.wasm", Args: []string{"example", "-c"}, Env: []string{"LANG=C"}, Clock: clock(), Seed: seed(), Gas: 1000, Memory: 64 << 20,
					Dirs: []runner.Dir{{Path: "/inputs", As: "/inputs"}, {Path: "/outputs", As: "/outputs", Writable: true}, {Path: "/tmp", As: "/tmp", Writable: true}},
				},
				Mounts: []runner.Mount{
					{Kind: runner.Bind, Source: "/store/m", Target: "/module.wasm"},
					outputs(1 << 20), tmp(job.DefaultScratch),
					{Kind: runner.Bind, Source: "/store/t", Target: "/inputs/text"},
				},
				Limits: limits(func(l *runner.Limits) {
					l.Memory, l.Output, l.Wall = 64<<20+job.WorkerMemory, 1<<20, 90*time.Second
				}),
				Outputs: []runner.Output{{Name: "counts", Path: "/outputs/counts"}},
			},
		},
		{
			name:    "a module inside an image, with the node's clock, its randomness and a directory",
			spec:    image + "runtime: wasm\nmodule: /app/main.wasm\nentry: main\ncapabilities: {fs: [\"read:/data/wiki\", \"write:/cache\"]}\n" + real,
			content: job.Content{Program: job.Program{Image: &oci.Root{Dir: "/roots/x"}}},
			options: job.Options{Policy: job.LocalPolicy([]string{"read:/data", "write:/cache"}), Interpret: true, Instance: "2"},
			want: runner.Spec{
				Module: &runner.Module{
					Path: "/app/main.wasm", Args: []string{"example"}, Entry: "main", Interpret: true,
					Dirs: []runner.Dir{{Path: "/outputs", As: "/outputs", Writable: true}, {Path: "/tmp", As: "/tmp", Writable: true}, {Path: "/cache", As: "/cache", Writable: true}, {Path: "/data/wiki", As: "/data/wiki"}},
				},
				Mounts: []runner.Mount{
					{Kind: runner.Bind, Source: "/roots/x", Target: "/"},
					{Kind: runner.Bind, Source: "/cache", Target: "/cache", Writable: true},
					outputs(job.DefaultOutput), tmp(job.DefaultScratch),
					{Kind: runner.Bind, Source: "/data/wiki", Target: "/data/wiki"},
				},
				Limits: limits(func(l *runner.Limits) { l.Memory += job.WorkerMemory }),
			},
		},
		{
			name:    "an image's own command",
			spec:    image + "runtime: oci\n" + real,
			content: job.Content{Program: job.Program{Image: &oci.Root{Dir: "/r", Config: sorter, User: oci.User{UID: 12, GID: 34, Home: "/home/x"}, WorkDir: "/work", Volumes: []string{"/tmp"}}}},
			want: runner.Spec{
				Commands: []runner.Command{{Argv: []string{"/bin/sort", "-u"}, Env: append([]string{"A=1", "B=2"}, env()...), Dir: "/work"}},
				Mounts:   []runner.Mount{{Kind: runner.Bind, Source: "/r", Target: "/"}, outputs(job.DefaultOutput), tmp(job.DefaultScratch)},
				UID:      12, GID: 34, Limits: limits(nil),
			},
		},
		{
			name: "an image with arguments, network, a device and a policy's bounds",
			spec: image + "runtime: oci\nargs: [-r]\nenv: {B: \"3\"}\nresources: {cpu: 500m, powerBudgetW: 80}\ncapabilities: {net: [\"egress:443\", \"egress:Example.org:53/udp\"], devices: [\"example.org/null=0\"]}\n" + real,
			content: job.Content{
				Program: job.Program{Image: &oci.Root{Dir: "/r", Config: sorter, User: oci.User{Home: "/home/x"}}},
				Devices: job.Devices{Nodes: []runner.Device{{Source: "/dev/null"}}, Env: []string{"N=0"}, Mounts: []runner.Mount{{Kind: runner.Bind, Source: "/lib/x", Target: "/lib/x"}}},
			},
			options: job.Options{Timeout: time.Minute, Policy: func() *manifest.Policy {
				p := job.LocalPolicy([]string{"egress:443", "egress:*.org:53/udp", "device:example.org/*"})
				p.Spec.Resources.Job = manifest.JobResources{CPU: "2", Memory: "1Gi", PowerBudgetW: 100, Processes: 7}
				p.Spec.Local.Cap = manifest.JobResources{Memory: "512Mi"}
				p.Spec.Resources.Timeout = "2m"
				return p
			}()},
			want: runner.Spec{
				Commands: []runner.Command{{Argv: []string{"/bin/sort", "-r"}, Env: append([]string{"A=1", "B=3"}, env()[:1]...), Dir: "/"}},
				Mounts: []runner.Mount{
					{Kind: runner.Bind, Source: "/r", Target: "/"},
					outputs(job.DefaultOutput), tmp(job.DefaultScratch),
					{Kind: runner.Bind, Source: "/lib/x", Target: "/lib/x"},
				},
				Network: runner.Network{Egress: []runner.Egress{{Protocol: "tcp", Port: 443}, {Protocol: "udp", Host: "example.org", Port: 53}}},
				Devices: []runner.Device{{Source: "/dev/null"}},
				Limits: limits(func(l *runner.Limits) {
					l.CPU, l.Memory, l.Power, l.Processes, l.Wall = 500, 512<<20, 80, 7, time.Minute
				}),
			},
		},
		{
			name: "a closure",
			spec: "image: /nix/store/00000000000000000000000000000000-hello-world-2.12#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: nix\nargs: [-g, hi]\n" + real,
			content: job.Content{Program: job.Program{Closure: []closure.Path{
				{StorePath: "/nix/store/11111111111111111111111111111111-glibc-2.35", Source: "/s/glibc"},
				{StorePath: "/nix/store/00000000000000000000000000000000-hello-world-2.12", Source: "/s/hello"},
			}}},
			want: runner.Spec{
				Commands: []runner.Command{{
					Argv: []string{"/nix/store/00000000000000000000000000000000-hello-world-2.12/bin/hello-world", "-g", "hi"},
					Env:  []string{"HOME=/tmp", "PATH=/nix/store/00000000000000000000000000000000-hello-world-2.12/bin"},
					Dir:  "/",
				}},
				Mounts: []runner.Mount{
					outputs(job.DefaultOutput), tmp(job.DefaultScratch),
					{Kind: runner.Bind, Source: "/s/hello", Target: "/nix/store/00000000000000000000000000000000-hello-world-2.12"},
					{Kind: runner.Bind, Source: "/s/glibc", Target: "/nix/store/11111111111111111111111111111111-glibc-2.35"},
				},
				Limits: limits(nil),
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.options.ID = id
			tt.want.Name = name + id.Hex()[:24]
			if tt.options.Instance != "" {
				tt.want.Name += "-" + tt.options.Instance
			}
			if len(tt.want.Commands) > 0 {
				slices.Sort(tt.want.Commands[0].Env)
				if tt.content.Devices.Env != nil {
					tt.want.Commands[0].Env = []string{"A=1", "B=3", "HOME=/home/x", "N=0", env()[1]}
				}
			}
			doc := read(t, tt.spec)
			got, err := job.Derive(doc, tt.content, tt.options)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			again, err := job.Derive(doc, tt.content, tt.options)
			if diff := cmp.Diff(got, again); diff != "" || err != nil {
				t.Errorf("derived again (-first +second): %v\n%s", err, diff)
			}
		})
	}
}

func TestDeriveRefuses(t *testing.T) {
	const image = "image: ghcr.io/arch/example@" + pin + "\n"
	const module = "image: file:///words.wasm#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: wasm\n"
	const real = "determinism: {clock: real, randomness: real}\n"
	wasm := job.Content{Program: job.Program{Module: "/m"}}
	img := job.Content{Program: job.Program{Image: &oci.Root{Dir: "/r", Config: sorter}}}
	tests := []struct {
		name, spec string
		content    job.Content
		options    job.Options
		want, hint string
	}{
		{"no id", module, wasm, job.Options{}, "id is not given", ""},
		{"native with a fixed clock", image + "runtime: oci", img, job.Options{ID: id}, "cannot give a program a fixed clock", "determinism: {clock: real"},
		{"native with seeded randomness", image + "runtime: oci\ndeterminism: {clock: real}", img, job.Options{ID: id}, "seeded randomness", "randomness: real"},
		{"network without leave", image + "runtime: oci\ncapabilities: {net: [\"egress:443\"]}\n" + real, img, job.Options{ID: id}, `capability "egress:443" is not allowed by policy local`, "--allow egress:443"},
		{"files without leave", module + "capabilities: {fs: [\"read:/home/me/.ssh\"]}", wasm, job.Options{ID: id}, `"read:/home/me/.ssh" is not allowed`, "--allow read:/home/me/.ssh"},
		{"the whole machine", module + "capabilities: {fs: [\"read:/\"]}", wasm, job.Options{ID: id, Policy: job.LocalPolicy([]string{"read:/"})}, "cannot be given to a job as a whole", "below it"},
		{"a module with sockets", module + "capabilities: {net: [\"egress:443\"]}", wasm, job.Options{ID: id, Policy: job.LocalPolicy([]string{"egress:443"})}, "neither sockets nor devices", "runtime oci"},
		{"GPUs without names", image + "runtime: oci\nresources: {gpu: \"2\"}\n" + real, img, job.Options{ID: id}, "asks for 2 GPUs but names 0 devices", "spec.capabilities.devices"},
		{"devices that were not found", image + "runtime: oci\ncapabilities: {devices: [\"example.org/null=0\"]}\n" + real, img, job.Options{ID: id, Policy: job.LocalPolicy([]string{"device:example.org/*"})}, "which nothing was found for", ""},
		{"an input that was not fetched", module + "inputs: {a: \"https://example.org/t#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\"}", wasm, job.Options{ID: id}, `its inputs are ["a"], but [] were fetched`, ""},
		{"an input that nobody asked for", module, job.Content{Program: wasm.Program, Inputs: map[string]string{"b": "/b"}}, job.Options{ID: id}, `but ["b"] were fetched`, ""},
		{"an input without a path", module + "inputs: {a: \"https://example.org/t#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\"}", job.Content{Program: wasm.Program, Inputs: map[string]string{"a": "a"}}, job.Options{ID: id}, "no absolute path", ""},
		{"an image without its module", image + "runtime: wasm", img, job.Options{ID: id}, "does not say which one is the module", "spec.module"},
		{"a module that is none", module, img, job.Options{ID: id}, "does not say which one is the module", "spec.module"},
		{"an image without a command", image + "runtime: oci\n" + real, job.Content{Program: job.Program{Image: &oci.Root{Dir: "/r"}}}, job.Options{ID: id}, "names no program", "module"},
		{"an image that works outside of itself", image + "runtime: oci\n" + real, job.Content{Program: job.Program{Image: &oci.Root{Dir: "/r", Config: sorter, WorkDir: "/a/../.."}}}, job.Options{ID: id}, "working directory", ""},
		{"a closure without its program", "image: /nix/store/00000000000000000000000000000000-hello#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: nix\n" + real, job.Content{}, job.Options{ID: id}, "does not hold", ""},
		{"a closure that reaches elsewhere", "image: /nix/store/00000000000000000000000000000000-hello#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: nix\n" + real, job.Content{Program: job.Program{Closure: []closure.Path{{StorePath: "/etc", Source: "/etc"}}}}, job.Options{ID: id}, `"/etc" is not in /nix/store`, ""},
		{"a bad instance", module, wasm, job.Options{ID: id, Instance: "a/b"}, `instance "a/b"`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := job.Derive(read(t, tt.spec), tt.content, tt.options)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want %q", err, tt.want)
			}
			hinted, ok := errors.AsType[interface {
				error
				Hint() string
			}](err)
			if tt.hint != "" && (!ok || !strings.Contains(hinted.Hint(), tt.hint)) {
				t.Errorf("hint of %q is not %q", fmt.Sprint(hinted), tt.hint)
			}
		})
	}
}

func TestSeed(t *testing.T) {
	if job.Seed(id) == job.Seed(digest.Of(nil)) {
		t.Error("two documents have the same seed")
	}
	// What is printed here is a promise: a receipt of today is replayed in years.
	want := "5d003b8c"
	if got := fmt.Sprintf("%x", job.Seed(id))[:8]; got != want {
		t.Errorf("the seed begins with %s, want %s", got, want)
	}
}

func TestDeterministic(t *testing.T) {
	const module = "image: file:///words.wasm#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: wasm\n"
	for _, tt := range []struct {
		spec string
		want bool
	}{
		{module, true},
		{module + "determinism: {clock: real}", false},
		{module + "determinism: {randomness: real}", false},
		{module + "capabilities: {fs: [\"read:/data\"]}", false},
		{"image: ghcr.io/arch/example@" + pin + "\nruntime: oci", false},
	} {
		if got := job.Deterministic(read(t, tt.spec)); got != tt.want {
			t.Errorf("Deterministic = %v, want %v for\n%s", got, tt.want, tt.spec)
		}
	}
}

func FuzzParseEgress(f *testing.F) {
	for _, seed := range []string{"egress:443", "egress:example.org:53/udp", "egress:", "egress:a:b:1", "443", "egress:0", "egress:65536"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rule, err := job.ParseEgress(text)
		if err == nil && (rule.Port < 1 || rule.Port > 65535 || (rule.Protocol != "tcp" && rule.Protocol != "udp")) {
			t.Errorf("%q became %+v", text, rule)
		}
	})
}
