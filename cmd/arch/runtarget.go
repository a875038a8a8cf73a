package main

import (
	"context"
	"fmt"
	"strings"

	"arch.network/attest"
	"arch.network/builder/publish"
)

// planTargets refuses, before anything runs, outputs that are to go where nothing can be published to from here, or where nobody asked it to. It opens the registries that there will be something to push to.
func (t *jobTarget) planTargets(ctx context.Context, o runOptions) error {
	t.registries = map[string]*publish.Registry{}
	for _, name := range sortedKeys(t.doc.Spec.Outputs) {
		to := t.doc.Spec.Outputs[name]
		place, isRegistry := strings.CutPrefix(to.Destination, "oci:")
		switch {
		case o.unpublished, to.Destination != "ipfs" && !isRegistry:
			continue
		case !isRegistry:
			return hinted(usage("output %s is to be published to IPFS, which arch run does not do", name),
				"--unpublished runs it and leaves the output here; ipfs://CID in the document has it compared with a CID")
		case !o.publish:
			return hinted(usage("output %s is to be published to %s, which is not done unasked", name, place),
				"--publish pushes it there with your credentials; --unpublished leaves it here")
		case o.offline:
			return hinted(usage("output %s is to be published to %s, but --offline is given", name, place), "leave out --offline, or add --unpublished")
		}
		r, err := publish.Open(ctx, place)
		if err != nil {
			return fmt.Errorf("output %s: %w", name, err)
		}
		t.registries[name] = r
	}
	return nil
}

// publish pushes the outputs that are to be pushed, in the order of their names, and returns those that were, also with an error.
func (e *execution) publish(ctx context.Context, outputs []attest.JobOutput) (pushed []attest.ResourceDescriptor, err error) {
	for _, o := range outputs {
		r := e.target.registries[o.Name]
		if r == nil {
			continue
		}
		path, ok := e.store.TreePath(o.NAR)
		if !ok {
			return pushed, fmt.Errorf("publish output %s: %s is not in the store", o.Name, o.NAR)
		}
		sum, err := r.Push(ctx, path, o.Name)
		if err != nil {
			return pushed, fmt.Errorf("output %s: %w", o.Name, err)
		}
		pushed = append(pushed, attest.Published(o.Name, e.target.doc.Spec.Outputs[o.Name].Destination, sum))
	}
	return pushed, nil
}
