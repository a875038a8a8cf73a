package attest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
)

// Limits of a receipt.
const (
	MaxReceipt      = 64 << 20 // bytes of the file
	MaxReceiptLines = 4096
	MaxSignatures   = dsse.MaxSignatures // of one envelope, and of several envelopes of one statement when merged
)

// Receipt is a bundle of signed statements (in-toto attestation spec/v1/bundle.md), read from a .receipt.jsonl or
// .intoto.jsonl file: one envelope a line, in any order, and beside them the sources that the receipt carries.
//
// Reading believes nothing: the lists are sorted by what the envelopes say of themselves, and Verify finds out what
// is true. The zero Receipt is empty.
type Receipt struct {
	Claims      []*dsse.Envelope
	Provenances []*dsse.Envelope
	Negatives   []*dsse.Envelope
	Summaries   []*dsse.Envelope // verification summaries
	Sources     []Source
	// Others are lines that are JSON, but nothing we know, such as an SBOM's attestation. They are kept as they are.
	Others [][]byte
	// Ignored counts lines that were left out because they are malformed or over a limit.
	Ignored int
}

// LimitError says that a receipt is over a limit of its format.
type LimitError struct {
	What  string // such as "lines"
	Limit int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("read receipt: more than %d %s", e.Limit, e.What)
}

// ReadReceipt reads a receipt. Lines that are not understood are kept or counted, never an error; the error is a
// *LimitError or comes from r.
func ReadReceipt(r io.Reader) (*Receipt, error) {
	out := newCollector(&Receipt{})
	in := bufio.NewReaderSize(io.LimitReader(r, MaxReceipt+1), 64<<10)
	for size, lines := 0, 0; ; {
		line, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read receipt: %w", err)
		}
		if size += len(line); size > MaxReceipt {
			return nil, &LimitError{What: "bytes", Limit: MaxReceipt}
		}
		if text := bytes.TrimSpace(line); len(text) > 0 {
			if lines++; lines > MaxReceiptLines {
				return nil, &LimitError{What: "lines", Limit: MaxReceiptLines}
			}
			out.addLine(text)
		}
		if err != nil {
			return out.Receipt, nil
		}
	}
}

// addLine sorts in one line.
func (r *collector) addLine(line []byte) {
	if env, err := dsse.ParseLimit(line, dsse.MaxReceipt); err == nil {
		if !r.add(env) {
			r.Others = append(r.Others, bytes.Clone(line))
		}
		return
	}
	// Structure only: what a line is, is decided by the members that nothing else has.
	var head struct {
		PayloadType *json.RawMessage `json:"payloadType"`
		MediaType   string           `json:"mediaType"`
	}
	switch {
	case line[0] != '{' || json.Unmarshal(line, &head) != nil || head.PayloadType != nil:
		r.Ignored++
	case isSourceType(head.MediaType):
		source, err := parseSource(line)
		if err != nil {
			r.Ignored++
			return
		}
		r.AddSource(source)
	default:
		r.Others = append(r.Others, bytes.Clone(line))
	}
}

// Add puts an envelope into the list it belongs to; false if it is none of ours. An envelope of the same statement
// gets the signatures of env, as long as there are no more than MaxSignatures; what does not fit stays beside it as
// an envelope of its own, so that useless signatures cannot crowd out good ones.
func (r *Receipt) Add(env *dsse.Envelope) bool { return newCollector(r).add(env) }

// collector adds to a receipt in time that does not grow with the number of envelopes that are there.
type collector struct {
	*Receipt
	seed  maphash.Seed
	known map[uint64][]*dsse.Envelope // by hash of the payload
}

func newCollector(r *Receipt) *collector {
	c := &collector{Receipt: r, seed: maphash.MakeSeed(), known: map[uint64][]*dsse.Envelope{}}
	for _, list := range r.envelopes() {
		for _, env := range list {
			c.know(env)
		}
	}
	return c
}

func (r *collector) know(env *dsse.Envelope) {
	hash := maphash.Bytes(r.seed, env.Payload)
	r.known[hash] = append(r.known[hash], env)
}

func (r *collector) add(env *dsse.Envelope) bool {
	list := r.list(env)
	if list == nil {
		return false
	}
	for _, have := range r.known[maphash.Bytes(r.seed, env.Payload)] {
		if bytes.Equal(have.Payload, env.Payload) && mergeSignatures(have, env) {
			return true
		}
	}
	added := &dsse.Envelope{PayloadType: env.PayloadType, Payload: env.Payload, Signatures: slices.Clone(env.Signatures)}
	*list = append(*list, added)
	r.know(added)
	return true
}

func (r *Receipt) list(env *dsse.Envelope) *[]*dsse.Envelope {
	if env.PayloadType != PayloadType {
		return nil
	}
	switch peekPredicateType(env.Payload) {
	case ClaimType:
		return &r.Claims
	case ProvenanceType:
		return &r.Provenances
	case NegativeType:
		return &r.Negatives
	case VSAType:
		return &r.Summaries
	}
	return nil
}

// peekPredicateType returns what a payload says it is, before any signature was checked. It only serves to sort:
// whoever uses the statement parses it again, strictly, after its signature was verified.
func peekPredicateType(payload []byte) string {
	if len(payload) > MaxStatement {
		return ""
	}
	if t, ok := peekCanonical(payload); ok {
		return t
	}
	var head struct {
		Type          string `json:"_type"`
		PredicateType string `json:"predicateType"`
	}
	if json.Unmarshal(payload, &head) != nil || head.Type != StatementType {
		return ""
	}
	return head.PredicateType
}

