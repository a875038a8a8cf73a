package attest

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// Decision is the predicate of one thing that a node decided or did, as an entry of its ledger. Each node counts its own
// decisions from 1, without a gap, and each names the one before it, so that a log whose batches reorder still has one order.
// Nothing private is in it: evidence is named by digest, and what must not be public by a commitment.
//
// Decisions about the same document that follow each other at once are one entry: Before has the earlier ones, to which everything else here
// applies as well.
type Decision struct {
	Node     string        `json:"node"`              // who decided: dsse.KeyID of the key that signs
	Sequence int64         `json:"sequence"`          // the node's own count, from 1
	Previous digest.SHA256 `json:"previous,omitzero"` // id of the statement with the sequence before; zero for the first
	At       string        `json:"at"`                // see FormatDecisionTime
	Kind     string        `json:"kind"`              // one of DecisionKinds
	Verdict  string        `json:"verdict"`           // one lower-case word, such as accepted, refused, released, discarded
	By       string        `json:"by"`                // who asked for it or caused it: a key's name as in Node, or "uid:" and a number
	Summary  string        `json:"summary"`           // one sentence for people
	// Reasons say why, and for a refusal what would have to change. At most MaxReasons, and fewer if they are long.
	Reasons     []DecisionReason         `json:"reasons,omitempty"`
	Policy      digest.SHA256            `json:"policy,omitzero"`       // document id of the policy it follows; zero: of none
	Evidence    []ResourceDescriptor     `json:"evidence,omitempty"`    // what it rests on, by sha256, without content
	Commitments map[string]digest.SHA256 `json:"commitments,omitempty"` // name to Commitment.Sum of what is private
	// Before is what was decided about the same subjects at the same time, and led here: in order, at most MaxBefore.
	Before []EarlierDecision `json:"before,omitempty"`
}

// EarlierDecision is a decision without reasons against anything, of which another one followed at once.
type EarlierDecision struct {
	Kind     string               `json:"kind"`
	Verdict  string               `json:"verdict"`
	By       string               `json:"by"`
	Summary  string               `json:"summary"`
	Evidence []ResourceDescriptor `json:"evidence,omitempty"` // at most MaxBeforeEvidence
}

// Kinds lists what the entry is about, in the order of the decisions in it.
func (d *Decision) Kinds() []string {
	var kinds []string
	for _, b := range d.Before {
		kinds = append(kinds, b.Kind)
	}
	return append(kinds, d.Kind)
}

// DecisionReason is one of the causes of a decision.
type DecisionReason struct {
	Field string `json:"field,omitempty"` // of the document, such as "spec.capabilities.net[0]"; empty: none in particular
	Msg   string `json:"msg"`
	Cure  string `json:"cure,omitempty"` // what would have to change
}

// Limits of a Decision. A statement of MaxDecision bytes fits into an entry of a ledger (65,535 bytes, C2SP tlog-tiles) as an envelope
// with a signature by ML-DSA-65 and one by Ed25519: 4/3 of it, and 4,700 bytes.
const (
	MaxDecision         = 44 << 10 // bytes of the statement
	MaxReasons          = 64
	MaxEvidence         = 64
	MaxCommitments      = 64
	MaxDecisionSubjects = 64
	MaxBefore           = 4
	MaxBeforeEvidence   = 8
	maxField            = 256 // bytes of a reason's field, and of the name of a commitment
	maxVerdict          = 32  // bytes
)

// DecisionKinds lists what decisions are about, sorted.
func DecisionKinds() []string { return slices.Clone(decisionKinds[:]) }

var decisionKinds = [...]string{
	"admission", "archive", "cancellation", "directive", "drain", "failure", "node", "placement", "policy", "proposal", "quarantine",
	"replay", "result", "review", "start",
}

// NewDecision makes the statement of a decision about subjects: the document it is about, and whatever else it changes. Texts over the limits
// are cut, and so many of the reasons are kept as fit, with a last one that counts those left out.
func NewDecision(d Decision, subjects ...ResourceDescriptor) (*Statement, error) {
	predicate, _, err := encodeDecision(d, subjects)
	if err != nil {
		return nil, err
	}
	return &Statement{Type: StatementType, Subject: subjects, PredicateType: DecisionType, Predicate: predicate}, nil
}

// EncodeDecision returns what NewDecision's statement encodes to, for whoever makes many: the payload that is signed.
func EncodeDecision(d Decision, subjects ...ResourceDescriptor) ([]byte, error) {
	_, payload, err := encodeDecision(d, subjects)
	return payload, err
}

