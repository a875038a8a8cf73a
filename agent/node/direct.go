package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/agent"
	"arch.network/agent/policy"
	"arch.network/agent/replay"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

// directive is a signed order that was read: valid, but not yet allowed.
type directive struct {
	doc  *manifest.Directive
	env  *dsse.Envelope
	id   digest.SHA256
	act  agent.Act
	once replay.Entry
}

// direct does what a signed Directive says. It must be of class C and signed by the governance role's quorum; its action is a verb of
// agent.Act; its target is the id of the job, or what this node is called, if the act is about the node itself; it must end, and have a
// nonce, so that it is obeyed once and by this node alone. What is obeyed and what is refused is in the ledger before anybody is told.
func (n *Node) direct(ctx context.Context, envelope []byte, by string) error {
	d, err := readDirective(envelope)
	if err != nil {
		return err
	}
	at := n.o.Now().UTC()
	principals, denied, err := n.mayDirect(ctx, d, at)
	if err != nil {
		return err
	}
	if denied != nil {
		reason := agent.Reason{Msg: denied.msg, Cure: denied.cure}
		if err := n.recordDirective(ctx, d, at, "refused", by, "it is not obeyed: "+denied.msg, reason); err != nil {
			return err
		}
		return &agent.DeniedError{By: by, Verb: fmt.Sprintf("%s by this directive: %s", d.doc.Spec.Action, denied.msg), Cure: denied.cure}
	}
	d.act.Reason = fmt.Sprintf("%s (ordered by %s)", d.doc.Spec.Reason, strings.Join(principals, ", "))
	if err := n.recordDirective(ctx, d, at, "accepted", d.act.By, fmt.Sprintf("it is obeyed: %s, since %s", d.doc.Spec.Action, d.act.Reason)); err != nil {
		return err
	}
	if err := n.Act(ctx, d.act); err != nil {
		return errors.Join(err, n.recordDirective(ctx, d, at, "failed", d.act.By, "it could not be done: "+err.Error(), agent.Reason{Msg: err.Error()}))
	}
	return nil
}

// readDirective reads an envelope of a valid Directive. The error is an *agent.EnvelopeError.
func readDirective(envelope []byte) (*directive, error) {
	env, err := dsse.Parse(envelope)
	if err != nil {
		return nil, &agent.EnvelopeError{Err: err}
	}
	doc, err := manifest.Payload(env)
	if err == nil {
		err = doc.Validate()
	}
	if err != nil {
		return nil, &agent.EnvelopeError{Err: err}
	}
	d, ok := doc.(*manifest.Directive)
	if !ok || env.PayloadType != manifest.PayloadType("Directive") {
		return nil, &agent.EnvelopeError{Err: fmt.Errorf("it holds a %s, not a Directive", doc.DocumentKind())}
	}
	return &directive{doc: d, env: env, id: env.ID()}, nil
}

// objection is why a directive is not obeyed.
type objection struct{ msg, cure string }

// mayDirect judges a directive, and spends its nonce if nothing speaks against it. Principals are those
// whose signatures count; the act is by the key of the first.
func (n *Node) mayDirect(ctx context.Context, d *directive, at time.Time) (principals []string, denied *objection, err error) {
	active, err := n.Keeper.Current(at)
	if err != nil {
		return nil, nil, err
	}
	if d.doc.Spec.Class != manifest.ClassC {
		return nil, &objection{fmt.Sprintf("it is of class %s, and from afar only a quorum's orders are obeyed, which are of class C", d.doc.Spec.Class), "sign one of class C"}, nil
	}
	root := active.Trust().Root()
	keys := d.env.Verified(root.KeysAt(manifest.RoleGovernance, at))
	q := root.Evaluate(manifest.RoleGovernance, keys, at, policy.QuorumOptions())
	if !q.OK {
		return nil, &objection{"the quorum of role governance has not signed it: " + q.String(), "have enough of the role sign it: arch sign FILE"}, nil
	}
	d.act.By = dsse.KeyID(keys[0])
	if denied = d.due(at); denied != nil {
		return nil, denied, nil
	}
	if denied, err = n.aim(ctx, d); denied != nil || err != nil {
		return nil, denied, err
	}
	err = n.judge.window.Spend(d.once, at)
	if _, again := errors.AsType[*replay.ReplayError](err); again {
		return nil, &objection{"it, or its nonce, was obeyed before", "sign another one, with a new nonce"}, nil
	}
	return q.Principals, nil, err
}

// due wants a directive to be obeyed once, and now.
func (d *directive) due(at time.Time) *objection {
	expires, err := time.Parse(time.RFC3339, d.doc.Metadata.Expires)
	switch {
	case d.doc.Spec.Nonce == "" || err != nil:
		return &objection{"it could be obeyed twice: it lacks spec.nonce or metadata.expires", "add both, and sign it anew"}
	case !at.Before(expires):
		return &objection{"it ended on " + d.doc.Metadata.Expires, "sign one that ends later"}
	}
	if begins, err := time.Parse(time.RFC3339, d.doc.Spec.NotBefore); d.doc.Spec.NotBefore != "" && (err != nil || at.Before(begins)) {
		return &objection{"it must not be obeyed before " + d.doc.Spec.NotBefore, "hand it in then"}
	}
	d.once = replay.Entry{ID: d.id, Owner: directiveOwner, Nonce: d.doc.Spec.Nonce, Expires: expires}
	return nil
}

// directiveOwner keeps nonces of directives apart from those of jobs: no owner of a job is called this.
const directiveOwner = "\x01directive"

// aim finds what the directive is about.
func (n *Node) aim(ctx context.Context, d *directive) (*objection, error) {
	s := &d.doc.Spec
	d.act.Verb = agent.Verb(s.Action)
	switch d.act.Verb {
	case agent.VerbDrain, agent.VerbResume:
		if !slices.Contains(n.judge.names, s.Target) {
			return &objection{fmt.Sprintf("its target is %q, and this node is called %s", s.Target, strings.Join(n.judge.names, ", ")), "write the node's identity as target"}, nil
		}
		return nil, nil
	case agent.VerbCancel, agent.VerbRelease, agent.VerbDiscard:
	default:
		return &objection{fmt.Sprintf("this node knows no act %q", s.Action), "write cancel, release, discard, drain or resume"}, nil
	}
	id, err := digest.Parse(s.Target)
	if err != nil {
		return &objection{fmt.Sprintf("its target %q is no id of a job", s.Target), "write sha256: and the 64 digits of the job's id"}, nil
	}
	job, err := n.Job(ctx, id.String())
	if _, unknown := errors.AsType[*agent.UnknownError](err); unknown {
		return &objection{err.Error(), "hand it to the node that has the job"}, nil
	}
	if e, forgotten := errors.AsType[*agent.ForgottenError](err); forgotten {
		return &objection{e.Error(), e.Hint()}, nil
	}
	d.act.Job = job.ID
	return nil, err
}

// recordDirective writes what became of a directive into the ledger.
func (n *Node) recordDirective(ctx context.Context, d *directive, at time.Time, verdict, by, summary string, reasons ...agent.Reason) error {
	decision := agent.Decision{
		Kind: agent.KindDirective, Verdict: verdict, Subject: d.id, Name: d.doc.Metadata.Name, At: at, By: by, Summary: summary, Reasons: reasons,
		Policy: n.judge.Policy().ID,
	}
	if !d.act.Job.IsZero() {
		decision.Evidence = []agent.Evidence{{Name: "job", Digest: d.act.Job}}
	}
	_, err := (recorder{n.Ledger}).Record(context.WithoutCancel(ctx), decision)
	return err
}
