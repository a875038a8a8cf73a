package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"

	"arch.network/attest/ledger"

	"golang.org/x/mod/sumdb/tlog"
)

// Client asks the witnesses of a policy for their cosignatures.
type Client struct {
	policy *ledger.Policy
	http   *http.Client
}

// NewClient returns a client for the witnesses that have an address in policy. Timeouts are those of client and of the contexts.
func NewClient(policy *ledger.Policy, client *http.Client) *Client {
	return &Client{policy: policy, http: client}
}

// attempts is how often a witness that is elsewhere than we thought is asked again.
const attempts = 3

// AheadError says that a witness has seen more of a log than there is.
type AheadError struct {
	Witness string
	Size    int64 // that it has cosigned
	Have    int64
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("ask witness %s: it has cosigned a checkpoint of %d entries, and the log has %d", e.Witness, e.Size, e.Have)
}

// Hint tells the way out.
func (e *AheadError) Hint() string {
	return "the log was restored from an old copy or has lost entries: bring back its newest copy"
}

// RefusedError says that a witness does not cosign a checkpoint.
type RefusedError struct {
	Witness string
	Status  int    // of HTTP
	Text    string // what it says, shortened
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("ask witness %s: it refuses with status %d: %q", e.Witness, e.Status, e.Text)
}

// Hint tells the way out.
func (e *RefusedError) Hint() string {
	switch e.Status {
	case http.StatusNotFound:
		return "have its operator add this ledger's keys, which arch ledger keys prints, to the logs that it cosigns for"
	case http.StatusForbidden:
		return "it knows other keys of this ledger: hand its operator those that arch ledger keys prints"
	case http.StatusConflict, http.StatusUnprocessableEntity:
		return "it has cosigned another history of this ledger: find out who wrote two, with arch ledger fsck and the evidence that the witness keeps"
	}
	return "ask its operator"
}

// Prove returns the proof that a checkpoint continues the log's state at size old, such as ledger.Prover.Consistency.
type Prove func(ctx context.Context, old int64) ([]tlog.Hash, error)

// Cosign returns the checkpoint with the cosignatures that it had and those that the witnesses gave. It asks all witnesses at once that have not
// cosigned it. If there is no quorum after that, the error is a *ledger.QuorumError joined with what each witness said, and the checkpoint comes
// back as it is then.
func (c *Client) Cosign(ctx context.Context, signed []byte, prove Prove) ([]byte, error) {
	out, answers, err := c.Ask(ctx, signed, prove, nil)
	if err != nil {
		return nil, err
	}
	if _, err := c.policy.Open(out); err != nil {
		errs := []error{err}
		for _, a := range answers {
			if a.Err != nil {
				errs = append(errs, a.Err)
			}
		}
		return out, errors.Join(errs...)
	}
	return out, nil
}

// Answer is what became of asking one witness.
type Answer struct {
	URL   string
	Names []string // the policy's, of its keys that had not cosigned
	Err   error    // nil: at least one of them has now
}

// Ask asks, all at once, the witnesses that have not cosigned a checkpoint and of which among says so by their address; nil: all of them. It
// returns the checkpoint with the cosignatures that it had and those that were given, and what each witness said, by address. The
// error says that the checkpoint itself is not what the policy calls one.
func (c *Client) Ask(ctx context.Context, signed []byte, prove Prove, among func(url string) bool) ([]byte, []Answer, error) {
	s, err := c.policy.Read(signed)
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex // guards out and answers
	var wait sync.WaitGroup
	out, answers := slices.Clone(signed), []Answer{}
	for at, names := range c.asked(s) {
		if among != nil && !among(at) {
			continue
		}
		wait.Go(func() {
			lines, err := c.ask(ctx, at, names, s, prove)
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, Answer{URL: at, Names: names, Err: err})
			out = append(out, lines...)
		})
	}
	wait.Wait()
	slices.SortFunc(answers, func(a, b Answer) int { return strings.Compare(a.URL, b.URL) })
	return out, answers, nil
}

// asked returns the witnesses that have not cosigned yet, by their address: one may have several keys.
func (c *Client) asked(s *ledger.Signed) map[string][]string {
	list := map[string][]string{}
	for _, w := range c.policy.Witnesses() {
		if w.URL != "" && !slices.Contains(s.Witnesses, w.Name) {
			list[w.URL] = append(list[w.URL], w.Name)
		}
	}
	return list
}

// ask asks one witness, and returns those of its lines that the policy's keys verify.
func (c *Client) ask(ctx context.Context, at string, names []string, s *ledger.Signed, prove Prove) ([]byte, error) {
	who := strings.Join(names, ", ")
	old := int64(0)
	for range attempts {
		proof, err := prove(ctx, old)
		if err != nil {
			return nil, fmt.Errorf("ask witness %s: %w", who, err)
		}
		status, kind, answer, err := c.post(ctx, at, old, proof, s.Note)
		if err != nil {
			return nil, fmt.Errorf("ask witness %s: %w", who, err)
		}
		switch {
		case status == http.StatusOK:
			return c.accept(who, s, answer)
		case status == http.StatusConflict && kind == sizeType:
			size, ok := ledger.ParseNumber(strings.TrimSuffix(string(answer), "\n"))
			if !ok {
				return nil, fmt.Errorf("ask witness %s: %.40q is no size", who, answer)
			}
			if size > s.Size {
				return nil, &AheadError{Witness: who, Size: size, Have: s.Size}
			}
			old = size
		default:
			return nil, &RefusedError{Witness: who, Status: status, Text: string(answer[:min(len(answer), 200)])}
		}
	}
	return nil, fmt.Errorf("ask witness %s: it says another size each time", who)
}

func (c *Client) post(ctx context.Context, at string, old int64, proof []tlog.Hash, signed []byte) (status int, kind string, answer []byte, err error) {
	var body bytes.Buffer
	fmt.Fprintf(&body, "old %d\n", old)
	for _, h := range proof {
		fmt.Fprintln(&body, base64.StdEncoding.EncodeToString(h[:]))
	}
	body.WriteByte('\n')
	body.Write(signed)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(at, "/")+AddPath, &body)
	if err != nil {
		return 0, "", nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	kind, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return resp.StatusCode, kind, answer, err
}

// maxLines is how many lines of an answer are looked at: one for each key that a witness may have. Every one of them costs as much as verifying the
// checkpoint.
const maxLines = 16

// accept returns those of the first lines of an answer that are cosignatures of the policy's witnesses, one for each.
func (c *Client) accept(who string, s *ledger.Signed, answer []byte) ([]byte, error) {
	with, looked := s, 0
	for line := range bytes.Lines(answer) {
		if looked++; looked > maxLines {
			break
		}
		more, err := c.policy.Read(slices.Concat(with.Note, line))
		if err == nil && len(more.Witnesses) > len(with.Witnesses) {
			with = more
		}
	}
	if len(with.Witnesses) == len(s.Witnesses) {
		return nil, fmt.Errorf("ask witness %s: no line of its answer is a cosignature by its key", who)
	}
	return with.Note[len(s.Note):], nil
}
