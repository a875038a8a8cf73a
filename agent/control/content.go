package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"arch.network/agent"
	"arch.network/agent/control/wire"
	"arch.network/attest/digest"
)

// Content takes what jobs pin into the node's store.
type Content interface {
	// HasContent reports whether it is there.
	HasContent(kind wire.ContentKind, d digest.SHA256) (bool, error)
	// PutContent reads r to its end and keeps what it holds: a blob as it is, a tree from a NAR. It stays for long enough to hand in the job
	// that pins it. The error is a *wire.MismatchError if the bytes are not those that d names; then nothing is kept.
	PutContent(ctx context.Context, kind wire.ContentKind, d digest.SHA256, r io.Reader) error
}

// contentOf reads which content the path names.
func (s *Server) contentOf(r *http.Request) (wire.ContentKind, digest.SHA256, error) {
	if _, err := readParams(r); err != nil {
		return "", digest.SHA256{}, err
	}
	if s.o.Content == nil {
		return "", digest.SHA256{}, wire.New(wire.CodeNotServed, "content is not taken")
	}
	kind := wire.ContentKind(r.PathValue("kind"))
	if kind != wire.Blob && kind != wire.Tree {
		return "", digest.SHA256{}, wire.New(wire.CodeNotFound, "there is no kind of content %q", shorten(string(kind)))
	}
	d, err := digest.Parse(r.PathValue("digest"))
	if err != nil || d.IsZero() || d.String() != r.PathValue("digest") {
		return "", digest.SHA256{}, wire.New(wire.CodeRequest, "%q is no digest such as sha256:…", shorten(r.PathValue("digest")))
	}
	return kind, d, nil
}

func (s *Server) hasContent(w http.ResponseWriter, r *http.Request, _ caller) error {
	kind, d, err := s.contentOf(r)
	if err != nil {
		return err
	}
	have, err := s.o.Content.HasContent(kind, d)
	if err != nil {
		return err
	}
	return answer(w, r, wire.Content{Kind: kind, Digest: d, Here: have})
}

// putContent takes content. What is there already is not read again.
func (s *Server) putContent(w http.ResponseWriter, r *http.Request, _ caller) error {
	kind, d, err := s.contentOf(r)
	if err != nil {
		return err
	}
	have, err := s.o.Content.HasContent(kind, d)
	if err != nil {
		return err
	}
	if have {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if r.ContentLength > wire.MaxContent {
		return wire.New(wire.CodeTooLarge, "the content has %d bytes, over the limit of %d", r.ContentLength, wire.MaxContent)
	}
	leave, ok := s.enter()
	if !ok {
		return wire.New(wire.CodeBusy, "as many streams are open as may be")
	}
	defer leave()
	rc := forever(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stop, cancel)()
	if err := s.o.Content.PutContent(ctx, kind, d, &patient{r.Body, rc, s.o.Slow}); err != nil {
		return uploadError(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// uploadError tells what the sender did wrong from what the node cannot do.
func uploadError(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return wire.New(wire.CodeTooLarge, "the content is over the limit of %d bytes", wire.MaxContent)
	}
	if e, ok := errors.AsType[*wire.MismatchError](err); ok {
		return wire.New(wire.CodeRequest, "%s", e.Error())
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) {
		return wire.New(wire.CodeRequest, "the content did not come whole")
	}
	return err
}

// patient reads a body, each time with as much time as a reader would have.
type patient struct {
	body io.Reader
	rc   *http.ResponseController
	slow time.Duration
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	_ = p.rc.SetReadDeadline(time.Now().Add(p.slow)) // not supported in tests without a connection
	return p.body.Read(b)
}

// archive sends a job's archive entry with everything that it names, as one file.
func (s *Server) archive(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	if s.o.Archive == nil {
		return wire.New(wire.CodeNotServed, "the archive is not served")
	}
	job, err := s.find(r)
	if err != nil {
		return err
	}
	if job.State != agent.Archived {
		return &agent.StepError{From: job.State, To: agent.Archived}
	}
	leave, ok := s.enter()
	if !ok {
		return wire.New(wire.CodeBusy, "as many streams are open as may be")
	}
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stop, cancel)()
	from, to := io.Pipe()
	defer from.Close()
	go func() { to.CloseWithError(s.o.Archive(ctx, job.ID, to)) }()
	w.Header().Set("Content-Type", wire.MediaArchive)
	w.Header().Set("Cache-Control", "no-store")
	return s.copy(w, r, from)
}
