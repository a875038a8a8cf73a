package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"arch.network/agent"
	"arch.network/agent/control/wire"
)

// maxEvent is the most bytes of one line of a stream of events.
const maxEvent = 1 << 20

// Events implements agent.Node. When the connection ends early, the error is an *AnswerError or a *ConnectError: asking again after
// the last event goes on without a gap.
func (c *Client) Events(ctx context.Context, after int64) iter.Seq2[agent.Event, error] {
	return func(yield func(agent.Event, error) bool) {
		query := url.Values{}
		if after >= 0 {
			query.Set("after", strconv.FormatInt(after, 10))
		}
		res, err := c.do(ctx, http.MethodGet, "/v1/events", query, "", nil, http.Header{"Accept": {wire.MediaEvents}})
		if err != nil {
			if ctx.Err() == nil {
				yield(agent.Event{}, err)
			}
			return
		}
		defer res.Body.Close()
		in := newFrames(res.Body)
		for {
			e, err := in.next()
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				if !isNodes(err) {
					err = &AnswerError{c.address, err}
				}
				yield(agent.Event{}, err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// isNodes reports whether the node itself said that.
func isNodes(err error) bool {
	_, lagged := errors.AsType[*agent.LaggedError](err)
	_, other := errors.AsType[*wire.Error](err)
	return lagged || other
}

// frames reads server-sent events as a node writes them: only line feeds end lines, and data is one line.
type frames struct{ lines *bufio.Reader }

func newFrames(r io.Reader) *frames { return &frames{bufio.NewReaderSize(r, maxEvent)} }

// next returns the next event; what it does not know is skipped. The error is the node's own if the stream says so, and
// io.ErrUnexpectedEOF when it ends.
func (f *frames) next() (agent.Event, error) {
	name, data := "", ""
	for {
		line, err := f.lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return agent.Event{}, errors.New("an event is over the limit of 1 MiB")
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return agent.Event{}, err
		}
		text := strings.TrimSuffix(string(line), "\n")
		field, value, _ := strings.Cut(text, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case text == "" && data == "":
			name = ""
		case text == "":
			return readEvent(name, data)
		case field == "event":
			name = value
		case field == "data" && data != "":
			return agent.Event{}, errors.New("an event has two lines of data")
		case field == "data":
			data = value
		}
	}
}

func readEvent(name, data string) (agent.Event, error) {
	if name == "problem" {
		var p wire.Problem
		if err := decode([]byte(data), &p); err != nil {
			return agent.Event{}, err
		}
		return agent.Event{}, p.Err()
	}
	var e agent.Event
	err := decode([]byte(data), &e)
	return e, err
}
