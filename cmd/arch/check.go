package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
)

func newCheckCommand(a *app) *cobra.Command {
	var trust, role, at string
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a document: is it valid, who signed it, and do they count",
		Long: `Check reads a YAML document or a DSSE envelope strictly, verifies every signature by the key it names, and, with --role,
whether the trust root's quorum for that role signed it.

A signature proves only that its key signed. Without --role nothing says that the key is anyone's whom you trust, so a
document without --role is never more than valid.

EXIT STATUS: 0 the document is valid, every signature verifies and, with --role, the quorum is met; 1 error, or the document is
not valid; 2 usage; 3 the quorum is not met; 4 a signature does not verify.`,
		Example: "  arch check build.yaml\n  arch check --role policy policy.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return runCheck(a, args[0], trust, role, at)
		},
	}
	c.Flags().StringVar(&trust, "trust", "", "trust root (default: trust.yaml in the configuration directory)")
	c.Flags().StringVar(&role, "role", "", "role whose quorum must have signed: "+strings.Join(manifest.Roles(), ", "))
	c.Flags().StringVar(&at, "at", "", "judge expiry and revocation at this time, RFC 3339 (default: now)")
	return c
}

// checkResult is what --json shows.
type checkResult struct {
	Kind       string           `json:"document"` // its kind
	Name       string           `json:"name"`
	ID         string           `json:"id"`
	Signatures []checkSignature `json:"signatures"`
	Expires    string           `json:"expires,omitempty"`
	Expired    bool             `json:"expired,omitempty"`
	Role       string           `json:"role,omitempty"`
	Reasons    []string         `json:"reasons,omitempty"`
	OK         bool             `json:"ok"`
}

func (checkResult) kind() string { return "SignatureCheck" }

type checkSignature struct {
	By    string `json:"by"`
	Valid bool   `json:"valid"`
	Error string `json:"error,omitempty"`

	unknown bool // nothing was verified: the key is not at hand
}

// cure is the way out where the signature does not verify.
func (s checkSignature) cure() string {
	if s.unknown {
		return "a signature names a large key by its id alone: name the trust root that holds the key, and the role, with --trust and --role"
	}
	return "the document was changed after it was signed, or the signature belongs to another one"
}

func (r checkResult) text(w *screen) {
	fmt.Fprintf(w, "%s %s\n  id %s\n", r.Kind, r.Name, r.ID)
	for _, s := range r.Signatures {
		if s.Valid {
			fmt.Fprintf(w, "  PASS signature by %s\n", s.By)
			continue
		}
		fmt.Fprintf(w, "  FAIL signature by %s: %s\n", s.By, s.Error)
	}
	if len(r.Signatures) == 0 {
		fmt.Fprintln(w, "  not signed")
	}
	if r.Expired {
		fmt.Fprintf(w, "  FAIL it expired on %s\n", r.Expires)
	}
	for _, reason := range r.Reasons {
		fmt.Fprintf(w, "  role %s: %s\n", r.Role, reason)
	}
}

func runCheck(a *app, path, trust, role, at string) error {
	when, err := parseTime("--at", at)
	if err != nil {
		return err
	}
	if role != "" && !slices.Contains(manifest.Roles(), role) {
		return usage("--role: %q is not one of %s", role, strings.Join(manifest.Roles(), ", "))
	}
	env, doc, err := a.readSigned(path)
	if err != nil {
		return err
	}
	res := checkResult{Kind: doc.DocumentKind(), Name: doc.Head().Name, ID: env.ID().String(), Role: role}
	var root *quorum.Root
	if role != "" {
		_, t, err := a.openTrust(trust)
		if err != nil {
			return err
		}
		root = t.Root()
	}
	res.Signatures = checkSignatures(env, root, role)
	var failure error
	if res.Expires = doc.Head().Expires; res.Expires != "" {
		expires, err := time.Parse(time.RFC3339, res.Expires)
		if res.Expired = err != nil || !when.Before(expires); res.Expired {
			failure = withStatus(exitDenied, fmt.Errorf("check %s: %s %s expired on %s", path, res.Kind, res.Name, res.Expires))
		}
	}
	if root != nil {
		d := root.Evaluate(role, env.Verified(root.KeysAt(role, when)), when, quorum.Options{})
		res.Reasons = d.Reasons
		if !d.OK {
			failure = withStatus(exitDenied, fmt.Errorf("check %s: role %s: %s", path, role, strings.Join(d.Reasons, "; ")))
		}
	}
	if i := slices.IndexFunc(res.Signatures, func(s checkSignature) bool { return !s.Valid }); i >= 0 {
		s := res.Signatures[i]
		failure = hinted(withStatus(exitVerification, fmt.Errorf("check %s: signature by %s: %s", path, s.By, s.Error)), s.cure())
	}
	res.OK = failure == nil
	if err := a.print(res, res.text); err != nil {
		return err
	}
	return failure
}

// readSigned reads a document with its signatures, in either carrier. What is checked later is the envelope's payload.
func (a *app) readSigned(path string) (*dsse.Envelope, manifest.Document, error) {
	src, err := a.readFile(path, dsse.MaxEnvelope)
	if err != nil {
		return nil, nil, err
	}
	if isEnvelope(src) {
		env, doc, err := openEnvelope(src)
		if err == nil {
			err = doc.Validate()
		}
		return env, doc, inFile(err, path)
	}
	doc, err := manifest.ReadYAML(src)
	if err != nil {
		return nil, nil, inFile(err, path)
	}
	env, err := manifest.Wrap(doc)
	return env, doc, inFile(err, path)
}

// checkSignatures verifies each signature by the key that it names, or by the key of the role that it is the id of.
func checkSignatures(env *dsse.Envelope, root *quorum.Root, role string) []checkSignature {
	out := []checkSignature{}
	for _, s := range env.Signatures {
		c := checkSignature{By: s.KeyID}
		key, err := signerOf(s, root, role)
		if err == nil {
			err = key.Verify(dsse.PAE(env.PayloadType, env.Payload), s.Sig)
		}
		c.Valid, c.unknown = err == nil, key.IsZero()
		if err != nil {
			c.Error = err.Error()
		}
		out = append(out, c)
	}
	return out
}

func signerOf(s dsse.Signature, root *quorum.Root, role string) (identity.PublicKey, error) {
	key, err := identity.ParsePublicKey(s.KeyID)
	if err == nil || root == nil {
		return key, err
	}
	for _, k := range root.Keys(role) {
		if dsse.KeyID(k) == s.KeyID || k.String() == s.KeyID {
			return k, nil
		}
	}
	return key, err
}
