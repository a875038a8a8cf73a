package main

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
	"arch.network/builder/publish"
	"arch.network/runner/job"
)

// jobTarget is a Job that was read, and what was found out about who made it and who allows it.
type jobTarget struct {
	doc      *manifest.Job
	env      *dsse.Envelope
	id       digest.SHA256
	dir      string   // absolute directory of the file; content may lie there
	file     string   // as given
	travels  bool     // it is an envelope, the form in which documents come from somebody else
	signers  []string // whose signatures verify, by the keys that they name
	policy   *manifest.Policy
	policyID digest.SHA256 // zero: there is no policy

	driver    driver // that will confine it
	byBroker  bool   // it is the broker, which judges by a policy of its own
	allowedBy string // a phrase for people

	registries map[string]*publish.Registry // that outputs are pushed to, by name
}

// readJob reads a job and verifies every signature that it carries. Arguments of one's own make a new document of one that
// nobody signed.
func (a *app) readJob(path string, args []string) (*jobTarget, error) {
	src, err := a.readFile(path, dsse.MaxEnvelope)
	if err != nil {
		return nil, hinted(fmt.Errorf("read job: %w", err), "name a YAML document of kind Job, or its DSSE envelope")
	}
	t := &jobTarget{file: path, travels: isEnvelope(src)}
	doc, err := t.parse(src)
	if err != nil {
		return nil, inFile(err, path)
	}
	var ok bool
	if t.doc, ok = doc.(*manifest.Job); !ok {
		hint := "arch run takes documents of kind Job"
		if doc.DocumentKind() == "Build" {
			hint = "arch build makes what a Build describes"
		}
		return nil, hinted(fmt.Errorf("%s is a %s, not a Job", path, doc.DocumentKind()), hint)
	}
	if err := t.verifySignatures(); err != nil {
		return nil, err
	}
	if len(args) > 0 {
		if len(t.env.Signatures) > 0 {
			return nil, hinted(usage("arguments would make of %s another job than the one that was signed", path), "leave them out, or run an unsigned document of your own")
		}
		t.doc.Spec.Args = append(t.doc.Spec.Args, args...)
		if err := t.doc.Validate(); err != nil {
			return nil, usage("%v", err)
		}
	}
	if t.id, err = manifest.ID(t.doc); err != nil {
		return nil, err
	}
	t.dir, err = filepath.Abs(filepath.Dir(path))
	return t, err
}

// parse reads either carrier. What is run later is the document within the envelope, whose bytes were verified.
func (t *jobTarget) parse(src []byte) (doc manifest.Document, err error) {
	if t.travels {
		if t.env, doc, err = openEnvelope(src); err == nil {
			err = doc.Validate()
		}
		return doc, err
	}
	if doc, err = manifest.ReadYAML(src); err != nil {
		return nil, err
	}
	t.env, err = manifest.Wrap(doc)
	return doc, err
}

// verifySignatures wants every signature to be good, whoever it is from.
func (t *jobTarget) verifySignatures() error {
	for _, s := range checkSignatures(t.env, nil, "") {
		if !s.Valid {
			return hinted(withStatus(exitVerification, fmt.Errorf("%s: signature by %s: %s", t.file, s.By, s.Error)),
				"the document was changed after it was signed, or the signature belongs to another one")
		}
		t.signers = append(t.signers, s.By)
	}
	return nil
}

// admit finds out whether the job may run: by its signatures, the calendar and the policy.
func (a *app) admit(t *jobTarget, o runOptions, at time.Time) error {
	t.policy = job.LocalPolicy(o.allow)
	t.driver = chooseDriver(o.driver, len(t.env.Signatures) > 0)
	t.byBroker = t.driver.name == driverBroker
	var trust *attest.Trust
	if o.policy != "" || o.trust != "" || t.travels && !o.unverified && !t.byBroker {
		var err error
		if _, trust, err = a.openTrust(o.trust); err != nil {
			return err
		}
	}
	if o.policy != "" {
		var err error
		if t.policy, t.policyID, err = a.openPolicy(o.policy, attest.VerifyInput{Trust: trust, At: at}); err != nil {
			return err
		}
	}
	if trust != nil {
		if err := t.checkQuorum(trust.Root(), at); err != nil {
			return err
		}
	} else {
		t.tellWhoAllows(a)
	}
	reasons := job.Due(t.doc, at)
	if !t.byBroker || !t.policyID.IsZero() {
		reasons = append(reasons, job.Allowed(t.policy, t.doc)...)
		reasons = append(reasons, job.Conditions(t.policy, t.doc, at, job.Facts{})...)
	}
	if len(reasons) > 0 {
		return denied(&job.DeniedError{Job: t.doc.Metadata.Name, Policy: t.policy.Metadata.Name, Reasons: reasons})
	}
	return nil
}

