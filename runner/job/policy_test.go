package job_test

import (
	"strings"
	"testing"
	"time"

	"arch.network/attest/manifest"
	"arch.network/runner/job"

	"github.com/google/go-cmp/cmp"
)

func TestAllowed(t *testing.T) {
	const module = "image: file:///words.wasm#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: wasm\n"
	allow := func(list ...string) func(*manifest.Policy) {
		return func(p *manifest.Policy) { p.Spec.Capabilities.Allow = list }
	}
	tests := []struct {
		name, spec string
		change     func(*manifest.Policy)
		want       []string // beginnings of "field: message"
	}{
		{"nothing is asked", module, nil, nil},
		{"another runtime", module, func(p *manifest.Policy) { p.Spec.Runtimes = []manifest.Runtime{manifest.RuntimeOCI} }, []string{"spec.runtime: runtime wasm is not allowed"}},
		{"no runtime", module, func(p *manifest.Policy) { p.Spec.Runtimes = nil }, []string{"spec.runtime: "}},
		{"a port", module + `capabilities: {net: ["egress:443"]}`, allow("egress:443"), nil},
		{"another port", module + `capabilities: {net: ["egress:25"]}`, allow("egress:443"), []string{`spec.capabilities.net[0]: capability "egress:25" is not allowed`}},
		{"udp is not tcp", module + `capabilities: {net: ["egress:443/udp"]}`, allow("egress:443"), []string{"spec.capabilities.net[0]"}},
		{"a host of any", module + `capabilities: {net: ["egress:example.org:443"]}`, allow("egress:443"), nil},
		{"any host of one", module + `capabilities: {net: ["egress:443"]}`, allow("egress:example.org:443"), []string{"spec.capabilities.net[0]"}},
		{"a host by pattern", module + `capabilities: {net: ["egress:a.example.org:443"]}`, allow("egress:*.example.org:*"), nil},
		{"a host that ends alike", module + `capabilities: {net: ["egress:badexample.org:443"]}`, allow("egress:*.example.org:443"), []string{"spec.capabilities.net[0]"}},
		{"below a path", module + `capabilities: {fs: ["read:/data/wiki/en"]}`, allow("read:/data"), nil},
		{"beside a path", module + `capabilities: {fs: ["read:/database"]}`, allow("read:/data"), []string{"spec.capabilities.fs[0]"}},
		{"above a path", module + `capabilities: {fs: ["read:/data"]}`, allow("read:/data/wiki"), []string{"spec.capabilities.fs[0]"}},
		{"to write is more than to read", module + `capabilities: {fs: ["write:/data"]}`, allow("read:/data"), []string{"spec.capabilities.fs[0]"}},
		{"to write is also to read", module + `capabilities: {fs: ["read:/data"]}`, allow("write:/data"), nil},
		{"a path by pattern", module + `capabilities: {fs: ["read:/home/alice/data/x"]}`, allow("read:/home/*/data"), nil},
		{"a pattern stops at a slash", module + `capabilities: {fs: ["read:/home/a/b/data"]}`, allow("read:/home/*/data"), []string{"spec.capabilities.fs[0]"}},
		{"everything", module + `capabilities: {fs: ["read:/etc"]}`, allow("read:/"), nil},
		{"a device", module + `capabilities: {devices: ["nvidia.com/gpu=0"]}`, allow("device:nvidia.com/gpu=*"), nil},
		{"another device", module + `capabilities: {devices: ["nvidia.com/gpu=0"]}`, allow("device:amd.com/*"), []string{"spec.capabilities.devices[0]"}},
		{"the real clock", module + "determinism: {clock: real}", allow("clock:real"), nil},
		{"the real clock, unasked", module + "determinism: {clock: real, randomness: real}", allow(), []string{"spec.determinism.clock", "spec.determinism.randomness"}},
		{"an output elsewhere", module + "outputs: {o: \"file:///srv/o\"}", allow("write:/srv"), nil},
		{"an output elsewhere, unasked", module + "outputs: {o: \"file:///etc/o\"}", allow("write:/srv"), []string{`spec.outputs.o: capability "write:/etc/o"`}},
		{"too much of everything", module + "resources: {cpu: \"5\", memory: 3Gi, gpu: \"1\", scratch: 2Gi, output: 2Gi, processes: 9, gas: 11, powerBudgetW: 90}\ntimeout: 3h", func(p *manifest.Policy) {
			p.Spec.Resources.Job = manifest.JobResources{CPU: "4", Memory: "2Gi", GPU: "0", Scratch: "1Gi", Output: "1Gi", Processes: 8, Gas: 10, PowerBudgetW: 80}
			p.Spec.Resources.Timeout = "2h"
		}, []string{"spec.resources.cpu: 5 is over the policy's 4", "spec.resources.memory: 3Gi", "spec.resources.gpu: 1", "spec.resources.scratch", "spec.resources.output", "spec.resources.processes: 9", "spec.resources.gas: 11", "spec.resources.powerBudgetW: 90", "spec.timeout: 3h is over the policy's 2h"}},
		{"as much as is allowed", module + "resources: {cpu: 4000m, memory: 2048Mi}", func(p *manifest.Policy) {
			p.Spec.Resources.Job = manifest.JobResources{CPU: "4", Memory: "2Gi"}
		}, nil},
		{"the operator's cap", module + "resources: {memory: 2Gi}", func(p *manifest.Policy) {
			p.Spec.Resources.Job.Memory, p.Spec.Local.Cap.Memory = "4Gi", "1Gi"
		}, []string{"spec.resources.memory: 2Gi is over the policy's 1Gi"}},
		{"the operator's refusal", module, func(p *manifest.Policy) {
			p.Spec.Local.Reject = []manifest.PolicyReject{{Owner: "user:*", Runtime: manifest.RuntimeWasm, Reason: "exam week"}}
		}, []string{`metadata: the node's operator refuses it: "exam week"`}},
		{"a refusal of others", module, func(p *manifest.Policy) {
			p.Spec.Local.Reject = []manifest.PolicyReject{{Owner: "user:*", Runtime: manifest.RuntimeOCI, Reason: "x"}, {Owner: "org:*", Reason: "x"}, {Image: "ghcr.io/*", Reason: "x"}, {Reason: "nothing matches everything"}}
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			policy := job.LocalPolicy(nil)
			if tt.change != nil {
				tt.change(policy)
			}
			var got []string
			for i, r := range job.Allowed(policy, read(t, tt.spec)) {
				text := r.Field + ": " + r.Msg
				if i < len(tt.want) && strings.HasPrefix(text, tt.want[i]) {
					text = tt.want[i]
				}
				if r.Cure == "" {
					t.Errorf("%s has no cure", text)
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestRoles(t *testing.T) {
	doc := read(t, "image: file:///words.wasm#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: wasm")
	for _, tt := range []struct {
		name    string
		issuers []manifest.PolicyIssuer
		want    []string
	}{
		{"nobody", nil, nil},
		{"anyone's", []manifest.PolicyIssuer{{Role: "job"}}, []string{"job"}},
		{"by owner", []manifest.PolicyIssuer{{Role: "peer", Owners: []string{"org:*"}}, {Role: "job", Owners: []string{"user:al*"}}}, []string{"job"}},
		{"by runtime", []manifest.PolicyIssuer{{Role: "job", Runtimes: []manifest.Runtime{"oci"}}, {Role: "governance", Runtimes: []manifest.Runtime{"wasm"}}}, []string{"governance"}},
		{"once", []manifest.PolicyIssuer{{Role: "job"}, {Role: "job"}}, []string{"job"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			policy := job.LocalPolicy(nil)
			policy.Spec.Issuers = tt.issuers
			if diff := cmp.Diff(tt.want, job.Roles(policy, doc)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestDue(t *testing.T) {
	doc := read(t, "image: file:///words.wasm#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: wasm\nnotBefore: \"2026-02-01T00:00:00Z\"")
	doc.Metadata.Expires = "2026-03-01T00:00:00Z"
	for at, want := range map[string]int{
		"2026-01-31T23:59:59Z": 1, "2026-02-01T00:00:00Z": 0, "2026-02-28T23:59:59Z": 0, "2026-03-01T00:00:00Z": 1,
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := job.Due(doc, when); len(got) != want {
			t.Errorf("at %s: %v, want %d reasons", at, got, want)
		}
	}
}
