package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"arch.network/agent"
	"arch.network/agent/control/wire"
)

// events sends what happens, as server-sent events: the number is the id, the kind the event. Last-Event-ID, or after, goes on where
// an earlier reader was; without, it begins now.
func (s *Server) events(w http.ResponseWriter, r *http.Request, _ caller) error {
	after, err := readAfter(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", wire.MediaEvents)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx holds streams back otherwise
	if r.Method == http.MethodHead {
		return nil
	}
	leave, ok := s.enter()
	if !ok {
		return wire.New(wire.CodeBusy, "%d streams are open", cap(s.streams))
	}
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stop, cancel)()

	rc := forever(w)
	w.WriteHeader(http.StatusOK)
	send := func(text []byte) error {
		_ = rc.SetWriteDeadline(time.Now().Add(s.o.Slow))
		_, err := w.Write(text)
		if err == nil {
			err = rc.Flush()
		}
		return ended(err)
	}
	if err := send([]byte("retry: 2000\n\n")); err != nil {
		return err
	}
	return s.pump(ctx, after, send)
}

// readAfter reads the number of the last event that the caller has; below zero: none.
func readAfter(r *http.Request) (int64, error) {
	p, err := readParams(r, "after")
	if err != nil {
		return 0, err
	}
	text, ok := p["after"]
	if last := r.Header.Get("Last-Event-ID"); last != "" { // a reader that comes back repeats its first query, too
		text, ok = last, true
	}
	if !ok {
		return -1, nil
	}
	n, good := parseNumber(text)
	if !good {
		return 0, wire.New(wire.CodeRequest, "%q is no number of an event", shorten(text))
	}
	return n, nil
}

// pump sends events until ctx ends or the node says that the reader is too slow.
func (s *Server) pump(ctx context.Context, after int64, send func([]byte) error) error {
	type next struct {
		event agent.Event
		err   error
	}
	coming := make(chan next)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(coming)
		for e, err := range s.o.Node.Events(ctx, after) {
			select {
			case coming <- next{e, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	beat := time.NewTicker(s.o.Heartbeat)
	defer beat.Stop()
	for {
		var text []byte
		select {
		case n, ok := <-coming:
			if !ok {
				return nil
			}
			var err error
			if text, err = frame(n.event, n.err); err != nil {
				return err
			}
			if n.err != nil {
				return send(text)
			}
		case <-beat.C:
			text = []byte(":\n\n")
		case <-ctx.Done():
			return nil
		}
		if err := send(text); err != nil {
			return err
		}
	}
}

// frame writes one event, or the problem that ends a stream. JSON has no line breaks, so none can end a field.
func frame(e agent.Event, err error) ([]byte, error) {
	var b bytes.Buffer
	if err == nil {
		data, merr := json.Marshal(e)
		fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: %s\n\n", e.Number, eventName(e.Kind), data)
		return b.Bytes(), merr
	}
	if _, lagged := errors.AsType[*agent.LaggedError](err); !lagged {
		return nil, err
	}
	data, merr := json.Marshal(wire.ProblemOf(err))
	fmt.Fprintf(&b, "event: problem\ndata: %s\n\n", data)
	return b.Bytes(), merr
}

// eventName keeps the field's grammar, whatever kinds there will be.
func eventName(kind string) string {
	switch kind {
	case "job", "policy", "node":
		return kind
	}
	return "other"
}
