// Package client asks a node through its control API. A Client is an agent.Node: whoever has one need not know how far away the node
// is. What comes back is read strictly and with bounds; errors are those that the node's own methods return.
//
// It never follows a redirect, sends no credentials (there are none) and uses no proxy.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"arch.network/agent"
	"arch.network/agent/control/wire"
	"arch.network/attest/canonical"
	"arch.network/attest/digest"
)

// DefaultSocket is where a node listens.
const DefaultSocket = "/run/arch-node-agent/socket"

// maxAnswer is the most bytes of an answer that is read at once: a page of 1000 jobs.
const maxAnswer = canonical.MaxSize

// Client asks one node. It may be used by several goroutines at once.
type Client struct {
	address string
	base    string // of URLs
	http    *http.Client
}

var _ agent.Node = (*Client)(nil)

// New returns a client of the node at address: the path of its socket, or an http URL. Empty: DefaultSocket. It connects when it is asked.
func New(address string) (*Client, error) {
	address = cmp.Or(address, DefaultSocket)
	transport := &http.Transport{
		ResponseHeaderTimeout: time.Minute, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10, MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second,
	}
	c := &Client{address: address, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	switch u, err := url.Parse(address); {
	case strings.HasPrefix(address, "/") || strings.HasPrefix(address, "./") || strings.HasPrefix(address, "unix:"):
		path := strings.TrimPrefix(address, "unix:")
		c.base = "http://node"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
	case err == nil && u.Scheme == "http" && u.Host != "" && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.User == nil:
		c.base = "http://" + u.Host
		transport.DialContext = dialer.DialContext
	default:
		return nil, &AddressError{Address: address}
	}
	return c, nil
}

// AddressError says that an address is none of a node.
type AddressError struct{ Address string }

func (e *AddressError) Error() string { return fmt.Sprintf("%q is no address of a node", e.Address) }

// Hint tells the way out.
func (e *AddressError) Hint() string {
	return "write the path of its socket, such as " + DefaultSocket + ", or http://HOST:PORT"
}

// ConnectError says that nobody answered.
type ConnectError struct {
	Address string
	Err     error
}

func (e *ConnectError) Error() string {
	err := e.Err
	if inner, ok := errors.AsType[*url.Error](err); ok {
		err = inner.Err
	}
	return fmt.Sprintf("ask the node at %s: %v", e.Address, err)
}

func (e *ConnectError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *ConnectError) Hint() string {
	switch {
	case errors.Is(e.Err, syscall.EACCES):
		return "you may not use its socket: be root or in its group, or read over http if the node lets you"
	case strings.HasPrefix(e.Address, "http"):
		return "is it running there? --agent names another one"
	}
	return "is it running? systemctl status arch-node-agent; --agent, or ARCH_AGENT, names another one"
}

// AnswerError says that an answer is not what a node answers.
type AnswerError struct {
	Address string
	Err     error
}

func (e *AnswerError) Error() string {
	return fmt.Sprintf("read answer of the node at %s: %v", e.Address, e.Err)
}
func (e *AnswerError) Unwrap() error { return e.Err }

func (c *Client) wrong(format string, args ...any) error {
	return &AnswerError{c.address, fmt.Errorf(format, args...)}
}

// do sends a request and returns an answer of status 2xx, or the error that the answer holds.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, media string, body []byte, header http.Header) (*http.Response, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	maps.Copy(r.Header, header)
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	r.Header.Set("User-Agent", "arch")
	res, err := c.http.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &ConnectError{c.address, err}
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, c.problem(res)
}

// problem reads the error of an answer.
func (c *Client) problem(res *http.Response) error {
	if media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); media != wire.MediaProblem {
		return c.wrong("status %d, without saying why", res.StatusCode)
	}
	var p wire.Problem
	if err := c.decode(res.Body, 64<<10, &p); err != nil {
		return err
	}
	return p.Err()
}

// decode reads one JSON value strictly: no member twice, no bytes that are no UTF-8, nothing behind it. Members that this program does
// not know are from a later one.
func (c *Client) decode(from io.Reader, limit int64, v any) error {
	data, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err != nil {
		return c.wrong("%w", err)
	}
	if int64(len(data)) > limit {
		return c.wrong("it is over the limit of %d bytes", limit)
	}
	if err := decode(data, v); err != nil {
		return c.wrong("%w", err)
	}
	return nil
}

