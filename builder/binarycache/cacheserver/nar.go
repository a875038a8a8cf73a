package cacheserver

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// narPath is where a NAR is published. It names the path as well as its content, so that it can be found without an index, and never means
// another content.
func narPath(o Object) string {
	return "nar/" + o.Path.Hash + "-" + strings.TrimPrefix(o.NAR.Nix32(), "sha256:") + ".nar.zst"
}

// nar packs a NAR while it is sent.
func (s *server) nar(w http.ResponseWriter, r *http.Request, name string) {
	hash, _, _ := strings.Cut(strings.TrimPrefix(name, "nar/"), "-")
	release, err := s.store.Hold(r.Context())
	if err != nil {
		s.answer(w, r, nil, err, "")
		return
	}
	defer release()
	o, err := s.find(r.Context(), hash)
	if err == nil && narPath(o) != name {
		err = fs.ErrNotExist
	}
	if err != nil {
		s.answer(w, r, nil, err, "")
		return
	}
	w.Header().Set("Content-Type", "application/x-nix-nar")
	if r.Method == http.MethodHead {
		return
	}
	if err := send(w, r, o); err != nil {
		s.known.forget(hash)
		panic(http.ErrAbortHandler) // the client must not take what it has for the whole
	}
}

// send returns an error if what was sent is not the object, or did not reach the client.
func send(w http.ResponseWriter, r *http.Request, o Object) error {
	z, err := zstd.NewWriter(&patient{w, http.NewResponseController(w)}, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	var sum digest.Writer
	if err := nar.Dump(r.Context(), io.MultiWriter(&sum, z), o.Source, nar.Options{}); err != nil {
		return err // z is left open: closed, it would look like the end
	}
	if sum.Sum() != o.NAR {
		return errors.New("the path was changed")
	}
	return z.Close()
}

// patient lets a client be slow, as long as it reads at all.
type patient struct {
	w       io.Writer
	control *http.ResponseController
}

func (p *patient) Write(data []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(stall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.w.Write(data)
}
