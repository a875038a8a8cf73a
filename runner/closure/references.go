package closure

import (
	"context"
	"fmt"
	"io"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// Content is what is in a store path.
type Content struct {
	NAR        digest.SHA256
	Size       int64    // bytes of the NAR
	References []string // those of the candidates that it refers to, sorted
}

// Read hashes what lies at source, and finds which of the candidates, store paths of one store, it refers to, as Nix finds them when it
// registers a build. Both see the same bytes. Candidates that are no store paths are left out.
func Read(ctx context.Context, source string, candidates []string) (Content, error) {
	scan := newScanner("/", newCandidates(candidates)) // a path that is no candidate is of no interest
	var sum digest.Writer
	if err := nar.Dump(ctx, io.MultiWriter(&sum, scan), source, nar.Options{}); err != nil {
		return Content{}, fmt.Errorf("read store path %s: %w", source, err)
	}
	found, _ := scan.finish()
	return Content{sum.Sum(), sum.Size(), found}, nil
}
