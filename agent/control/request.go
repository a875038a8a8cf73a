package control

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"arch.network/agent/control/wire"
	"arch.network/attest/canonical"
)

// params are the parameters of a request's query. Each may be given once, and none but those that are asked for.
type params map[string]string

// readParams reads the query strictly.
func readParams(r *http.Request, known ...string) (params, error) {
	if len(r.URL.RawQuery) > 4096 {
		return nil, wire.New(wire.CodeRequest, "the query is over 4096 bytes")
	}
	values, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	out := params{}
	for name, all := range values {
		if !slices.Contains(known, name) {
			return nil, wire.New(wire.CodeRequest, "there is no parameter %q", shorten(name))
		}
		if len(all) > 1 {
			return nil, wire.New(wire.CodeRequest, "%s is given %d times", name, len(all))
		}
		if !utf8.ValidString(all[0]) {
			return nil, wire.New(wire.CodeRequest, "%s is no UTF-8", name)
		}
		out[name] = all[0]
	}
	return out, nil
}

// number reads a decimal number from 0 to limit; absent: zero.
func (p params) number(name string, limit int64) (int64, error) {
	text, ok := p[name]
	if !ok {
		return 0, nil
	}
	n, ok := parseNumber(text)
	if !ok || n > limit {
		return 0, wire.New(wire.CodeRequest, "%s: %q is no number from 0 to %d", name, shorten(text), limit)
	}
	return n, nil
}

// parseNumber reads what strconv.FormatInt writes of a number that is not negative.
func parseNumber(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == text
}

func (p params) flag(name string) (bool, error) {
	switch text, ok := p[name]; {
	case !ok, text == "false":
		return false, nil
	case text == "true":
		return true, nil
	default:
		return false, wire.New(wire.CodeRequest, "%s: %q is neither true nor false", name, shorten(text))
	}
}

// readBody reads a body of one of the media types, of at most wire.MaxBody bytes.
func readBody(r *http.Request, types ...string) ([]byte, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || !slices.Contains(types, media) {
		return nil, wire.New(wire.CodeMedia, "the body is of type %q, not one of %s", shorten(r.Header.Get("Content-Type")), strings.Join(types, ", "))
	}
	if r.Header.Get("Content-Encoding") != "" {
		return nil, wire.New(wire.CodeMedia, "the body is compressed")
	}
	if r.ContentLength > wire.MaxBody {
		return nil, wire.New(wire.CodeTooLarge, "the body has %d bytes, over the limit of %d", r.ContentLength, wire.MaxBody)
	}
	data, err := io.ReadAll(r.Body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, wire.New(wire.CodeTooLarge, "the body is over the limit of %d bytes", wire.MaxBody)
	}
	if err != nil {
		return nil, wire.New(wire.CodeRequest, "the body did not come whole")
	}
	return data, nil
}

// decode reads JSON in which nothing is unknown, repeated or left to interpretation.
func decode(data []byte, v any) error {
	form, err := canonical.Transform(data)
	if err == nil {
		err = canonical.Unmarshal(form, v)
	}
	if err != nil {
		return wire.New(wire.CodeRequest, "read body: %v", err)
	}
	return nil
}

// readReason reads the body of an act.
func readReason(r *http.Request) (string, error) {
	data, err := readBody(r, wire.MediaJSON)
	if err != nil {
		return "", err
	}
	var body wire.Reason
	if err := decode(data, &body); err != nil {
		return "", err
	}
	switch {
	case strings.TrimSpace(body.Reason) == "":
		return "", wire.New(wire.CodeRequest, "reason: missing")
	case len(body.Reason) > wire.MaxReason:
		return "", wire.New(wire.CodeRequest, "reason: %d bytes, over the limit of %d", len(body.Reason), wire.MaxReason)
	}
	return body.Reason, nil
}
