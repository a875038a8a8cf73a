package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/attest/identity"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/tilehttp"
)

const ledgerHelp = `A ledger is the append-only log of what a node decided: a Merkle tree whose state, a checkpoint, the node signs and
witnesses cosign (C2SP tlog-tiles). Whoever has a checkpoint can tell whether anything in the log was changed, left out or told otherwise to others.

--ledger names it: the directory in which it lies, or the URL where it is published. Which keys it has, say --policy, a file in the form of C2SP
tlog-policy, or --vkey. Without them a directory is believed about its own keys, a URL is not. --node names the key that signs its decisions.`

func newLedgerCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "ledger", Short: "Show, prove, verify, check and witness ledgers", Long: ledgerHelp}
	c.AddCommand(
		newLedgerShowCommand(a), newLedgerProveCommand(a), newLedgerVerifyCommand(a), newLedgerFsckCommand(a), newLedgerHammerCommand(a),
		newLedgerWitnessCommand(a), newLedgerServeCommand(a), newLedgerKeysCommand(a),
	)
	return c
}

// ledgerFlags say which ledger is meant, and whose keys it has.
type ledgerFlags struct {
	ledger string
	policy string
	vkeys  []string
	nodes  []string
}

func (f *ledgerFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.ledger, "ledger", "", "directory or URL of the ledger (default $ARCH_LEDGER)")
	f.addKeys(c)
}

func (f *ledgerFlags) addKeys(c *cobra.Command) {
	c.Flags().StringVar(&f.policy, "policy", "", "file with the ledger's keys and witnesses, in the form of C2SP tlog-policy")
	c.Flags().StringArrayVar(&f.vkeys, "vkey", nil, "key of the ledger, NAME+HASH+KEY; every one given must have signed (repeatable)")
	c.Flags().StringArrayVar(&f.nodes, "node", nil, "key of a node whose decisions count, a did:key (repeatable; default: any)")
}

// httpTimeout bounds one request to a ledger or a witness.
const httpTimeout = 30 * time.Second

// open returns where the ledger is read from.
func (f *ledgerFlags) open() (ledger.Source, error) {
	at := f.ledger
	switch {
	case at == "":
		return nil, hinted(usage("--ledger is missing"), "name the directory or the URL of a ledger, or set ARCH_LEDGER")
	case strings.Contains(at, "://"):
		return tilehttp.NewClient(at, &http.Client{Timeout: httpTimeout})
	}
	info, err := os.Stat(at)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("read ledger %s: it is %s, not a directory", at, kindOf(info.Mode()))
	}
	return ledger.Dir(at), err
}

// keys returns the policy that says which keys count; source may be nil.
func (f *ledgerFlags) keys(a *app, source ledger.Source) (*ledger.Policy, error) {
	switch {
	case f.policy != "" && len(f.vkeys) > 0:
		return nil, hinted(usage("--policy and --vkey are two ways to say the same"), "leave out one of them")
	case f.policy != "":
		data, err := a.readFile(f.policy, ledger.MaxPolicy)
		if err != nil {
			return nil, err
		}
		p, err := ledger.ParsePolicy(data)
		return p, inFile(err, f.policy)
	case len(f.vkeys) > 0:
		p, err := ledger.ParsePolicy([]byte("log " + strings.Join(f.vkeys, "\nlog ") + "\nquorum none\n"))
		if err != nil {
			return nil, usage("--vkey: %w", err)
		}
		return p, nil
	}
	dir, ok := source.(ledger.Dir)
	if !ok {
		return nil, hinted(usage("it is not said which keys the ledger has"), "name them by --policy or --vkey; arch ledger keys, run where the ledger is, prints them")
	}
	p, err := dir.ReadPolicy()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hinted(err, "is this the directory of a ledger? If it is a copy, name its keys by --policy or --vkey")
	}
	return p, err
}

