// Package witness cosigns the checkpoints of other logs, and has one's own cosigned (C2SP tlog-witness). A witness vouches for one thing: that it never
// saw a log tell two histories.
//
// The server promises that a cosignature is given only after the state it vouches for is on the disk, with its directory; that the
// state of a log only moves forward, by a proof that was checked; and that two checkpoints of one size that contradict each other are kept, both
// signed by the log. It cosigns for logs that its policy names, and demands every signature that the policy has for them.
//
// It never looks into a log, and never sets out to fetch one.
package witness

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"
	"arch.network/attest/ledger/notekey"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Paths and types of the protocol.
const (
	AddPath  = "/add-checkpoint"
	sizeType = "text/x.tlog.size"
	// maxRequest bounds a request: a checkpoint, and 63 hashes with a line for the size.
	maxRequest = ledger.MaxNote + 4<<10
	maxProof   = 63
	maxForks   = 16 // pieces of evidence that are kept of a log
)

// Options say for whom a Server vouches.
type Options struct {
	Dir    string         // of the states; it is made if it is not there
	Keys   *notekey.Keys  // their name is the witness's
	Policy *ledger.Policy // its logs; its own witnesses and quorum are not used
}

// Server is a witness. It may serve several requests at once.
type Server struct {
	opts    Options
	signers []note.Signer
	unlock  func() error

	mu sync.Mutex // guards the files of all states: one request at a time changes them
}

// NewServer opens a witness's states. The caller MUST call Close. If another process has them, the error is a *durable.InUseError.
func NewServer(opts Options) (*Server, error) {
	signers, err := opts.Keys.WitnessSigners()
	if err != nil {
		return nil, fmt.Errorf("open witness: %w", err)
	}
	if err := durable.MakeDir(opts.Dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := durable.Lock(filepath.Join(opts.Dir, "lock"))
	if err != nil {
		return nil, err
	}
	return &Server{opts: opts, signers: signers, unlock: unlock}, nil
}

// Close lets go of the states. No request may be served any more.
func (s *Server) Close() error { return s.unlock() }

// ServeHTTP answers add-checkpoint.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != AddPath:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", "POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "the request cannot be read, or is too large", http.StatusBadRequest)
		return
	}
	req, err := parseRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	cosignatures, err := s.add(req)
	refusal, refused := errors.AsType[*refusal](err)
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(cosignatures) // a client that went away asks again
	case refused && refusal.size >= 0:
		w.Header().Set("Content-Type", sizeType)
		w.WriteHeader(refusal.status)
		fmt.Fprintf(w, "%d\n", refusal.size)
	case refused:
		http.Error(w, refusal.why, refusal.status)
	default:
		http.Error(w, "the witness's state cannot be kept", http.StatusInternalServerError)
	}
}

// refusal is an answer other than a cosignature.
type refusal struct {
	status int
	why    string
	size   int64 // what was cosigned last; -1: it is not part of the answer
}

func (r *refusal) Error() string { return r.why }

func refuse(status int, why string) error { return &refusal{status: status, why: why, size: -1} }

// request is the body of add-checkpoint.
type request struct {
	old   int64
	proof []tlog.Hash
	note  []byte
}

// parseRequest reads "old N", hashes, an empty line and a checkpoint.
func parseRequest(body []byte) (request, error) {
	head, signed, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok || len(signed) == 0 {
		return request{}, errors.New("there is no empty line with a checkpoint behind it")
	}
	lines := strings.Split(string(head), "\n")
	number, ok := strings.CutPrefix(lines[0], "old ")
	old, ok2 := ledger.ParseNumber(number)
	if !ok || !ok2 {
		return request{}, errors.New(`the first line is not "old" and a size`)
	}
	if len(lines)-1 > maxProof {
		return request{}, fmt.Errorf("the proof has over %d hashes", maxProof)
	}
	r := request{old: old, note: signed}
	for _, line := range lines[1:] {
		h, ok := ledger.ParseHash(line)
		if !ok {
			return request{}, errors.New("a line of the proof is no hash")
		}
		r.proof = append(r.proof, h)
	}
	return r, nil
}

// add cosigns a checkpoint if it continues what was cosigned last.
func (s *Server) add(r request) ([]byte, error) {
	origin, _, _ := strings.Cut(string(r.note), "\n")
	if !slices.Contains(s.opts.Policy.Origins(), origin) {
		return nil, refuse(http.StatusNotFound, "the log is not known here")
	}
	signed, err := s.opts.Policy.Read(r.note)
	if err != nil {
		return nil, refuse(http.StatusForbidden, "the log's keys did not sign it")
	}
	if r.old > signed.Size {
		return nil, refuse(http.StatusBadRequest, "the old size is over the checkpoint's")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last, lastNote, err := s.state(origin)
	if err != nil {
		return nil, err
	}
	if r.old != last.Size {
		return nil, &refusal{status: http.StatusConflict, why: "the old size is not what was cosigned last", size: last.Size}
	}
	if lastNote != nil && signed.Size == last.Size && signed.Root != last.Root {
		if err := s.keepFork(origin, lastNote, r.note); err != nil {
			return nil, err
		}
		return nil, refuse(http.StatusConflict, "a checkpoint of this size with another root was cosigned: the log is forked")
	}
	if err := signed.Continues(last, r.proof); err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "the proof does not show that the checkpoint continues what was cosigned last")
	}
	if err := durable.WriteFile(s.path(origin), r.note, 0o644); err != nil {
		return nil, err
	}
	return cosign(signed.Checkpoint, r.note, s.signers)
}

// cosign returns the lines of signatures over the text of a checkpoint.
func cosign(c ledger.Checkpoint, signed []byte, signers []note.Signer) ([]byte, error) {
	text, _, _ := bytes.Cut(signed, []byte("\n\n"))
	if !strings.HasPrefix(string(text)+"\n", c.String()) {
		return nil, errors.New("cosign checkpoint: its text is another than was read") // a broken invariant
	}
	out, err := note.Sign(&note.Note{Text: string(text) + "\n"}, signers...)
	if err != nil {
		return nil, fmt.Errorf("cosign checkpoint of %s: %w", c.Origin, err)
	}
	_, lines, _ := bytes.Cut(out, []byte("\n\n"))
	return lines, nil
}

// state returns what was cosigned last of a log: an empty one, and no note, if nothing was.
func (s *Server) state(origin string) (ledger.Checkpoint, []byte, error) {
	data, err := durable.ReadFile(s.path(origin), ledger.MaxNote)
	if errors.Is(err, os.ErrNotExist) {
		return ledger.EmptyTree(origin), nil, nil
	}
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	signed, err := s.opts.Policy.Read(data)
	if err != nil || signed.Origin != origin {
		return ledger.Checkpoint{}, nil, fmt.Errorf("read what was cosigned last of %s: %s is damaged", origin, s.path(origin))
	}
	return signed.Checkpoint, data, nil
}
