package manifest

// Node advertises what one node offers, for a short time. It is signed by the node itself; metadata.expires is required.
type Node struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   Metadata    `json:"metadata"`
	Spec       NodeSpec    `json:"spec"`
	Signatures []Signature `json:"signatures,omitempty"`
}

// NodeSpec is the body of a Node.
type NodeSpec struct {
	// Identity is the node's own, such as did:key:z6Mk…
	Identity string `json:"identity" schema:"pattern=identity"`
	// Operator is who runs the node.
	Operator string `json:"operator,omitempty" schema:"pattern=owner" example:"org:example"`
	// Sequence grows with each advertisement of the node; only the newest counts.
	Sequence int64 `json:"sequence" schema:"min=0"`
	// Addresses are where the node can be reached, as multiaddresses.
	Addresses []string `json:"addresses,omitempty" schema:"pattern=multiaddr"`
	// Platform is what the node runs, as GOOS/GOARCH.
	Platform string `json:"platform,omitempty" schema:"pattern=platform" example:"linux/amd64"`
	// Runtimes are what it offers.
	Runtimes []Runtime `json:"runtimes,omitempty"`
	// Capacity is what it offers to jobs altogether.
	Capacity JobResources `json:"capacity,omitzero"`
	// Free is what of it was free when the advertisement was written.
	Free JobResources `json:"free,omitzero"`
	// Facts are what placement constraints are compared with.
	Facts map[string]Raw `json:"facts,omitempty" schema:"keys=factKey types=number|string|boolean"`
}

// DocumentKind returns "Node".
func (*Node) DocumentKind() string { return "Node" }

// Head returns the document's metadata.
func (d *Node) Head() *Metadata { return &d.Metadata }

// Validate checks the fields and how they fit together.
func (d *Node) Validate() error { return validate(d) }

func (d *Node) related(p *problems) {
	if d.Metadata.Expires == "" {
		p.add("metadata.expires", "add expires, such as \"2027-01-31T12:00:00Z\"", "missing; an advertisement is for a short time")
	}
}
