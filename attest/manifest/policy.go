package manifest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"arch.network/attest/digest"
)

// Policy says what a node, or whoever verifies an artifact, accepts. It needs the policy role's quorum of the trust root.
// metadata.expires is required.
type Policy struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   Metadata    `json:"metadata"`
	Spec       PolicySpec  `json:"spec"`
	Signatures []Signature `json:"signatures,omitempty"`
}

// PolicySpec is the body of a Policy. What it does not allow is refused.
type PolicySpec struct {
	// Version counts the versions of this policy: 1 for the first, and exactly one more for each that follows.
	Version int64 `json:"version" schema:"min=1"`
	// TrustRoot is the document id of the trust root that the policy was written for. Zero: whichever is in force.
	TrustRoot digest.SHA256 `json:"trustRoot,omitzero"`
	// OfflineGrace is for how long after metadata.expires jobs may still start on a node that cannot fetch a newer policy.
	// Empty: not at all.
	OfflineGrace Duration `json:"offlineGrace,omitempty" example:"72h"`
	// Issuers say who may have jobs run.
	Issuers []PolicyIssuer `json:"issuers,omitempty"`
	// Runtimes are those that may be used.
	Runtimes []Runtime `json:"runtimes,omitempty"`
	// Degradations names the guarantees that may be missing on a host, as a receipt's confinement record spells them. own-process lets
	// jobs of one owner that run the same module follow each other in one process, which is many times faster for small ones; a module
	// that broke out of the engine would meet that owner's next inputs, and nobody else's.
	Degradations []string `json:"degradations,omitempty" schema:"pattern=filename"`
	// Capabilities are what jobs may ask for.
	Capabilities PolicyCapabilities `json:"capabilities,omitzero"`
	// Resources are the most that jobs may use.
	Resources PolicyResources `json:"resources,omitzero"`
	// Conditions hold jobs to facts about the node, the job and the hour. All that concern a job must hold.
	Conditions []PolicyCondition `json:"conditions,omitempty"`
	// Attestations are what must be proven of an artifact or image before it is accepted.
	Attestations []PolicyAttestation `json:"attestations,omitempty"`
	// Facts are the node's own facts that placement constraints are compared with, beside the measured ones.
	Facts map[string]Raw `json:"facts,omitempty" schema:"keys=factKey types=number|string|boolean"`
	// Jurisdictions label where the node's laws come from, such as eu or ch.
	Jurisdictions []string `json:"jurisdictions,omitempty" schema:"pattern=label"`
	// Validation says how results are checked.
	Validation PolicyValidation `json:"validation,omitzero"`
	// Queue bounds and shares what waits.
	Queue PolicyQueue `json:"queue,omitzero"`
	// Retention says how long things are kept.
	Retention PolicyRetention `json:"retention,omitzero"`
	// Local are the node operator's own overrides, which only ever narrow the rest.
	Local PolicyLocal `json:"local,omitzero"`
}

// PolicyIssuer lets a role of the trust root issue jobs for some owners.
type PolicyIssuer struct {
	// Role is the role of the trust root whose quorum must have signed.
	Role string `json:"role" schema:"enum=job|policy|playbook|governance|builder|rebuilder|peer"`
	// Owners are patterns of metadata.owner, such as user:alice or org:*. Empty: every owner.
	Owners []string `json:"owners,omitempty" schema:"pattern=pattern"`
	// Runtimes narrows the runtimes. Empty: all that the policy allows.
	Runtimes []Runtime `json:"runtimes,omitempty"`
}

// PolicyCapabilities are what jobs may ask for.
type PolicyCapabilities struct {
	// Allow lists patterns: egress:PORT, egress:HOST:PORT, read:/PATH, write:/PATH (with everything below), device:NAME,
	// clock:real, randomness:real, and checkpoint: modules that were prepared to be stopped and to go on, and that count their gas
	// themselves. A * stands for any run of characters but '/' and ':'.
	Allow []string `json:"allow,omitempty" schema:"pattern=capability" example:"egress:443"`
}

// PolicyResources are the most that jobs may use, at three levels.
type PolicyResources struct {
	// Job bounds each job; a job that asks for nothing gets it.
	Job JobResources `json:"job,omitzero"`
	// Owner bounds all running jobs of one owner.
	Owner JobResources `json:"owner,omitzero"`
	// Node bounds all running jobs.
	Node JobResources `json:"node,omitzero"`
	// Timeout is the longest time of an execution.
	Timeout Duration `json:"timeout,omitempty" example:"6h"`
}

