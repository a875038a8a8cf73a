package content

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/store"
)

// Outputs names what was collected, each tree in the store by its NAR hash, by all its digests. The error is a *LinkError if
// an output leads out of itself.
func Outputs(s *store.Store, doc *manifest.Job, trees map[string]digest.SHA256) ([]attest.JobOutput, error) {
	var out []attest.JobOutput
	for _, name := range slices.Sorted(maps.Keys(doc.Spec.Outputs)) {
		sum := trees[name]
		path, ok := s.TreePath(sum)
		if !ok {
			return nil, fmt.Errorf("output %s: the runner did not deliver it", name)
		}
		o := attest.JobOutput{Name: name, NAR: sum}
		info, err := os.Lstat(path)
		if err == nil && info.Mode().IsRegular() {
			o.File, err = hashFile(path)
		}
		if err != nil {
			return nil, err
		}
		if err := checkLinks(name, path); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// LinkError says that an output holds a symbolic link that leads out of it: whoever opens what the job left must not be shown
// another file of this machine as if the job had made it.
type LinkError struct{ Output, Path, To string }

func (e *LinkError) Error() string {
	return fmt.Sprintf("output %s of the job is refused: %q is a symbolic link that leads out of it, to %q", e.Output, e.Path, e.To)
}

// Hint tells the way out.
func (e *LinkError) Hint() string {
	return "have the job write files, or links that stay within the output"
}

func checkLinks(name, root string) error {
	return filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if !filepath.IsAbs(to) && rel != "." && filepath.IsLocal(filepath.Join(filepath.Dir(rel), to)) {
			return nil
		}
		return &LinkError{Output: name, Path: rel, To: to}
	})
}

// DiffersError says that an output is not what the document says it must be.
type DiffersError struct {
	Job, Output string
	Want, Got   digest.SHA256
}

func (e *DiffersError) Error() string {
	return fmt.Sprintf("output %s of job %s is %s, but the document expects %s", e.Output, e.Job, e.Got, e.Want)
}

// Compare holds the outputs to what the document expects: spec.expected, and outputs that are pinned. It returns every
// difference, in the order of the outputs.
func Compare(doc *manifest.Job, outputs []attest.JobOutput) []*DiffersError {
	var out []*DiffersError
	differ := func(name string, want, got digest.SHA256) {
		if want != got {
			out = append(out, &DiffersError{Job: doc.Metadata.Name, Output: name, Want: want, Got: got})
		}
	}
	for _, o := range outputs {
		if want, ok := doc.Spec.Expected[o.Name]; ok {
			differ(o.Name, want, o.NAR)
		}
		target := doc.Spec.Outputs[o.Name]
		switch {
		case target.Destination != "":
		case target.Ref.Scheme == manifest.RefTree:
			differ(o.Name, target.Ref.Digest, o.NAR)
		default:
			differ(o.Name, target.Ref.Digest, o.File)
		}
	}
	return out
}

// Comparable reports whether an output can be held to a pinned target: a tree by its NAR hash, a file by that of its bytes. A
// CID of the codec raw is one; others name a block that depends on how the file was cut.
func Comparable(t manifest.Target) bool {
	switch t.Ref.Scheme {
	case manifest.RefTree, manifest.RefURL, manifest.RefModel, "":
		return true
	case manifest.RefCID:
		return strings.HasPrefix(t.Ref.Location, "ipfs://bafkrei") || strings.HasPrefix(t.Ref.Location, "bafkrei")
	}
	return false
}
