package vouch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/quorum"
	"arch.network/builder/binarycache"
	"arch.network/builder/guix/signature"
)

// receiptBudget is what the signatures of all receipts on one path may cost together, in units of dsse.Budget: about half a second.
const receiptBudget = 8192

// Evidence is what there is on one store path. Nobody is believed yet.
type Evidence struct {
	// Fingerprint is what signatures of Nix are over. Path and NAR are what is to be vouched for.
	Fingerprint binarycache.Fingerprint
	Sigs        []binarycache.Signature
	Guix        []binarycache.GuixSignature
	Receipts    *attest.Receipt // nil: none
}

// Vote is one operator's word, once for each way in which it was given.
type Vote struct {
	Operator string        `json:"operator"`
	By       string        `json:"by"`  // the key's or the principal's name
	How      How           `json:"how"` // in which way
	NAR      digest.SHA256 `json:"nar"`
}

// How is a way to vouch.
type How string

// The ways to vouch.
const (
	NixSignature  How = "nix-signature"
	GuixSignature How = "guix-signature"
	Receipt       How = "receipt" // a build claim or a provenance, whose subject is the path
)

// Verdict is what the evidence comes to.
type Verdict struct {
	Votes   []Vote // for the NAR hash, sorted
	Against []Vote // for another one, sorted
	// Wrong says which signatures of known keys are not what they claim to be.
	Wrong []string
}

// Operators returns who vouches, each once, sorted. Whoever vouches for two different contents of a path vouches for neither.
func (v Verdict) Operators() []string {
	set := map[string]bool{}
	for _, vote := range v.Votes {
		set[vote.Operator] = true
	}
	for _, vote := range v.Against {
		delete(set, vote.Operator)
	}
	return slices.Sorted(maps.Keys(set))
}

// Judge finds out who vouches for the content of a path, and who for another one, at a time. An expired trust root counts for nothing.
func (k *Keys) Judge(e Evidence, at time.Time) Verdict {
	j := judging{keys: k, e: e, at: at, votes: map[Vote]bool{}}
	j.nix()
	j.guix()
	if e.Receipts != nil {
		j.receipts()
	}
	var v Verdict
	for _, vote := range slices.SortedFunc(maps.Keys(j.votes), compareVotes) {
		if vote.NAR == e.Fingerprint.NAR {
			v.Votes = append(v.Votes, vote)
		} else {
			v.Against = append(v.Against, vote)
		}
	}
	slices.Sort(j.wrong)
	v.Wrong = slices.Compact(j.wrong)
	return v
}

func compareVotes(a, b Vote) int {
	for _, c := range []int{strings.Compare(a.Operator, b.Operator), strings.Compare(string(a.How), string(b.How)), strings.Compare(a.By, b.By)} {
		if c != 0 {
			return c
		}
	}
	return strings.Compare(a.NAR.Hex(), b.NAR.Hex())
}

// judging is the work of one Judge.
type judging struct {
	keys  *Keys
	e     Evidence
	at    time.Time
	votes map[Vote]bool
	wrong []string
}

// JudgeRealisation finds out who vouches for a realisation, which says what path an output of a derivation came out at: by signatures of Nix over its
// fingerprint, at a time. wrong are the signatures of known keys that are not what they claim to be.
func (k *Keys) JudgeRealisation(fingerprint string, sigs []binarycache.Signature, at time.Time) (operators, wrong []string) {
	j := judging{keys: k, at: at, votes: map[Vote]bool{}}
	j.signed(fingerprint, sigs)
	v := Verdict{Votes: slices.Collect(maps.Keys(j.votes))}
	slices.Sort(j.wrong)
	return v.Operators(), slices.Compact(j.wrong)
}

func (j *judging) nix() { j.signed(j.e.Fingerprint.String(), j.e.Sigs) }

// signed counts signatures of Nix over a text.
func (j *judging) signed(text string, sigs []binarycache.Signature) {
	var signed []identity.PublicKey // of the trust root
	for _, s := range sigs[:min(len(sigs), binarycache.MaxSignatures)] {
		for _, key := range j.keys.nix {
			switch {
			case key.Verify(text, s):
				j.votes[Vote{key.operator, key.Name, NixSignature, j.e.Fingerprint.NAR}] = true
			case key.Name == s.Name:
				j.wrong = append(j.wrong, fmt.Sprintf("signature of %q", s.Name))
			}
		}
		if j.keys.root == nil {
			continue
		}
		for _, key := range j.keys.root.keys {
			if key.Algorithm() == identity.Ed25519 && key.Verify([]byte(text), s.Value) == nil {
				signed = append(signed, key)
			}
		}
	}
	j.principals(signed, NixSignature, j.e.Fingerprint.NAR)
}

func (j *judging) guix() {
	for _, g := range j.e.Guix {
		s, err := signature.ParseLine(g.Value)
		if err != nil {
			continue
		}
		operator, known := j.keys.guix[s.Key]
		if !known {
			continue
		}
		name := fmt.Sprintf("%X", s.Key[:8])
		if err := s.Verify(signature.Keys{s.Key: true}, g.Signed); err != nil {
			j.wrong = append(j.wrong, "signature of "+name)
			continue
		}
		path, nar, err := binarycache.ReadSigned(g.Signed)
		if err == nil && path == j.e.Fingerprint.Path {
			j.votes[Vote{operator, name, GuixSignature, nar}] = true
		}
	}
}

// receipts counts the claims and provenances that name the path. A summary is somebody's word about the words of others, and counts for nothing.
func (j *judging) receipts() {
	keys := slices.Clone(j.keys.receipts)
	if j.keys.root != nil {
		keys = append(keys, j.keys.root.keys...)
	}
	budget := dsse.NewBudget(receiptBudget)
	for _, list := range [][]*dsse.Envelope{j.e.Receipts.Claims, j.e.Receipts.Provenances} {
		for _, env := range list {
			signers := env.VerifiedWithin(keys, budget)
			if len(signers) == 0 {
				continue
			}
			for _, nar := range j.subjects(env) {
				var ofRoot []identity.PublicKey
				for _, key := range signers {
					if o := j.keys.owners[key.ID()]; o != nil {
						j.votes[Vote{o.operator, key.Short(), Receipt, nar}] = true
					} else {
						ofRoot = append(ofRoot, key)
					}
				}
				j.principals(ofRoot, Receipt, nar)
			}
		}
	}
	if budget.Exhausted() { // who objects may not have been heard
		j.wrong = append(j.wrong, "receipts: there are too many signatures to verify them all")
	}
}

// principals adds the votes of those principals of the trust root whom the keys speak for.
func (j *judging) principals(keys []identity.PublicKey, how How, nar digest.SHA256) {
	root := j.keys.root
	if root == nil || len(keys) == 0 || !j.at.Before(root.Expires()) {
		return
	}
	for _, role := range roles() {
		for _, p := range root.Signers(role, keys, j.at, quorum.Options{}) {
			j.votes[Vote{root.operators[p], p, how, nar}] = true
		}
	}
}

// subjects returns the NAR hashes that a statement, whose signature was verified, gives to the path.
func (j *judging) subjects(env *dsse.Envelope) []digest.SHA256 {
	s, err := attest.ParseStatement(env.Payload)
	if err != nil {
		return nil
	}
	switch s.PredicateType {
	case attest.ClaimType:
		_, err = s.Claim()
	case attest.ProvenanceType:
		_, err = s.Provenance()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	var out []digest.SHA256
	for _, d := range s.Subject {
		if p, sum, ok := binarycache.SubjectOf(d); ok && p == j.e.Fingerprint.Path {
			out = append(out, sum)
		}
	}
	return out
}
