package cacheclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The bounds of HTTP.
const (
	maxRedirects  = 5
	maxResumes    = 10               // of one download
	headerTimeout = 30 * time.Second // until a server's first answer
	stallTimeout  = time.Minute      // without a byte
)

// StatusError is a refusal by a server.
type StatusError struct {
	URL  string
	Code int
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("get %s: the server says %d %s", e.URL, e.Code, http.StatusText(e.Code))
}

// remote is a cache at a URL.
type remote struct {
	base string
	http *http.Client
}

func newRemote(base string) *remote {
	return &remote{base, &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: headerTimeout}).DialContext,
			TLSHandshakeTimeout:   headerTimeout,
			ResponseHeaderTimeout: headerTimeout,
			IdleConnTimeout:       stallTimeout,
			MaxIdleConnsPerHost:   8,
			ForceAttemptHTTP2:     true,
			// What is hashed are the bytes of the file: nothing may unpack them on the way.
			DisableCompression: true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			switch {
			case len(via) > maxRedirects:
				return fmt.Errorf("it redirects more than %d times", maxRedirects)
			case via[0].URL.Scheme == "https" && r.URL.Scheme != "https", r.URL.Scheme != "https" && r.URL.Scheme != "http":
				return fmt.Errorf("it redirects to %q, which is not encrypted", r.URL.Redacted())
			}
			return nil
		},
	}}
}

// open begins a download, which its reader resumes when it breaks off.
func (c *remote) open(ctx context.Context, name string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	d := &download{cache: c, ctx: ctx, cancel: cancel, url: c.base + "/" + name}
	if err := d.request(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// download is the body of an answer.
type download struct {
	cache   *remote
	ctx     context.Context //nolint:containedctx // it is that of the call that opened it
	cancel  context.CancelCauseFunc
	url     string
	body    io.ReadCloser
	stalled *time.Timer
	etag    string
	offset  int64
	length  int64 // of the whole; -1: not known
	resumes int
}

var errStalled = fmt.Errorf("no byte for %v", stallTimeout)

// request asks for what is left from the offset on.
func (d *download) request() error {
	req, err := http.NewRequestWithContext(d.ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	if d.offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.offset))
		if d.etag != "" {
			req.Header.Set("If-Range", d.etag)
		}
	}
	resp, err := d.cache.http.Do(req)
	if err != nil {
		return err
	}
	want := http.StatusOK
	if d.offset > 0 {
		want = http.StatusPartialContent
	}
	switch {
	case resp.StatusCode == want && (d.offset == 0 || rangeStart(resp.Header.Get("Content-Range")) == d.offset):
	case d.offset == 0 && (resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone || resp.StatusCode == http.StatusForbidden):
		resp.Body.Close() // 403 is what S3 says of what is not there to those who may not list
		return fmt.Errorf("get %s: %w", d.url, fs.ErrNotExist)
	default:
		resp.Body.Close()
		return &StatusError{d.url, resp.StatusCode}
	}
	if d.offset == 0 {
		d.length = resp.ContentLength
		if etag := resp.Header.Get("ETag"); !strings.HasPrefix(etag, "W/") {
			d.etag = etag
		}
	}
	d.body = resp.Body
	if d.stalled == nil {
		d.stalled = time.AfterFunc(stallTimeout, func() { d.cancel(errStalled) })
	}
	return nil
}

// rangeStart returns the first byte of "bytes A-B/C"; -1 if it is something else.
func rangeStart(text string) int64 {
	text, ok := strings.CutPrefix(text, "bytes ")
	first, _, dash := strings.Cut(text, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	if !ok || !dash || err != nil {
		return -1
	}
	return n
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	for {
		d.stalled.Reset(stallTimeout)
		n, err := d.body.Read(p)
		d.offset += int64(n)
		if n > 0 || err == nil {
			return n, nil
		}
		if errors.Is(err, io.EOF) && (d.length < 0 || d.offset == d.length) {
			return 0, io.EOF
		}
		if cause := context.Cause(d.ctx); cause != nil {
			return 0, fmt.Errorf("get %s: %w", d.url, cause)
		}
		d.body.Close()
		if d.resumes++; d.resumes > maxResumes || d.offset == 0 {
			return 0, fmt.Errorf("get %s: it broke off after %d bytes: %w", d.url, d.offset, err)
		}
		if again := d.request(); again != nil {
			return 0, fmt.Errorf("get %s: it broke off after %d bytes (%w), and cannot be resumed: %w", d.url, d.offset, err, again)
		}
	}
}

// Close ends the download.
func (d *download) Close() error {
	if d.stalled != nil {
		d.stalled.Stop()
	}
	d.cancel(context.Canceled)
	if d.body == nil {
		return nil
	}
	return d.body.Close()
}