func encodeDecision(d Decision, subjects []ResourceDescriptor) (predicate, payload []byte, err error) {
	d.Summary = shorten(d.Summary, MaxText)
	d.Before = slices.Clone(d.Before)
	for i := range d.Before {
		d.Before[i].Summary = shorten(d.Before[i].Summary, MaxText)
	}
	all := d.Reasons
	d.Reasons = make([]DecisionReason, min(len(all), MaxReasons))
	for i := range d.Reasons {
		r := all[i]
		d.Reasons[i] = DecisionReason{Field: shorten(r.Field, maxField), Msg: shorten(r.Msg, MaxText), Cure: shorten(r.Cure, MaxText)}
	}
	if len(all) > MaxReasons {
		d.Reasons[MaxReasons-1] = leftOut(len(all) - MaxReasons + 1)
	}
	for {
		predicate, payload, err = d.encode(subjects)
		kept := len(d.Reasons)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("make decision: %w", err)
		case len(payload) <= MaxDecision:
			return predicate, payload, nil
		case kept < 2:
			return nil, nil, fmt.Errorf("make decision: it has %d bytes without most of its reasons; %d are allowed: name evidence by digest instead", len(payload), MaxDecision)
		}
		d.Reasons = d.Reasons[:kept-1]
		d.Reasons[kept-2] = leftOut(len(all) - kept + 2)
	}
}

// encode returns the predicate and the statement in canonical form, in which the members of the statement are in this order.
func (d *Decision) encode(subjects []ResourceDescriptor) (predicate, payload []byte, err error) {
	if err := d.Validate(); err != nil {
		return nil, nil, err
	}
	if err := checkDecisionSubjects(subjects); err != nil {
		return nil, nil, err
	}
	if predicate, err = canonical.Marshal(d); err != nil {
		return nil, nil, err
	}
	subject, err := canonical.Marshal(subjects)
	if err != nil {
		return nil, nil, err
	}
	return predicate, slices.Concat([]byte(`{"_type":"`+StatementType+`","predicate":`), predicate,
		[]byte(`,"predicateType":"`+DecisionType+`","subject":`), subject, []byte("}")), nil
}

func leftOut(n int) DecisionReason {
	return DecisionReason{Msg: fmt.Sprintf("%d more reasons are left out", n)}
}

func checkDecisionSubjects(subjects []ResourceDescriptor) error {
	if len(subjects) == 0 || len(subjects) > MaxDecisionSubjects {
		return fmt.Errorf("decision has %d subjects, not 1 to %d", len(subjects), MaxDecisionSubjects)
	}
	return validateNamed("subject", subjects)
}

// validateNamed checks that each of list is named by its sha256, and not carried along.
func validateNamed(what string, list []ResourceDescriptor) error {
	for i, d := range list {
		if _, ok := d.SHA256(); !ok || d.Content != nil {
			return fmt.Errorf("%s[%d]: %q is not named by a sha256, or is carried along", what, i, shorten(d.String(), 100))
		}
	}
	return validateDescriptors(what, list)
}

// Document is the subject of a decision about a document, such as a Job or a Policy.
func Document(name string, id digest.SHA256) ResourceDescriptor {
	return ResourceDescriptor{Name: name, Digest: map[string]string{"sha256": id.Hex()}}
}

// PredicateType returns DecisionType.
func (*Decision) PredicateType() string { return DecisionType }

// Validate checks the fields and their limits.
func (d *Decision) Validate() error {
	switch {
	case !validName(d.Node):
		return fmt.Errorf("decision's node %q is no name of a key", shorten(d.Node, 100))
	case d.Sequence < 1 || d.Sequence > manifest.MaxInteger:
		return fmt.Errorf("decision has the sequence %d, which is not from 1 to 2^53-1", d.Sequence)
	case d.Previous.IsZero() != (d.Sequence == 1):
		return fmt.Errorf("decision %d: only the first has no previous one", d.Sequence)
	}
	if err := validateSaid(d.Kind, d.Verdict, d.By, d.Summary); err != nil {
		return err
	}
	if at, err := time.Parse(decisionTime, d.At); err != nil || at.Format(decisionTime) != d.At {
		return fmt.Errorf("decision's time %q is not RFC 3339 in UTC with microseconds", shorten(d.At, 100))
	}
	return errors.Join(d.validateReasons(), d.validateEvidence(), d.validateBefore())
}

// validateSaid checks what each decision says, of several in one entry, too.
func validateSaid(kind, verdict, by, summary string) error {
	switch {
	case !slices.Contains(decisionKinds[:], kind):
		return fmt.Errorf("decision has the unknown kind %q", shorten(kind, 100))
	case !validVerdict(verdict):
		return fmt.Errorf("decision's verdict %q is not one lower-case word of at most %d letters", shorten(verdict, 100), maxVerdict)
	case !validName(by) && !validUID(by) && !validAddress(by):
		return fmt.Errorf("decision is by %q, which is neither the name of a key nor uid:N nor ip:ADDRESS", shorten(by, 100))
	case summary == "" || len(summary) > MaxText || strings.ContainsAny(summary, "\r\n"):
		return fmt.Errorf("decision needs a summary of one line, of 1 to %d bytes", MaxText)
	}
	return nil
}

