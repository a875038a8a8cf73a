package manifest

import "arch.network/attest/digest"

// Directive orders one act. Its class says which authority it needs.
type Directive struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Metadata   Metadata      `json:"metadata"`
	Spec       DirectiveSpec `json:"spec"`
	Signatures []Signature   `json:"signatures,omitempty"`
}

// DirectiveSpec is the body of a Directive.
type DirectiveSpec struct {
	// Class is the class of authority.
	Class AuthorityClass `json:"class"`
	// Action names what is to be done.
	Action string `json:"action" schema:"pattern=filename" example:"shift-load"`
	// Target names what it is done to.
	Target string `json:"target,omitempty" schema:"pattern=pattern"`
	// Parameters are the action's own.
	Parameters map[string]Raw `json:"parameters,omitempty" schema:"keys=label"`
	// Playbook is the document id of the playbook that a directive of class B follows.
	Playbook digest.SHA256 `json:"playbook,omitzero"`
	// Reason says in one sentence, for people, why.
	Reason string `json:"reason" schema:"maxLen=512"`
	// NotBefore is the time before which nothing must be done, RFC 3339 in UTC to the second.
	NotBefore string `json:"notBefore,omitempty" schema:"pattern=time"`
	// Nonce makes two otherwise equal directives different documents.
	Nonce string `json:"nonce,omitempty" schema:"pattern=nonce"`
}

// AuthorityClass says which authority an act needs.
type AuthorityClass string

// The classes of authority.
const (
	ClassA AuthorityClass = "A" // autonomous optimisation within one node's remit
	ClassB AuthorityClass = "B" // only within a signed, versioned, expiring playbook
	ClassC AuthorityClass = "C" // a quorum
)

func (AuthorityClass) values() []string { return texts(ClassA, ClassB, ClassC) }

// DocumentKind returns "Directive".
func (*Directive) DocumentKind() string { return "Directive" }

// Head returns the document's metadata.
func (d *Directive) Head() *Metadata { return &d.Metadata }

// Validate checks the fields and how they fit together.
func (d *Directive) Validate() error { return validate(d) }

func (d *Directive) related(p *problems) {
	hasPlaybook := !d.Spec.Playbook.IsZero()
	if d.Spec.Class == ClassB && !hasPlaybook {
		p.add("spec.playbook", "add the document id of the playbook", "missing; class B acts only within a playbook")
	}
	if d.Spec.Class != ClassB && hasPlaybook {
		p.add("spec.playbook", "", "only class B follows a playbook; this is class %s", d.Spec.Class)
	}
}