// peekCanonical is the short way for a statement in canonical form, whose last members are predicateType and subject.
func peekCanonical(payload []byte) (string, bool) {
	if !bytes.HasPrefix(payload, []byte(`{"_type":"`+StatementType+`","predicate":`)) {
		return "", false
	}
	member := []byte(`,"predicateType":"`)
	i := bytes.LastIndex(payload, member)
	if i < 0 {
		return "", false
	}
	value, _, ok := bytes.Cut(payload[i+len(member):], []byte(`","subject":[{`))
	return string(value), ok && bytes.IndexByte(value, '"') < 0
}

// mergeSignatures adds the signatures of from that into lacks; false, and no change, if they would be too many.
func mergeSignatures(into, from *dsse.Envelope) bool {
	var lacking []dsse.Signature
	for _, s := range from.Signatures {
		same := func(o dsse.Signature) bool { return o.KeyID == s.KeyID && bytes.Equal(o.Sig, s.Sig) }
		if !slices.ContainsFunc(into.Signatures, same) && !slices.ContainsFunc(lacking, same) {
			lacking = append(lacking, s)
		}
	}
	if len(into.Signatures)+len(lacking) > MaxSignatures {
		return false
	}
	into.Signatures = append(into.Signatures, lacking...)
	return true
}

// AddSource adds a carried source; one with the same digest and type is kept once.
func (r *Receipt) AddSource(s Source) {
	same := func(o Source) bool { return o.MediaType == s.MediaType && o.Digest == s.Digest }
	if !slices.ContainsFunc(r.Sources, same) {
		r.Sources = append(r.Sources, s)
	}
}

// Merge adds everything that other holds.
func (r *Receipt) Merge(other *Receipt) {
	c := newCollector(r)
	for _, list := range other.envelopes() {
		for _, env := range list {
			c.add(env)
		}
	}
	for _, s := range other.Sources {
		r.AddSource(s)
	}
	for _, line := range other.Others {
		if !slices.ContainsFunc(r.Others, func(o []byte) bool { return bytes.Equal(o, line) }) {
			r.Others = append(r.Others, line)
		}
	}
	r.Ignored += other.Ignored
}

func (r *Receipt) envelopes() [][]*dsse.Envelope {
	return [][]*dsse.Envelope{r.Claims, r.Provenances, r.Negatives, r.Summaries}
}

// Empty reports whether the receipt holds no statement at all.
func (r *Receipt) Empty() bool {
	return !slices.ContainsFunc(r.envelopes(), func(l []*dsse.Envelope) bool { return len(l) > 0 })
}

// summary says for people what the receipt holds.
func (r *Receipt) summary() string {
	text := fmt.Sprintf("%s, %s, %s, %s", count(len(r.Claims), "claim"), count(len(r.Provenances), "provenance"),
		count(len(r.Negatives), "negative result"), count(len(r.Sources), "carried source"))
	if r.Ignored > 0 {
		text += fmt.Sprintf("; %s ignored", count(r.Ignored, "malformed line"))
	}
	return text
}

// WriteTo writes the receipt: claims first, then provenances, negative results, summaries, sources and the rest,
// each sorted, so that the same content gives the same bytes. It refuses what ReadReceipt would refuse.
func (r *Receipt) WriteTo(w io.Writer) (int64, error) {
	var lines [][]byte
	for _, list := range r.envelopes() {
		lines = append(lines, envelopeLines(list)...)
	}
	for _, s := range slices.SortedFunc(slices.Values(r.Sources), compareSources) {
		lines = append(lines, s.encode())
	}
	lines = append(lines, slices.SortedFunc(slices.Values(r.Others), bytes.Compare)...)
	if len(lines) > MaxReceiptLines {
		return 0, fmt.Errorf("write receipt: %d lines are over the limit of %d", len(lines), MaxReceiptLines)
	}
	size := 0
	for _, l := range lines {
		size += len(l) + 1
	}
	if size > MaxReceipt {
		return 0, fmt.Errorf("write receipt: %d bytes are over the limit of %d", size, MaxReceipt)
	}
	var n int64
	for _, l := range lines {
		k, err := w.Write(append(slices.Clip(l), '\n'))
		n += int64(k)
		if err != nil {
			return n, fmt.Errorf("write receipt: %w", err)
		}
	}
	return n, nil
}

// envelopeLines returns the envelopes as lines, sorted by statement id, with their signatures sorted.
func envelopeLines(list []*dsse.Envelope) [][]byte {
	type entry struct {
		id   digest.SHA256
		line []byte
	}
	var entries []entry
	for _, env := range list {
		sorted := *env
		sorted.Signatures = slices.SortedFunc(slices.Values(env.Signatures), compareSignatures)
		entries = append(entries, entry{env.ID(), bytes.TrimSpace(sorted.Marshal())})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if c := bytes.Compare(a.id[:], b.id[:]); c != 0 {
			return c
		}
		return bytes.Compare(a.line, b.line)
	})
	lines := make([][]byte, len(entries))
	for i, e := range entries {
		lines[i] = e.line
	}
	return lines
}

func compareSignatures(a, b dsse.Signature) int {
	if c := strings.Compare(a.KeyID, b.KeyID); c != 0 {
		return c
	}
	return bytes.Compare(a.Sig, b.Sig)
}