func (d *Decision) validateBefore() error {
	if len(d.Before) > MaxBefore {
		return fmt.Errorf("decision has %d before it in one entry, over the limit of %d", len(d.Before), MaxBefore)
	}
	for i, b := range d.Before {
		if err := validateSaid(b.Kind, b.Verdict, b.By, b.Summary); err != nil {
			return fmt.Errorf("before[%d]: %w", i, err)
		}
		if len(b.Evidence) > MaxBeforeEvidence {
			return fmt.Errorf("before[%d] has over %d pieces of evidence", i, MaxBeforeEvidence)
		}
		if err := validateNamed(fmt.Sprintf("before[%d].evidence", i), b.Evidence); err != nil {
			return err
		}
	}
	return nil
}

func (d *Decision) validateReasons() error {
	if len(d.Reasons) > MaxReasons {
		return fmt.Errorf("decision has %d reasons, over the limit of %d", len(d.Reasons), MaxReasons)
	}
	for i, r := range d.Reasons {
		if r.Msg == "" || len(r.Msg) > MaxText || len(r.Cure) > MaxText || len(r.Field) > maxField {
			return fmt.Errorf("reasons[%d] has no msg, or a text over its limit", i)
		}
	}
	return nil
}

func (d *Decision) validateEvidence() error {
	if len(d.Evidence) > MaxEvidence || len(d.Commitments) > MaxCommitments {
		return fmt.Errorf("decision has over %d pieces of evidence, or over %d commitments", MaxEvidence, MaxCommitments)
	}
	for name, sum := range d.Commitments {
		if name == "" || len(name) > maxField || sum.IsZero() {
			return fmt.Errorf("commitment %q has no name, too long a name, or no hash", shorten(name, 100))
		}
	}
	return validateNamed("evidence", d.Evidence)
}

// validName reports whether text is what dsse.KeyID writes. Whose key it is, is found out by verifying.
func validName(text string) bool {
	scheme, rest, ok := strings.Cut(text, ":")
	return ok && len(text) <= MaxText && rest != "" && slices.Contains([]string{"did", "openpgp", "sha256"}, scheme) &&
		strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

// validAddress reports whether text is ip: and an address as net/netip spells it, which tells from where something came and proves nothing.
func validAddress(text string) bool {
	rest, ok := strings.CutPrefix(text, "ip:")
	a, err := netip.ParseAddr(rest)
	return ok && err == nil && a.Zone() == "" && a.String() == rest
}

func validUID(text string) bool {
	n, ok := strings.CutPrefix(text, "uid:")
	return ok && n != "" && len(n) <= 10 && strings.Trim(n, "0123456789") == "" && (n == "0" || n[0] != '0')
}

func validVerdict(text string) bool {
	return text != "" && len(text) <= maxVerdict && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz-") == "" && text[0] != '-'
}

const decisionTime = "2006-01-02T15:04:05.000000Z"

// FormatDecisionTime writes a time as decisions hold it: RFC 3339, UTC, to the microsecond.
func FormatDecisionTime(t time.Time) string { return t.UTC().Format(decisionTime) }

// Decision returns the predicate of a ledger's entry. Reading is strict: the predicate must be byte for byte the canonical
// form of what is read.
func (s *Statement) Decision() (*Decision, error) {
	d := &Decision{}
	if err := s.own(d); err != nil {
		return nil, err
	}
	return d, checkDecisionSubjects(s.Subject)
}

// Commitment hides a value and binds to it: the hash can be public, and who is given the salt can check a value against it. Without the
// salt not even guessing helps.
type Commitment struct {
	Salt [32]byte
	Sum  digest.SHA256 // SHA-256 of the salt and the value
}

// Commit makes a commitment to value, with a salt read from random.
func Commit(random io.Reader, value []byte) (Commitment, error) {
	var c Commitment
	if _, err := io.ReadFull(random, c.Salt[:]); err != nil {
		return Commitment{}, fmt.Errorf("commit to a value: read randomness: %w", err)
	}
	c.Sum = c.sum(value)
	return c, nil
}

// Opens reports whether the commitment is to value.
func (c Commitment) Opens(value []byte) bool {
	sum := c.sum(value)
	return subtle.ConstantTimeCompare(sum[:], c.Sum[:]) == 1
}

func (c Commitment) sum(value []byte) digest.SHA256 {
	h := sha256.New()
	h.Write(c.Salt[:])
	h.Write(value)
	return digest.SHA256(h.Sum(nil))
}
