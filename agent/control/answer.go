package control

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"arch.network/agent/control/logview"
	"arch.network/agent/control/wire"
	"arch.network/attest/digest"
)

// answer writes v as JSON, or nothing if the caller has it already.
func answer(w http.ResponseWriter, r *http.Request, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return answerBytes(w, r, wire.MediaJSON, append(data, '\n'))
}

// answerBytes writes what is in memory, with an ETag.
func answerBytes(w http.ResponseWriter, r *http.Request, media string, data []byte) error {
	tag := `"` + digest.Of(data).Hex()[:32] + `"`
	w.Header().Set("ETag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, err := w.Write(data)
	return ended(err)
}

// matches compares as RFC 9110 section 13.1.2 says, weakly.
func matches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		if part = strings.TrimSpace(part); part == "*" || strings.TrimPrefix(part, "W/") == tag {
			return true
		}
	}
	return false
}

// goneError says that the other end is gone or too slow: there is nobody to tell.
type goneError struct{ error }

func ended(err error) error {
	if err == nil {
		return nil
	}
	return &goneError{err}
}

// fail answers with an error, and logs what is not the caller's doing.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if _, ok := errors.AsType[*goneError](err); ok {
		return
	}
	if e, ok := errors.AsType[*logview.RangeError](err); ok {
		err = wire.New(wire.CodeNotFound, "%s", e.Error())
	}
	p := wire.ProblemOf(err)
	if p.Code == wire.CodeInternal && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
		s.o.Log.ErrorContext(r.Context(), "no room", "method", r.Method, "path", r.URL.Path, "error", err.Error())
		p = wire.New(wire.CodeDisk, "the node's disk is full").Problem
	}
	if p.Code == wire.CodeInternal && r.Context().Err() == nil {
		s.o.Log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err.Error())
	}
	if sw, ok := w.(*statusWriter); ok && sw.status != 0 {
		panic(http.ErrAbortHandler) // half of it is written: the other end must not take it for the whole
	}
	s.write(w, p)
}

// refuse answers with a problem outside of any route.
func (s *Server) refuse(w http.ResponseWriter, err *wire.Error) {
	s.stats.refused(err.Problem.Code)
	s.write(w, err.Problem)
}

func (s *Server) write(w http.ResponseWriter, p wire.Problem) {
	data, err := json.Marshal(p)
	if err != nil {
		panic("control: " + err.Error())
	}
	h := w.Header()
	h.Set("Content-Type", wire.MediaProblem)
	h.Del("ETag")
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(data, '\n'))
}

// missing tells an absent file from a broken one.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
