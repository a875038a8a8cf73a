package manifest

import "fmt"

// Playbook lets a steward act by itself within bounds: authority of class B. It needs the playbook role's quorum of the
// trust root. metadata.expires is required.
type Playbook struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Metadata   Metadata     `json:"metadata"`
	Spec       PlaybookSpec `json:"spec"`
	Signatures []Signature  `json:"signatures,omitempty"`
}

// PlaybookSpec is the body of a Playbook.
type PlaybookSpec struct {
	// Version counts the versions of this playbook: 1 for the first, and exactly one more for each that follows.
	Version int64 `json:"version" schema:"min=1"`
	// Holders are the identities that may act by the playbook.
	Holders []string `json:"holders" schema:"pattern=identity"`
	// Actions are what they may do.
	Actions []PlaybookAction `json:"actions"`
}

// PlaybookAction is one thing that a playbook allows.
type PlaybookAction struct {
	// Name names the action, such as restart-unit or shift-load.
	Name string `json:"name" schema:"pattern=filename" example:"shift-load"`
	// When must all hold.
	When []Constraint `json:"when,omitempty"`
	// Targets are patterns of what the action may touch.
	Targets []string `json:"targets,omitempty" schema:"pattern=pattern"`
	// MaxPerHour is how often it may be done in any hour, counted from the ledger.
	MaxPerHour int `json:"maxPerHour" schema:"min=1 max=3600"`
	// MaxShare is the largest share of nodes or jobs that it may touch at one time, from 0 to 1. Zero: one at a time.
	MaxShare float64 `json:"maxShare,omitempty" schema:"min=0 max=1"`
	// Rollback names the action of this playbook that undoes it. Empty: it needs no undoing.
	Rollback string `json:"rollback,omitempty" schema:"pattern=filename"`
}

// DocumentKind returns "Playbook".
func (*Playbook) DocumentKind() string { return "Playbook" }

// Head returns the document's metadata.
func (d *Playbook) Head() *Metadata { return &d.Metadata }

// Validate checks the fields and how they fit together.
func (d *Playbook) Validate() error { return validate(d) }

func (d *Playbook) related(p *problems) {
	if d.Metadata.Expires == "" {
		p.add("metadata.expires", "add expires, such as \"2027-01-31T12:00:00Z\"", "missing; authority must end")
	}
	names := map[string]int{}
	for i, a := range d.Spec.Actions {
		if first, dup := names[a.Name]; dup {
			p.add(fmt.Sprintf("spec.actions[%d].name", i), "give each action its own name", "spec.actions[%d] has the name %q already", first, a.Name)
		}
		names[a.Name] = i
	}
	for i, a := range d.Spec.Actions {
		at := fmt.Sprintf("spec.actions[%d]", i)
		if _, ok := names[a.Rollback]; a.Rollback != "" && !ok {
			p.add(at+".rollback", didYouMean(a.Rollback, keysOf(names)), "there is no action %q", a.Rollback)
		}
		for j, c := range a.When {
			c.relate(p, fmt.Sprintf("%s.when[%d]", at, j))
		}
	}
}
