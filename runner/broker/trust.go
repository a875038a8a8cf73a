package broker

import (
	"errors"
	"fmt"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/docfile"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
)

// Files names what the broker trusts. Both are read anew for each job, so that a change counts at once. Each is a document in
// YAML or its DSSE envelope, and must be a regular file of root, or of the broker's user, that nobody else may write to.
type Files struct {
	TrustRoot string // trusted because it lies where it lies
	Policy    string // signed by the trust root's policy role
}

// trust is what a job is judged by.
type trust struct {
	root     *quorum.Root
	policy   *manifest.Policy
	policyID digest.SHA256
}

// load reads and verifies both files.
func (f Files) load(at time.Time) (trust, error) {
	env, err := docfile.Read(f.TrustRoot)
	if err != nil {
		return trust{}, fmt.Errorf("read trust root: %w", err)
	}
	doc, err := manifest.Payload(env)
	if err != nil {
		return trust{}, fmt.Errorf("read trust root %s: %w", f.TrustRoot, err)
	}
	root, ok := doc.(*manifest.TrustRoot)
	if !ok {
		return trust{}, fmt.Errorf("read trust root %s: it is a %s", f.TrustRoot, doc.DocumentKind())
	}
	t, err := attest.NewTrust(root)
	if err != nil {
		return trust{}, fmt.Errorf("read trust root %s: %w", f.TrustRoot, err)
	}
	if env, err = docfile.Read(f.Policy); err != nil {
		return trust{}, fmt.Errorf("read policy: %w", err)
	}
	policy, id, err := attest.OpenPolicy(env, t, at, trustOptions())
	if err != nil {
		return trust{}, fmt.Errorf("read policy %s: %w", f.Policy, err)
	}
	return trust{t.Root(), policy, id}, nil
}

// Check reads and verifies both files, as for a job at that time, and tells of what the policy is.
func (f Files) Check(at time.Time) (policy string, version int64, err error) {
	t, err := f.load(at)
	if err != nil {
		return "", 0, err
	}
	return t.policy.Metadata.Name, t.policy.Spec.Version, nil
}

// fileError says why a file is not believed.
type fileError struct {
	path, cause, cure string
}

func (e *fileError) Error() string { return e.path + ": " + e.cause }

// Hint tells the way out.
func (e *fileError) Hint() string { return e.cure }

// errRollback says that a document is older than one that was in force.
var errRollback = errors.New("its version went down")
