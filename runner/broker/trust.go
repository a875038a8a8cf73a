package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
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
	env, err := readDocument(f.TrustRoot)
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
	if env, err = readDocument(f.Policy); err != nil {
		return trust{}, fmt.Errorf("read policy: %w", err)
	}
	policy, id, err := attest.OpenPolicy(env, t, at, quorum.Options{})
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

// readDocument reads a file in either form. It looks at what it opened, not at what the name leads to afterwards.
func readDocument(path string) (*dsse.Envelope, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, &fileError{path, "it is no regular file", ""}
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return nil, &fileError{path, fmt.Sprintf("it belongs to user %d, who could change it", st.Uid), "chown root " + path}
	case st.Mode&0o022 != 0:
		return nil, &fileError{path, fmt.Sprintf("its mode is %04o: others may change it", st.Mode&0o777), "chmod go-w " + path}
	}
	data, err := io.ReadAll(io.LimitReader(f, dsse.MaxEnvelope+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > dsse.MaxEnvelope:
		return nil, &fileError{path, fmt.Sprintf("it has more than %d bytes", dsse.MaxEnvelope), ""}
	}
	env, err := openDocument(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return env, nil
}

// openDocument makes an envelope of either form.
func openDocument(data []byte) (*dsse.Envelope, error) {
	if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return dsse.Parse(data)
	}
	doc, err := manifest.ReadYAML(data)
	if err != nil {
		return nil, err
	}
	return manifest.Wrap(doc)
}

// errRollback says that a document is older than one that was in force.
var errRollback = errors.New("its version went down")
