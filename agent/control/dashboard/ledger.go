package dashboard

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/ledger"
)

// entryView is what can be told of an entry, whatever it is.
type entryView struct {
	Index                        int64
	Hash                         digest.SHA256 // of the entry's bytes
	Kind, Verdict, Name, Summary string
	Signers                      []string // as the envelope says; nothing is verified
	Text                         string   // the statement, indented
}

type ledgerPage struct {
	Shown        bool
	Checkpoint   *ledger.Signed
	Root         digest.SHA256
	Entries      []entryView
	Older, Newer string // links; empty: there is no such page
}

// pageOfEntries is how many entries a page lists.
const pageOfEntries = 50

func (d *Dashboard) ledger(r *http.Request) (any, error) {
	if d.o.Ledger == nil {
		return ledgerPage{}, nil
	}
	c, err := d.o.Ledger.Checkpoint(r.Context())
	if err != nil {
		return nil, err
	}
	p := ledgerPage{Shown: true, Checkpoint: c, Root: digest.SHA256(c.Root)}
	end := c.Size // the page shows the entries before it, the newest first
	if text := r.URL.Query().Get("before"); text != "" {
		n, ok := number(text)
		if !ok || n > c.Size {
			return nil, &wrongError{"That is no number of an entry."}
		}
		end = n
	}
	if end == 0 {
		return p, nil
	}
	from := max(0, end-pageOfEntries)
	entries, _, err := d.o.Ledger.Entries(r.Context(), from, int(end-from))
	if err != nil {
		return nil, err
	}
	for i := len(entries) - 1; i >= 0; i-- {
		p.Entries = append(p.Entries, describe(from+int64(i), entries[i]))
	}
	if from > 0 {
		p.Older = link(from)
	}
	if end < c.Size {
		p.Newer = link(min(c.Size, end+pageOfEntries))
	}
	return p, nil
}

func link(before int64) string { return "/ledger?before=" + strconv.FormatInt(before, 10) }

type entryPage struct {
	entryView
	Size   int64
	Origin string
	Root   digest.SHA256
	Hashes []tlog.Hash
}

func (d *Dashboard) entry(r *http.Request) (any, error) {
	n, ok := number(r.PathValue("index"))
	if !ok || d.o.Ledger == nil {
		return nil, &wrongError{"That is no number of an entry."}
	}
	proof, entry, err := d.o.Ledger.Prove(r.Context(), n) // it is checked, or there is none
	if err != nil {
		return nil, err
	}
	c, err := d.o.Ledger.Checkpoint(r.Context())
	if err != nil {
		return nil, err
	}
	return entryPage{describe(n, entry), c.Size, c.Origin, digest.SHA256(c.Root), proof.Hashes}, nil
}

// describe reads what it can of an entry: an in-toto statement of a decision in a DSSE envelope.
func describe(index int64, entry []byte) entryView {
	v := entryView{Index: index, Hash: digest.Of(entry)}
	payload := entry
	if env, err := dsse.ParseLimit(entry, 1<<20); err == nil {
		payload = env.Payload
		for _, s := range env.Signatures {
			v.Signers = append(v.Signers, s.KeyID)
		}
	}
	type decision struct {
		Kind, Verdict, Summary, Name string
		Before                       []struct{ Kind string }
	}
	var statement struct {
		decision
		Predicate decision
		Subject   json.RawMessage
	}
	if json.Unmarshal(payload, &statement) != nil {
		return v
	}
	said := statement.decision
	if said.Kind == "" {
		said = statement.Predicate
	}
	v.Kind, v.Verdict, v.Summary, v.Name = said.Kind, said.Verdict, said.Summary, said.Name
	for i := range said.Before { // decisions that led to it share its entry
		v.Kind = said.Before[len(said.Before)-1-i].Kind + ", " + v.Kind
	}
	if v.Name == "" {
		var subjects []struct{ Name string }
		if json.Unmarshal(statement.Subject, &subjects) == nil && len(subjects) > 0 {
			v.Name = subjects[0].Name
		}
	}
	var b bytes.Buffer
	if json.Indent(&b, payload, "", "  ") == nil {
		v.Text = b.String()
	}
	return v
}
