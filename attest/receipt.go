package attest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"

	"arch.network/attest/canonical"
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
	Results     []*dsse.Envelope // of jobs
	Runs        []*dsse.Envelope // of jobs
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
	limited := &io.LimitedReader{R: r, N: MaxReceipt + 1}
	in := bufio.NewScanner(limited)
	in.Buffer(make([]byte, 64<<10), MaxReceipt+2) // over a whole receipt: only the limits here say what is too much
	for lines := 0; in.Scan() && limited.N > 0; {
		text := bytes.TrimSpace(in.Bytes())
		if len(text) == 0 {
			continue
		}
		if lines++; lines > MaxReceiptLines {
			return nil, &LimitError{What: "lines", Limit: MaxReceiptLines}
		}
		out.addLine(text)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read receipt: %w", err)
	}
	if limited.N <= 0 {
		return nil, &LimitError{What: "bytes", Limit: MaxReceipt}
	}
	return out.Receipt, nil
}

// addLine sorts in one line, of which it keeps no part.
func (r *collector) addLine(line []byte) {
	if bytes.HasPrefix(line, []byte(`{"mediaType":"`)) { // as WriteTo writes sources, which may be long: try this first
		if source, err := parseSource(line); err == nil {
			r.AddSource(source)
			return
		}
	}
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
	known map[uint64][]*bundled // by hash of the payload
}

// bundled is a statement that is in the receipt, in one envelope or in several.
type bundled struct {
	payload    []byte
	signatures map[string]bool // that are there, by keyOf
	last       *dsse.Envelope  // into which more signatures go as long as they fit
}

func newCollector(r *Receipt) *collector {
	c := &collector{Receipt: r, seed: maphash.MakeSeed(), known: map[uint64][]*bundled{}}
	for _, list := range r.envelopes() {
		for _, env := range list {
			c.know(c.statement(env.Payload), env)
		}
	}
	return c
}

// statement returns what is known of a payload.
func (r *collector) statement(payload []byte) *bundled {
	hash := maphash.Bytes(r.seed, payload)
	for _, s := range r.known[hash] {
		if bytes.Equal(s.payload, payload) {
			return s
		}
	}
	s := &bundled{payload: payload, signatures: map[string]bool{}}
	r.known[hash] = append(r.known[hash], s)
	return s
}

func (r *collector) know(s *bundled, env *dsse.Envelope) {
	s.last = env
	for _, sig := range env.Signatures {
		s.signatures[keyOf(sig)] = true
	}
}

// keyOf tells signatures apart; the length keeps the end of the hint from being taken for the beginning of the signature.
func keyOf(s dsse.Signature) string { return fmt.Sprintf("%d:%s%s", len(s.KeyID), s.KeyID, s.Sig) }

func (r *collector) add(env *dsse.Envelope) bool {
	list := r.list(env)
	if list == nil {
		return false
	}
	s := r.statement(env.Payload)
	first := s.last == nil
	var lacking []dsse.Signature
	for _, sig := range env.Signatures {
		if key := keyOf(sig); !s.signatures[key] {
			s.signatures[key] = true
			lacking = append(lacking, sig)
		}
	}
	switch {
	case !first && len(lacking) == 0:
	case !first && len(s.last.Signatures)+len(lacking) <= MaxSignatures:
		s.last.Signatures = append(s.last.Signatures, lacking...)
	default:
		s.last = &dsse.Envelope{PayloadType: env.PayloadType, Payload: env.Payload, Signatures: lacking}
		*list = append(*list, s.last)
	}
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
	case JobResultType:
		return &r.Results
	case JobRunType:
		return &r.Runs
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
	r, err := canonical.NewReader(payload)
	if err != nil {
		return ""
	}
	head := map[string]string{}
	// What is malformed behind these members is for Verify to say.
	_ = r.Object(func(name string) error {
		if name != "_type" && name != "predicateType" {
			return r.Skip()
		}
		text, err := r.Text()
		head[name] = string(text)
		return err
	})
	if head["_type"] != StatementType {
		return ""
	}
	return head["predicateType"]
}

// peekCanonical is the short way for a statement in canonical form, in which predicateType and subject follow the predicate, which
// is long. It looks from the end: if nothing but the subjects and the last bracket comes after a predicateType, that is the
// statement's own member, and not one within the predicate or within a subject.
func peekCanonical(payload []byte) (string, bool) {
	if !bytes.HasPrefix(payload, []byte(`{"_type":"`+StatementType+`","predicate":`)) {
		return "", false
	}
	const member = `,"predicateType":"`
	at := bytes.LastIndex(payload, []byte(member))
	if at < 0 {
		return "", false
	}
	value, rest, ok := bytes.Cut(payload[at+len(member):], []byte(`"`))
	if !ok || bytes.IndexByte(value, '\\') >= 0 {
		return "", false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"subject":`)); !ok {
		return "", false
	}
	return string(value), string(rest[valueLen(rest):]) == "}"
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
	return [][]*dsse.Envelope{r.Claims, r.Provenances, r.Negatives, r.Summaries, r.Results, r.Runs}
}

// Empty reports whether the receipt holds no statement at all.
func (r *Receipt) Empty() bool {
	return !slices.ContainsFunc(r.envelopes(), func(l []*dsse.Envelope) bool { return len(l) > 0 })
}

// summary says for people what the receipt holds.
func (r *Receipt) summary() string {
	text := fmt.Sprintf("%s, %s, %s, %s", count(len(r.Claims), "claim"), count(len(r.Provenances), "provenance"),
		count(len(r.Negatives), "negative result"), count(len(r.Sources), "carried source"))
	if len(r.Results)+len(r.Runs) > 0 {
		text += fmt.Sprintf(", %s, %s", count(len(r.Results), "job result"), count(len(r.Runs), "job run"))
	}
	if len(r.Others) > 0 {
		text += fmt.Sprintf("; %s of another kind", count(len(r.Others), "line"))
	}
	if r.Ignored > 0 {
		text += fmt.Sprintf("; %s ignored", count(r.Ignored, "malformed line"))
	}
	return text
}

// WriteTo writes the receipt: claims first, then provenances, negative results, summaries, results and runs of
// jobs, sources and the rest,
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