func (f *ledgerFlags) nodeKeys() ([]identity.PublicKey, error) {
	var keys []identity.PublicKey
	for _, text := range f.nodes {
		k, err := identity.ParsePublicKey(text)
		if err != nil {
			return nil, usage("--node: %w", err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// ledgerEntry is a decision as results show it.
type ledgerEntry struct {
	Index int64  `json:"index"`
	ID    string `json:"id"`

	attest.Decision `json:"decision"` // as it was signed

	Subject []attest.ResourceDescriptor `json:"subject"`
}

func (ledgerEntry) kind() string { return "LedgerEntry" }

// ledgerEntryList is entries of a ledger.
type ledgerEntryList struct {
	Entries []ledgerEntry `json:"entries"`
}

func (ledgerEntryList) kind() string { return "LedgerEntryList" }

func (l ledgerEntryList) items() []result { return itemsOf(l.Entries) }

func newLedgerEntry(index int64, r *attest.Record) ledgerEntry {
	return ledgerEntry{Index: index, ID: r.ID.String(), Decision: r.Decision, Subject: r.Subject}
}

func (e ledgerEntry) text(s *screen) {
	color := "32"
	switch e.Verdict {
	case "refused", "failed", "discarded", "quarantined":
		color = "31"
	}
	fmt.Fprintf(s, "%6d  %s  %-12s ", e.Sequence, e.At, printableLine(e.Kind))
	s.paint(color, fmt.Sprintf("%-11s", e.Verdict))
	fmt.Fprintf(s, " %s\n", printableLine(e.Summary))
	for _, r := range e.Reasons {
		where := ""
		if r.Field != "" {
			where = r.Field + ": "
		}
		fmt.Fprintf(s, "        %s\n", printableLine(where+r.Msg))
		if r.Cure != "" {
			fmt.Fprintf(s, "        cure: %s\n", printableLine(r.Cure))
		}
	}
}

// about reports whether the entry is about what id names: a document's id, or the beginning of one of at least 8 digits.
func (e ledgerEntry) about(id string) bool {
	return slices.ContainsFunc(e.Subject, func(d attest.ResourceDescriptor) bool {
		return strings.HasPrefix(d.Digest["sha256"], id)
	})
}

// subjectID reads the id of a document, or its beginning.
func subjectID(text string) (string, error) {
	id := strings.TrimPrefix(text, "sha256:")
	if len(id) < 8 || len(id) > 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return "", hinted(usage("%q is no document id, and not the beginning of one", text), "a document id is sha256: and 64 hexadecimal digits; 8 of them are enough")
	}
	return id, nil
}

// readLedger checks the whole ledger and returns its decisions in their order. What is wrong with it is in the report.
func readLedger(ctx context.Context, source ledger.Source, policy *ledger.Policy, nodes []identity.PublicKey) ([]ledgerEntry, *ledger.Report, error) {
	entries := []ledgerEntry{}
	var chain attest.Chain
	report, err := ledger.Check(ctx, policy, source, func(index int64, entry []byte) error {
		r, err := attest.ReadRecord(entry, nodes...)
		if err != nil {
			return err
		}
		entries = append(entries, newLedgerEntry(index, r))
		return chain.Add(r)
	})
	if err != nil {
		return nil, nil, err
	}
	if _, _, err := chain.End(); err != nil {
		report.Faults = append(report.Faults, ledger.Fault{Path: "tile/entries", What: err.Error()})
	}
	slices.SortFunc(entries, func(a, b ledgerEntry) int { return int(a.Sequence - b.Sequence) })
	return entries, report, nil
}

// faulty returns the error of a report that is not OK.
func faulty(what string, report *ledger.Report) error {
	if report.OK() {
		return nil
	}
	f := report.Faults[0]
	more := ""
	if n := len(report.Faults) - 1; n > 0 {
		more = fmt.Sprintf(", and %d more faults", n)
	}
	return hinted(withStatus(exitVerification, fmt.Errorf("%s: %s: %s%s", what, f.Path, f.What, more)),
		"keep it as it is, and compare it with a mirror's copy; arch ledger fsck lists all faults")
}
