package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/attest/identity"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/witness"
)

// proofResult is one proof that was written or verified.
type proofResult struct {
	File      string       `json:"file"`
	Origin    string       `json:"origin"`
	Size      int64        `json:"size"` // of the checkpoint that shows it
	Witnesses []string     `json:"witnesses,omitempty"`
	Entry     *ledgerEntry `json:"entry"`
}

func (proofResult) kind() string { return "LedgerProof" }

// proofList is proofs that were written or verified.
type proofList struct {
	Proofs []proofResult `json:"proofs"`
}

func (proofList) kind() string { return "LedgerProofList" }

func (l proofList) items() []result { return itemsOf(l.Proofs) }

func newLedgerProveCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var out string
	c := &cobra.Command{
		Use:   "prove INDEX|ID",
		Short: "Write a file that proves a decision to whoever has the ledger's keys, offline",
		Long: `Prove writes a .tlog-proof (C2SP tlog-proof) that holds the decision, the hashes that lead from it to the root of the ledger, and the signed
checkpoint. INDEX is the place of an entry in the ledger, from 0; ID is the document id of a job or another document, or its first 8 digits or
more: then each decision about it gets a file. If --policy asks for witnesses that have not cosigned the checkpoint yet, they are asked at their addresses.

EXIT STATUS: 0 written; 1 error; 2 usage; 3 too few witnesses cosigned; 4 something is wrong with the ledger.`,
		Example: "  arch ledger prove 41 --ledger /var/lib/arch/ledger\n  arch ledger prove sha256:4bc31035 --ledger /var/lib/arch/ledger --out proofs",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			index, indexErr := strconv.ParseInt(args[0], 10, 64)
			byIndex := indexErr == nil && len(args[0]) < 8
			id := ""
			if !byIndex {
				var err error
				if id, err = subjectID(args[0]); err != nil {
					return err
				}
			}
			source, err := f.open()
			if err != nil {
				return err
			}
			policy, err := f.keys(a, source)
			if err != nil {
				return err
			}
			nodes, err := f.nodeKeys()
			if err != nil {
				return err
			}
			p := &ledgerProver{source: source, policy: policy, nodes: nodes}
			indexes := []int64{index}
			if !byIndex {
				if indexes, err = p.about(c.Context(), id); err != nil {
					return err
				}
			}
			results, err := p.write(c.Context(), indexes, out)
			if err != nil {
				return err
			}
			return a.print(proofList{results}, func(s *screen) {
				for _, r := range results {
					fmt.Fprintf(s, "%s\n", r.File)
					r.Entry.text(s)
				}
			})
		},
	}
	f.add(c)
	c.Flags().StringVar(&out, "out", ".", "directory of the files")
	return c
}

// ledgerProver makes proofs under one checkpoint.
type ledgerProver struct {
	source ledger.Source
	policy *ledger.Policy
	nodes  []identity.PublicKey
	signed *ledger.Signed
	prover *ledger.Prover
}

// about returns the indexes of the decisions about a document.
func (p *ledgerProver) about(ctx context.Context, id string) ([]int64, error) {
	entries, report, err := readLedger(ctx, p.source, p.policy, p.nodes)
	if err != nil {
		return nil, err
	}
	if err := faulty("prove", report); err != nil {
		return nil, err
	}
	var indexes []int64
	for _, e := range entries {
		if e.about(id) && e.Index < report.Signed.Size {
			indexes = append(indexes, e.Index)
		}
	}
	if len(indexes) == 0 {
		return nil, hinted(fmt.Errorf("prove: no decision of the ledger is about %s", id), "arch ledger show lists the decisions")
	}
	return indexes, nil
}

// checkpoint gets the newest checkpoint, cosigned as the policy asks.
func (p *ledgerProver) checkpoint(ctx context.Context) error {
	note, err := p.source.ReadCheckpoint(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return hinted(fmt.Errorf("prove: the ledger has no checkpoint yet: %w", err), "is this a ledger, and has its node run?")
	}
	if err != nil {
		return err
	}
	if p.signed, err = p.policy.Read(note); err != nil {
		return withStatus(exitVerification, err)
	}
	p.prover = ledger.NewProver(p.signed.Checkpoint, p.source, 0)
	if _, err := p.policy.Open(note); err == nil {
		return nil
	}
	asks := witness.NewClient(p.policy, &http.Client{Timeout: httpTimeout})
	if note, err = asks.Cosign(ctx, note, p.prover.Consistency); err != nil {
		return err
	}
	p.signed, err = p.policy.Open(note)
	return err
}

// write writes the proofs of entries into a directory.
func (p *ledgerProver) write(ctx context.Context, indexes []int64, out string) ([]proofResult, error) {
	if err := p.checkpoint(ctx); err != nil {
		return nil, err
	}
	results := []proofResult{}
	for _, index := range indexes {
		entry, err := ledger.ReadEntry(ctx, p.source, index, p.signed.Size)
		if err != nil {
			return nil, err
		}
		hashes, err := p.prover.Inclusion(ctx, index)
		if err != nil {
			return nil, withStatus(exitVerification, err)
		}
		proof := &ledger.Proof{Index: index, Hashes: hashes, Note: p.signed.Note, Extra: entry}
		r, err := verifyProof(proof, p.policy, p.nodes)
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(out, 0o755); err != nil {
			return nil, err
		}
		r.File = filepath.Join(out, fmt.Sprintf("%d.tlog-proof", index))
		if err := os.WriteFile(r.File, proof.Marshal(), 0o644); err != nil {
			return nil, err
		}
		results = append(results, *r)
	}
	return results, nil
}

// verifyProof checks a proof that carries its decision.
func verifyProof(proof *ledger.Proof, policy *ledger.Policy, nodes []identity.PublicKey) (*proofResult, error) {
	if proof.Extra == nil {
		return nil, hinted(withStatus(exitVerification, errors.New("verify proof: it does not carry the decision")), "arch ledger prove writes proofs that do")
	}
	signed, err := proof.Verify(policy, proof.Extra)
	if _, quorum := errors.AsType[*ledger.QuorumError](err); err != nil && !quorum {
		return nil, withStatus(exitVerification, err)
	}
	if err != nil {
		return nil, err
	}
	record, err := attest.ReadRecord(proof.Extra, nodes...)
	if err != nil {
		return nil, withStatus(exitVerification, err)
	}
	e := newLedgerEntry(proof.Index, record)
	return &proofResult{Origin: signed.Origin, Size: signed.Size, Witnesses: slices.Clone(signed.Witnesses), Entry: &e}, nil
}