// PolicyCondition holds the jobs that it concerns to facts. It only ever narrows what the rest allows.
type PolicyCondition struct {
	// Owners are patterns of metadata.owner. Empty: every owner.
	Owners []string `json:"owners,omitempty" schema:"pattern=pattern" example:"org:*"`
	// Runtimes are those of the jobs. Empty: all.
	Runtimes []Runtime `json:"runtimes,omitempty"`
	// Images are patterns of the image's location. Empty: every image.
	Images []string `json:"images,omitempty" schema:"pattern=pattern"`
	// Capabilities are patterns as in capabilities.allow; jobs that ask for something that one of them covers are meant. Empty: all
	// jobs.
	Capabilities []string `json:"capabilities,omitempty" schema:"pattern=capability"`
	// Require must all hold, of the node's facts (energy.price_eur_kwh) and of job.owner, job.runtime, job.image, job.capabilities,
	// job.cpu, job.memory, job.gpu, job.timeout_s, job.priority, job.replicas, time.hour (UTC) and time.weekday (Monday is 1).
	Require []Constraint `json:"require"`
	// Reason says why, for whoever submits a job that does not fit.
	Reason string `json:"reason" schema:"maxLen=256" example:"heavy jobs run when power is cheap"`
}

// PolicyAttestation demands a proof about every artifact or image that it matches. All that match must hold.
type PolicyAttestation struct {
	// Match is a pattern of the reference's location or of the artifact's name. A * stands for any run of characters but
	// '/', ** for any run of characters. Empty: everything.
	Match string `json:"match,omitempty" schema:"pattern=pattern" example:"ghcr.io/arch/**"`
	// PredicateType is the type of the in-toto predicate. Empty: SLSA Provenance v1.
	PredicateType string `json:"predicateType,omitempty" schema:"pattern=typeURI" example:"https://slsa.dev/provenance/v1"`
	// Role is the role of the trust root whose members count.
	Role string `json:"role" schema:"enum=builder|rebuilder|peer|governance|policy|playbook|job"`
	// Threshold is how many distinct principals must have signed. Zero: the role's own threshold.
	Threshold int `json:"threshold,omitempty" schema:"min=0 max=256"`
	// Operators is how many distinct operators must be among them. Zero: no demand.
	Operators int `json:"operators,omitempty" schema:"min=0 max=256"`
	// BuilderIDs are the builder ids that count. Empty: any.
	BuilderIDs []string `json:"builderIDs,omitempty" schema:"pattern=typeURI"`
	// Reproduced demands that they built the artifact independently with equal bits.
	Reproduced bool `json:"reproduced,omitempty"`
}

// PolicyValidation says how results are checked.
type PolicyValidation struct {
	// SampleRate is the share of jobs that the node runs a second time by itself, from 0 to 1.
	SampleRate float64 `json:"sampleRate,omitempty" schema:"min=0 max=1" example:"0.05"`
	// MinReplicas is how many executions must agree whatever the job asks for. Zero: what the job asks for.
	MinReplicas int `json:"minReplicas,omitempty" schema:"min=0 max=64"`
	// QuarantineOnAnomaly holds results back when the runner saw an anomaly.
	QuarantineOnAnomaly bool `json:"quarantineOnAnomaly,omitempty"`
}

// PolicyQueue bounds and shares what waits.
type PolicyQueue struct {
	// Max is the most jobs that wait. Zero: the agent's default.
	Max int `json:"max,omitempty" schema:"min=0 max=1000000"`
	// PerOwner is the most jobs of one owner that wait. Zero: Max.
	PerOwner int `json:"perOwner,omitempty" schema:"min=0 max=1000000"`
	// Weights are the owners' shares of the node, by patterns of metadata.owner. An owner without a weight has 1.
	Weights map[string]int `json:"weights,omitempty" schema:"keys=pattern min=1 max=10000"`
}

// PolicyRetention says how long things are kept. Empty: for ever.
type PolicyRetention struct {
	// Results are outputs in the store.
	Results Duration `json:"results,omitempty" example:"90d"`
	// Logs are what jobs printed.
	Logs Duration `json:"logs,omitempty" example:"30d"`
	// Archive is what replaying needs: manifest, image, inputs, result.
	Archive Duration `json:"archive,omitempty" example:"3650d"`
	// Ended is all that is kept of jobs that were refused, failed or were cancelled, but the ledger's entries. Empty: as long as Archive.
	Ended Duration `json:"ended,omitempty" example:"30d"`
	// PinsOnly are patterns of references of which the archive keeps only the pin, for licence or privacy.
	PinsOnly []string `json:"pinsOnly,omitempty" schema:"pattern=pattern"`
}