func decode(data []byte, v any) error {
	r, err := canonical.NewReader(data)
	if err != nil {
		return err
	}
	if err := r.Skip(); err != nil {
		return err
	}
	if err := r.End(); err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// get reads a resource as JSON.
func (c *Client) get(ctx context.Context, path string, query url.Values, v any) error {
	res, err := c.do(ctx, http.MethodGet, path, query, "", nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return c.decode(res.Body, maxAnswer, v)
}

// read reads a small resource as bytes.
func (c *Client) read(ctx context.Context, path string) ([]byte, error) {
	res, err := c.do(ctx, http.MethodGet, path, nil, "", nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, c.wrong("%w", err)
	}
	if len(data) > maxAnswer {
		return nil, c.wrong("it is over the limit of %d bytes", maxAnswer)
	}
	return data, nil
}

// post sends a body and reads the answer into v, unless that is nil.
func (c *Client) post(ctx context.Context, path, media string, body []byte, v any) error {
	res, err := c.do(ctx, http.MethodPost, path, nil, media, body, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if v == nil {
		return nil
	}
	return c.decode(res.Body, maxAnswer, v)
}

func jobPath(ref string, more ...string) string {
	var path strings.Builder
	path.WriteString("/v1/jobs/" + url.PathEscape(ref))
	for _, m := range more {
		path.WriteString("/" + url.PathEscape(m))
	}
	return path.String()
}

// Submit implements agent.Node. The node decides by itself who hands it in: by is not sent.
func (c *Client) Submit(ctx context.Context, envelope []byte, _ string) (agent.Job, error) {
	var job agent.Job
	err := c.post(ctx, "/v1/jobs", wire.MediaEnvelope, envelope, &job)
	return job, err
}

// Jobs implements agent.Node.
func (c *Client) Jobs(ctx context.Context, q agent.Query) ([]agent.Job, error) {
	query := url.Values{}
	for name, value := range map[string]string{"owner": q.Owner, "name": q.Name} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if len(q.States) > 0 {
		states := []string{}
		for _, s := range q.States {
			states = append(states, string(s))
		}
		query.Set("state", strings.Join(states, ","))
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(min(q.Limit, 1000)))
	}
	if !q.Before.IsZero() {
		query.Set("before", q.Before.String())
	}
	var page wire.Jobs
	err := c.get(ctx, "/v1/jobs", query, &page)
	return page.Jobs, err
}

// Job implements agent.Node.
func (c *Client) Job(ctx context.Context, ref string) (agent.Job, error) {
	if ref == "" || ref == "." || ref == ".." || len(ref) > 1024 { // no path names it
		return agent.Job{}, &agent.UnknownError{Ref: ref}
	}
	var job agent.Job
	err := c.get(ctx, jobPath(ref), nil, &job)
	return job, err
}

// Why implements agent.Node.
func (c *Client) Why(ctx context.Context, id digest.SHA256) ([]agent.Finding, error) {
	var f wire.Findings
	err := c.get(ctx, jobPath(id.String(), "why"), nil, &f)
	return f.Findings, err
}

// Envelope implements agent.Node.
func (c *Client) Envelope(ctx context.Context, id digest.SHA256) ([]byte, error) {
	return c.read(ctx, jobPath(id.String(), "envelope"))
}

// Log implements agent.Node. The bytes are the job's own: nothing in them is to be trusted.
func (c *Client) Log(ctx context.Context, id digest.SHA256, q agent.LogQuery) (io.ReadCloser, error) {
	query := url.Values{"stream": {q.Stream}, "offset": {strconv.FormatInt(q.Offset, 10)}, "attempt": {strconv.Itoa(q.Attempt)}, "follow": {strconv.FormatBool(q.Follow)}}
	return c.stream(ctx, jobPath(id.String(), "log"), query)
}

// OutputNAR implements agent.Node. Whoever reads it compares its hash.
func (c *Client) OutputNAR(ctx context.Context, id digest.SHA256, name string) (io.ReadCloser, error) {
	return c.stream(ctx, jobPath(id.String(), "outputs", name), nil)
}

func (c *Client) stream(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	res, err := c.do(ctx, http.MethodGet, path, query, "", nil, nil)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// Act implements agent.Node. The node decides by itself who wants it: act.By is not sent.
func (c *Client) Act(ctx context.Context, act agent.Act) error {
	body, err := json.Marshal(wire.Reason{Reason: act.Reason})
	if err != nil {
		return err
	}
	path := "/v1/node/" + url.PathEscape(string(act.Verb))
	if act.Verb != agent.VerbDrain && act.Verb != agent.VerbResume {
		path = jobPath(act.Job.String(), string(act.Verb))
	}
	return c.post(ctx, path, wire.MediaJSON, body, nil)
}

// Direct implements agent.Node.
func (c *Client) Direct(ctx context.Context, envelope []byte, _ string) error {
	return c.post(ctx, "/v1/directives", wire.MediaEnvelope, envelope, nil)
}

// Status implements agent.Node.
func (c *Client) Status(ctx context.Context) (agent.Status, error) {
	var s agent.Status
	err := c.get(ctx, "/v1/status", nil, &s)
	return s, err
}

// HasContent asks whether the node has content that a job may pin.
func (c *Client) HasContent(ctx context.Context, kind wire.ContentKind, d digest.SHA256) (bool, error) {
	var answer wire.Content
	err := c.get(ctx, contentPath(kind, d), nil, &answer)
	return answer.Here, err
}

func contentPath(kind wire.ContentKind, d digest.SHA256) string {
	return "/v1/content/" + string(kind) + "/" + d.String()
}

// PutContent hands content over: size bytes, or as many as there are if size is below zero. The node compares its hash.
func (c *Client) PutContent(ctx context.Context, kind wire.ContentKind, d digest.SHA256, r io.Reader, size int64) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPut, c.base+contentPath(kind, d), r)
	if err != nil {
		return err
	}
	if size >= 0 {
		q.ContentLength = size
	}
	q.Header.Set("Content-Type", wire.MediaBytes)
	q.Header.Set("User-Agent", "arch")
	res, err := c.http.Do(q)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &ConnectError{c.address, err}
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return c.problem(res)
	}
	return nil
}

// Archive returns a job's archive file. Whoever reads it imports it, which hashes everything: archive.Import.
func (c *Client) Archive(ctx context.Context, id digest.SHA256) (io.ReadCloser, error) {
	return c.stream(ctx, jobPath(id.String(), "archive"), nil)
}

// Policy returns the envelope of the policy in force.
func (c *Client) Policy(ctx context.Context) ([]byte, error) { return c.read(ctx, "/v1/policy") }

// Local reports whether the node is asked through its socket, where the kernel says who asks.
func (c *Client) Local() bool { return c.base == "http://node" }

// Address returns the address that New was given.
func (c *Client) Address() string { return c.address }
