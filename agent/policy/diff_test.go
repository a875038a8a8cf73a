package policy

import (
	"fmt"
	"testing"

	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	price := manifest.PolicyCondition{
		Owners: []string{"org:*"}, Capabilities: []string{"device:*"}, Reason: "power is dear",
		Require: []manifest.Constraint{{Key: "energy.price_eur_kwh", Op: manifest.OpLessEqual, Value: manifest.Raw("0.2")}},
	}
	tests := []struct {
		name   string
		change func(old, next *manifest.PolicySpec)
		want   []string
	}{
		{"nothing", func(_, _ *manifest.PolicySpec) {}, nil},
		{"an issuer", func(_, n *manifest.PolicySpec) {
			n.Issuers = []manifest.PolicyIssuer{{Role: "job"}, {Role: "peer", Owners: []string{"user:a", "org:*"}, Runtimes: []manifest.Runtime{"wasm"}}}
		}, []string{
			"more spec.issuers: role job may issue jobs of any owner", "more spec.issuers: role peer may issue jobs of user:a, org:* for runtime wasm",
		}},
		{"runtimes", func(o, n *manifest.PolicySpec) {
			o.Runtimes, n.Runtimes = []manifest.Runtime{"wasm", "oci"}, []manifest.Runtime{"nix", "wasm"}
		}, []string{
			"more spec.runtimes: jobs may use runtime nix", "less spec.runtimes: no longer: jobs may use runtime oci",
		}},
		{"bounds", func(o, n *manifest.PolicySpec) {
			o.Resources.Job = manifest.JobResources{CPU: "2", Memory: "2Gi", Processes: 10, Scratch: "1Gi"}
			n.Resources.Job = manifest.JobResources{CPU: "2000m", Memory: "4Gi", Processes: 5, Gas: 100}
			o.Resources.Timeout, n.Resources.Timeout = "1h", "60m"
		}, []string{
			"more spec.resources.job.memory: each job may use at most 4Gi memory, before 2Gi",
			"more spec.resources.job.scratch: each job may use scratch without this bound, before 1Gi",
			"less spec.resources.job.processes: each job may use at most 5 processes, before 10",
			"less spec.resources.job.gas: each job may use at most 100 gas; there was no such bound",
		}},
		{"times", func(o, n *manifest.PolicySpec) {
			o.OfflineGrace, n.OfflineGrace = "24h", ""
			n.Resources.Timeout = "1h"
		}, []string{
			"less spec.offlineGrace: after that, jobs still start for no time, before 24h", "other spec.resources.timeout: an execution may take 1h, before the default time",
		}},
		{"demands narrow", func(o, n *manifest.PolicySpec) {
			o.Conditions = []manifest.PolicyCondition{price}
			n.Attestations = []manifest.PolicyAttestation{{Match: "ghcr.io/**", Role: "rebuilder", Operators: 2, Reproduced: true}}
			n.Local.Reject = []manifest.PolicyReject{{Owner: "user:m", Reason: "abuse"}}
		}, []string{
			`more spec.conditions: no longer: a job with owner org:* and device:* needs energy.price_eur_kwh <= 0.2 ("power is dear")`,
			"less spec.attestations: ghcr.io/** needs proof: the quorum of role rebuilder, 2 operators, equal bits from independent builds",
			`less spec.local.reject: the operator refuses jobs with owner user:m ("abuse")`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old, next := &manifest.Policy{}, &manifest.Policy{}
			tt.change(&old.Spec, &next.Spec)
			var got []string
			for _, c := range Diff(old, next) {
				got = append(got, fmt.Sprintf("%s %s: %s", c.Direction, c.Field, c.Text))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			// What one direction allows more, the other allows less.
			count := func(list []Change, d Direction) (n int) {
				for _, c := range list {
					if c.Direction == d {
						n++
					}
				}
				return n
			}
			back := Diff(next, old)
			if count(Diff(old, next), More) != count(back, Less) || count(Diff(old, next), Less) != count(back, More) {
				t.Errorf("backwards: %v", back)
			}
		})
	}
}
