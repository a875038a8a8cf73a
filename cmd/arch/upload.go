package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"arch.network/agent/content"
	"arch.network/agent/control/client"
	"arch.network/agent/control/wire"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/store"
)

// upload hands a node what a job pins, as far as it is here and not there. A node that takes no content, or none from this user, is
// handed the document alone.
func (a *app) upload(ctx context.Context, node *client.Client, envelope []byte, dirs []string) error {
	_, doc, err := openEnvelope(envelope)
	if err != nil {
		return err
	}
	job, ok := doc.(*manifest.Job)
	if !ok {
		return nil
	}
	missing, err := missingThere(ctx, node, content.Pieces(job))
	if err != nil || len(missing) == 0 {
		return err
	}
	s, err := a.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	lease, err := s.Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Release()
	p := newProgress(a)
	defer p.end()
	for _, piece := range missing {
		path, err := piece.Find(ctx, s, dirs)
		if err != nil {
			return err
		}
		if path == "" {
			continue // the node may know where to fetch it
		}
		if err := p.upload(ctx, node, piece, path); err != nil {
			return fmt.Errorf("hand over %s: %w", piece.Ref, err)
		}
	}
	return nil
}

// missingThere asks which pieces the node does not have; none, if it takes none.
func missingThere(ctx context.Context, node *client.Client, pieces []content.Piece) ([]content.Piece, error) {
	var out []content.Piece
	for _, p := range pieces {
		have, err := node.HasContent(ctx, uploadKind(p), p.Digest)
		if refused, ok := errors.AsType[*wire.Error](err); ok && slices.Contains([]string{wire.CodeOperator, wire.CodeNotServed, wire.CodeNotFound}, refused.Problem.Code) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if !have {
			out = append(out, p)
		}
	}
	return out, nil
}

func uploadKind(p content.Piece) wire.ContentKind {
	if p.Kind == store.Tree {
		return wire.Tree
	}
	return wire.Blob
}

// upload hands over one piece, and shows how far it is.
func (p *progress) upload(ctx context.Context, node *client.Client, piece content.Piece, path string) error {
	r, total, err := piece.Open(ctx, path)
	if err != nil {
		return err
	}
	defer r.Close()
	sent := &sending{Reader: r, p: p, name: piece.Ref.String(), total: total, shown: time.Now()}
	if err := node.PutContent(ctx, uploadKind(piece), piece.Digest, sent, total); err != nil {
		return err
	}
	p.sent(piece.Ref.String(), piece.Digest, sent.n)
	return nil
}

// sending counts what is handed over.
type sending struct {
	io.Reader
	p        *progress
	name     string
	n, total int64
	shown    time.Time
}

// Read implements io.Reader.
func (s *sending) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	s.n += int64(n)
	if now := time.Now(); now.Sub(s.shown) > time.Second/4 {
		s.shown = now
		s.p.sends(s.name, s.n, s.total)
	}
	return n, err
}

// sends shows how much of a piece is handed over.
func (p *progress) sends(name string, n, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.app.quiet || p.app.json {
		return
	}
	text := fmt.Sprintf("hands over %s: %s", name, size(n))
	if total > 0 {
		text += " of " + size(total)
	}
	p.begin(text)
}

// uploadProgress is a piece that was handed over to a node.
type uploadProgress struct {
	Name   string        `json:"uploaded"`
	Digest digest.SHA256 `json:"digest"`
	Bytes  int64         `json:"bytes"`
}

func (uploadProgress) kind() string { return "UploadProgress" }

// sent tells that a piece was handed over.
func (p *progress) sent(name string, d digest.SHA256, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.app.quiet:
	case p.app.json:
		p.app.jsonLine(uploadProgress{name, d, n})
	default:
		p.print(fmt.Sprintf("handed over %s (%s)", name, size(n)))
	}
}
