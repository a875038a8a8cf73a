package node

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"arch.network/agent"
	"arch.network/attest/ledger/witness"
)

// openWitnesses makes what has the node's ledger cosigned, and what cosigns the ledgers of others, each if there is a policy for it.
func (n *Node) openWitnesses(context.Context) error {
	if p := n.o.Witnesses; p != nil {
		if origin := n.o.LedgerKeys.Name(); !slices.Contains(p.Origins(), origin) {
			return &unlistedError{origin}
		}
		var err error
		n.asker, err = witness.NewAsker(witness.AskerOptions{
			Policy: p, Log: n.Ledger.Log(), Dir: string(n.Ledger.Log().Dir()), State: n.in("witnesses"), Every: n.o.WitnessEvery, Now: n.o.Now,
			Failed: func(err error) { n.o.Log.WarnContext(context.Background(), "ledger not cosigned", "error", err) },
		})
		if err != nil {
			return err
		}
	}
	if n.o.WitnessFor == nil {
		return nil
	}
	// What was cosigned last lies beside what was signed last: neither may be restored from a copy.
	s, err := witness.NewServer(witness.Options{Dir: n.in("signed/witness"), Keys: n.o.LedgerKeys, Policy: n.o.WitnessFor})
	if err == nil {
		n.witness, n.close = s, append(n.close, s.Close)
	}
	return err
}

// unlistedError says that a policy names witnesses for other ledgers than the node's.
type unlistedError struct{ origin string }

func (e *unlistedError) Error() string {
	return fmt.Sprintf("have the ledger cosigned: the ledger policy has no log %s, which is this node's", e.origin)
}

// Hint tells the way out.
func (e *unlistedError) Hint() string {
	return "add the log lines that arch ledger keys prints for this node's ledger"
}

// Witness answers add-checkpoint for the ledgers of others (C2SP tlog-witness), below "/"; nil: the node is no witness.
func (n *Node) Witness() http.Handler {
	if n.witness == nil {
		return nil
	}
	return n.witness
}

// cosigned adds what witnesses said of the ledger.
func (n *Node) cosigned(s *agent.LedgerStatus) {
	if n.asker == nil {
		return
	}
	states, size := n.asker.Witnesses()
	s.Cosigned = &size
	for _, w := range states {
		s.Witnesses = append(s.Witnesses, agent.WitnessStatus{Name: w.Name, Size: w.Size, At: w.At, Failures: w.Failures, Error: w.Error, Cure: w.Cure})
	}
}

// patience is how many requests in vain to a witness an operator need not know of: it may be starting again.
const patience = 3

// Status implements agent.Node.
func (n *Node) Status(ctx context.Context) (agent.Status, error) {
	s, err := n.Engine.Status(ctx)
	for _, w := range s.Ledger.Witnesses {
		if w.Failures >= patience {
			cure := w.Cure
			if cure == "" {
				cure = "see that it runs and can be reached from here; it is asked again, more and more rarely"
			}
			s.Problems = append(s.Problems, agent.Problem{Code: "witness", Text: fmt.Sprintf("witness %s does not cosign the ledger: %s", w.Name, w.Error), Cure: cure})
		}
	}
	return s, err
}