// checkQuorum wants the quorum of one of the roles that may issue the job.
func (t *jobTarget) checkQuorum(root *quorum.Root, at time.Time) error {
	roles := []string{manifest.RoleJob}
	if !t.policyID.IsZero() {
		if roles = job.Roles(t.policy, t.doc); len(roles) == 0 {
			return hinted(withStatus(exitDenied, fmt.Errorf("job %s: policy %s lets nobody issue jobs of %s", t.doc.Metadata.Name, t.policy.Metadata.Name, cmp.Or(t.doc.Metadata.Owner, "no owner"))),
				"add to the policy: issuers: [{role: job}]")
		}
	}
	var why []string
	for _, role := range roles {
		d := root.Evaluate(role, t.env.Verified(root.KeysAt(role, at)), at, quorum.Options{})
		if d.OK {
			t.allowedBy = fmt.Sprintf("by the quorum of role %s: %s", role, strings.Join(d.Principals, ", "))
			if !t.policyID.IsZero() {
				t.allowedBy += ", and by policy " + t.policy.Metadata.Name
			}
			return nil
		}
		why = append(why, fmt.Sprintf("role %s: %s", role, strings.Join(d.Reasons, "; ")))
	}
	hint := "have enough of the role sign it: arch sign FILE"
	if t.travels && t.policyID.IsZero() {
		hint += "; --unverified runs it although nobody whom you trust signed it"
	}
	return hinted(withStatus(exitDenied, fmt.Errorf("job %s: the quorum that may issue it has not signed: %s", t.doc.Metadata.Name, strings.Join(why, "; "))), hint)
}

// tellWhoAllows says that nobody but the user does.
func (t *jobTarget) tellWhoAllows(a *app) {
	t.allowedBy = "by you, as nobody else was asked"
	switch {
	case t.byBroker:
		t.allowedBy = "if the broker does"
	case len(t.env.Signatures) == 0:
		a.note("%s is not signed: it runs as your own", t.file)
	default:
		a.note("%s is signed by %s; nobody was asked whether they may: --trust and --policy do", t.file, strings.Join(t.signers, ", "))
	}
}

// degraded reports whether the policy accepts that every guarantee of the sandbox itself is missing.
func (t *jobTarget) degraded() bool {
	return slices.Contains(t.policy.Spec.Degradations, "namespaces")
}

// denied gives a refusal its exit status.
func denied(err error) error {
	if _, ok := errors.AsType[*job.DeniedError](err); ok {
		return withStatus(exitDenied, err)
	}
	return err
}

// jobSummary is how --json shows a job that is not run.
type jobSummary struct {
	Name      string            `json:"name"`
	ID        digest.SHA256     `json:"id"`
	Runtime   manifest.Runtime  `json:"runtime"`
	Image     string            `json:"image"`
	Inputs    map[string]string `json:"inputs"`
	Args      []string          `json:"args,omitempty"`
	May       []string          `json:"capabilities"`
	Signers   []string          `json:"signers"`
	AllowedBy string            `json:"allowedBy"`
	Policy    *digest.SHA256    `json:"policy,omitempty"`
}

func (jobSummary) kind() string { return "RunPlan" }

func (t *jobTarget) describe() jobSummary {
	s := &t.doc.Spec
	out := jobSummary{
		Name: t.doc.Metadata.Name, ID: t.id, Runtime: s.Runtime, Image: s.Image.String(), Inputs: map[string]string{}, Args: s.Args,
		May: []string{}, Signers: append([]string{}, t.signers...), AllowedBy: t.allowedBy,
	}
	for name, ref := range s.Inputs {
		out.Inputs[name] = ref.String()
	}
	for _, c := range job.Capabilities(t.doc) {
		out.May = append(out.May, c.Text)
	}
	if !t.policyID.IsZero() {
		out.Policy = &t.policyID
	}
	return out
}

// newInstance tells this execution apart from others of the same document.
func newInstance() string {
	var b [6]byte
	rand.Read(b[:]) // never fails: crypto/rand
	return hex.EncodeToString(b[:])
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