// PolicyLocal are a node operator's own overrides, which only ever narrow the rest.
type PolicyLocal struct {
	// Reject refuses jobs.
	Reject []PolicyReject `json:"reject,omitempty"`
	// Cap bounds each job further.
	Cap JobResources `json:"cap,omitzero"`
	// PreferLocal runs jobs of the node's own owner first.
	PreferLocal bool `json:"preferLocal,omitempty"`
	// Owner is who the node's own jobs belong to.
	Owner string `json:"owner,omitempty" schema:"pattern=owner"`
}

// PolicyReject refuses the jobs that all its fields match.
type PolicyReject struct {
	// Owner is a pattern of metadata.owner. Empty: any.
	Owner string `json:"owner,omitempty" schema:"pattern=pattern"`
	// Image is a pattern of the image's location. Empty: any.
	Image string `json:"image,omitempty" schema:"pattern=pattern"`
	// Runtime is the job's runtime. Empty: any.
	Runtime Runtime `json:"runtime,omitempty"`
	// Reason is told to whoever submitted the job.
	Reason string `json:"reason" schema:"maxLen=256" example:"no jobs during the exam week"`
}

// DocumentKind returns "Policy".
func (*Policy) DocumentKind() string { return "Policy" }

// Head returns the document's metadata.
func (d *Policy) Head() *Metadata { return &d.Metadata }

// Validate checks the fields and how they fit together.
func (d *Policy) Validate() error { return validate(d) }

func (d *Policy) related(p *problems) {
	if d.Metadata.Expires == "" {
		p.add("metadata.expires", "add expires, such as \"2027-01-31T12:00:00Z\"", "missing; a policy that never expires could be frozen for ever")
	}
	for i, a := range d.Spec.Attestations {
		at := fmt.Sprintf("spec.attestations[%d]", i)
		if a.Threshold > 0 && a.Operators > a.Threshold {
			p.add(at+".operators", "", "%d operators cannot be among %d principals", a.Operators, a.Threshold)
		}
		if a.Reproduced && a.Threshold == 1 {
			p.add(at+".threshold", "demand at least 2, or leave it to the role", "one principal alone cannot show that a build is reproducible")
		}
	}
	for i, c := range d.Spec.Capabilities.Allow {
		relateAllow(p, fmt.Sprintf("spec.capabilities.allow[%d]", i), c)
	}
	for i, c := range d.Spec.Conditions {
		for k, r := range c.Require {
			r.relate(p, fmt.Sprintf("spec.conditions[%d].require[%d]", i, k))
		}
		for k, allow := range c.Capabilities {
			relateAllow(p, fmt.Sprintf("spec.conditions[%d].capabilities[%d]", i, k), allow)
		}
	}
	for i, r := range d.Spec.Local.Reject {
		if r.Owner == "" && r.Image == "" && r.Runtime == "" {
			p.add(fmt.Sprintf("spec.local.reject[%d]", i), "to stop a node, drain it; to match everything, write owner: \"*\"", "it names nothing to match")
		}
	}
	d.relateResources(p)
}

// relateAllow wants clean paths, so that a pattern matches what it looks like.
func relateAllow(p *problems, at, allow string) {
	kind, value, _ := strings.Cut(allow, ":")
	if (kind == "read" || kind == "write") && path.Clean(value) != value {
		p.add(at, "write "+kind+":"+path.Clean(value), "%q is not a clean path", value)
	}
}

func (d *Policy) relateResources(p *problems) {
	levels := map[string]JobResources{
		"spec.resources.job": d.Spec.Resources.Job, "spec.resources.owner": d.Spec.Resources.Owner,
		"spec.resources.node": d.Spec.Resources.Node, "spec.local.cap": d.Spec.Local.Cap,
	}
	for _, at := range slices.Sorted(maps.Keys(levels)) {
		r := levels[at]
		checkBytes(p, at+".memory", r.Memory)
		checkBytes(p, at+".scratch", r.Scratch)
		checkBytes(p, at+".output", r.Output)
	}
}
