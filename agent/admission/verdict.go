package admission

import (
	"fmt"
	"slices"
	"strings"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
	"arch.network/runner/job"
)

// Check names what a reason comes from.
type Check string

// The checks, in the order of a verdict's reasons.
const (
	CheckEnvelope    Check = "envelope"    // it is no envelope of a valid Job
	CheckSignature   Check = "signature"   // nobody who may issue jobs signed it
	CheckPolicy      Check = "policy"      // the policy in force is over
	CheckQuorum      Check = "quorum"      // too few of those who must sign did
	CheckTime        Check = "time"        // too early, or too late
	CheckAudience    Check = "audience"    // it is for other nodes
	CheckReplay      Check = "replay"      // it was accepted before, or its nonce was
	CheckRules       Check = "rules"       // runtime, capabilities, resources, the operator's own refusals
	CheckConditions  Check = "conditions"  // a condition of the policy does not hold
	CheckPlacement   Check = "placement"   // a placement constraint of the job does not hold here
	CheckLimits      Check = "limits"      // it could never run, however idle the node
	CheckAttestation Check = "attestation" // something that the policy demands is not proven
)

// Reason is one thing that speaks against a job.
type Reason struct {
	Check Check  `json:"check"`
	Field string `json:"field,omitempty"` // of the document, such as "spec.capabilities.net[0]"
	Msg   string `json:"msg"`             // a sentence without a capital
	Cure  string `json:"cure,omitempty"`  // what would have to change
}

// Verdict is whether a job may run on this node, and why.
type Verdict struct {
	Admitted bool          `json:"admitted"`
	Job      digest.SHA256 `json:"job,omitzero"` // document id; zero: it was no envelope
	Name     string        `json:"name,omitempty"`
	Owner    string        `json:"owner,omitempty"`
	At       string        `json:"at"` // RFC 3339, UTC, to the second
	Policy   Document      `json:"policy"`
	Root     Document      `json:"trustRoot"`
	// Graced says that the policy or the trust root has expired, and only its own offlineGrace lets it count.
	Graced  bool     `json:"graced,omitempty"`
	Reasons []Reason `json:"reasons,omitempty"` // everything that speaks against it; empty if and only if it is admitted

	// The rest is there only if the job is admitted.

	Issued   *Issued  `json:"issued,omitempty"`
	Limits   *Limits  `json:"limits,omitempty"`
	Replicas int      `json:"replicas,omitempty"` // how many executions must agree, at least 1
	Demands  []Demand `json:"demands,omitempty"`  // what must be proven of its image and inputs before they are used
}

// Document names a document.
type Document struct {
	Name    string        `json:"name"`
	Version int64         `json:"version"`
	ID      digest.SHA256 `json:"id"`
}

// Issued is the rule of the policy by which a job was issued.
type Issued struct {
	Rule       int      `json:"rule"` // index in spec.issuers of the policy
	Role       string   `json:"role"`
	Principals []string `json:"principals"` // who signed and counts, sorted
	Operators  []string `json:"operators"`  // who runs them, sorted
}

// Limits are the most that one execution may use: what the job asks for, within the policy's bounds.
type Limits struct {
	CPU       int64   `json:"cpuMilli"` // thousandths of a processor; zero: no limit
	Memory    int64   `json:"memory"`   // bytes
	Scratch   int64   `json:"scratch"`  // bytes
	Output    int64   `json:"output"`   // bytes
	Processes int     `json:"processes"`
	Gas       int64   `json:"gas,omitempty"`          // zero: no limit
	Power     float64 `json:"powerBudgetW,omitempty"` // watts; zero: no limit
	Timeout   int64   `json:"timeoutMs"`              // of wall-clock time
}

// Demand is what the policy demands to be proven of one thing that a job pins.
type Demand struct {
	Field string       `json:"field"` // "spec.image" or "spec.inputs.NAME"
	Ref   manifest.Ref `json:"ref"`
	Rules []int        `json:"rules"` // indices in spec.attestations of the policy; all must hold
}

// Canonical returns the one form of the verdict in bytes (RFC 8785).
func (v *Verdict) Canonical() ([]byte, error) { return canonical.Marshal(v) }

// Summary says in one sentence what was decided.
func (v *Verdict) Summary() string {
	name := v.Name
	if name == "" {
		name = v.Job.String()
	}
	if v.Admitted {
		return fmt.Sprintf("job %s is admitted: %s signed as role %s, policy %s version %d", name, strings.Join(v.Issued.Principals, ", "), v.Issued.Role, v.Policy.Name, v.Policy.Version)
	}
	more := ""
	if n := len(v.Reasons) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more reasons)", n)
	}
	return fmt.Sprintf("job %s is refused: %s%s", name, v.Reasons[0].Msg, more)
}

func limitsOf(l runner.Limits, gas int64) *Limits {
	return &Limits{
		CPU: l.CPU, Memory: l.Memory, Scratch: l.Scratch, Output: l.Output, Processes: l.Processes, Gas: gas,
		Power: l.Power, Timeout: l.Wall.Milliseconds(),
	}
}

// reasonsOf tells from which check reasons come.
func reasonsOf(check Check, list []job.Reason) []Reason {
	out := make([]Reason, len(list))
	for i, r := range list {
		out[i] = Reason{Check: check, Field: r.Field, Msg: r.Msg, Cure: r.Cure}
	}
	return out
}

// Refuse returns the verdict with what was found afterwards to speak against the job, such as by Attested; without reasons, the verdict
// itself.
func (v *Verdict) Refuse(reasons []Reason) *Verdict {
	if len(reasons) == 0 {
		return v
	}
	out := *v
	out.Admitted, out.Issued, out.Limits, out.Replicas, out.Demands = false, nil, nil, 0, nil
	out.Reasons = slices.Concat(v.Reasons, reasons)
	return &out
}
