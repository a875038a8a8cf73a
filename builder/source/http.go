package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The bounds of fetching over HTTP.
const (
	maxRedirects  = 10
	maxTries      = 5                      // without a byte of progress
	maxResumes    = 50                     // of one download in all
	firstBackoff  = 500 * time.Millisecond // doubled with each try
	maxRetryAfter = 30 * time.Second       // a server may ask for more; then its answer is final
	headerTimeout = time.Minute            // until a server's first answer
	stallTimeout  = time.Minute            // without a byte
)

// statusError is a refusal by an HTTP server.
type statusError struct {
	url   string
	code  int
	after time.Duration // Retry-After
}

func (e *statusError) Error() string {
	return fmt.Sprintf("get %s: the server says %d %s", e.url, e.code, http.StatusText(e.code))
}

func (e *statusError) temporary() bool {
	return e.code >= 500 || e.code == http.StatusTooManyRequests || e.code == http.StatusRequestTimeout
}

// Hint tells the way out.
func (e *statusError) Hint() string {
	switch e.code {
	case http.StatusNotFound, http.StatusGone:
		return "check the address; if it is gone, add a mirror or an archive that has it: the pin stays the same"
	case http.StatusUnauthorized, http.StatusForbidden:
		return "it needs credentials, which are never sent: put it into a mirror or an archive directory"
	}
	return "try again later, or add a mirror or an archive that has it"
}

// finalError marks an error that another try cannot cure.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func temporary(err error) bool {
	if _, ok := errors.AsType[finalError](err); ok {
		return false
	}
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.temporary() && s.after <= maxRetryAfter
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return false
	}
	if _, ok := errors.AsType[*MissingError](err); ok {
		return false
	}
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// retry calls try until it succeeds, fails for good, or failed maxTries times in a row without progress.
func (f *Fetcher) retry(ctx context.Context, what string, try func() (progress bool, err error)) error {
	for fails, total := 0, 0; ; total++ {
		progress, err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fails++; progress {
			fails = 1
		}
		if !temporary(err) || fails >= maxTries || total >= maxResumes {
			return err
		}
		wait := firstBackoff << (fails - 1)
		if s, ok := errors.AsType[*statusError](err); ok {
			wait = max(wait, s.after)
		}
		f.log(Event{Kind: EventRetry, What: what, Detail: err.Error()})
		if err := f.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

func (f *Fetcher) sleep(ctx context.Context, d time.Duration) error {
	if f.Sleep != nil {
		return f.Sleep(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// client returns the HTTP client, with bounded redirects that never leave https for http.
func (f *Fetcher) client() *http.Client {
	c := http.Client{Transport: f.transport()}
	if f.HTTP != nil {
		c.Jar, c.Timeout = f.HTTP.Jar, f.HTTP.Timeout
	}
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return finalError{&sourceError{fmt.Sprintf("more than %d redirects", maxRedirects), "the server sends in circles: check the address, or use a mirror"}}
		}
		if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return finalError{fmt.Errorf("redirect from https to %q", req.URL.Scheme)}
		}
		return sendOn(req, via[0])
	}
	return &c
}

func (f *Fetcher) transport() http.RoundTripper {
	if f.HTTP != nil && f.HTTP.Transport != nil {
		return f.HTTP.Transport
	}
	f.once.Do(func() { f.own = newTransport() })
	return f.own
}

// sentOn is the context key of a request that a server sent us to; the value is the address that it named, HOST:PORT.
type sentOn struct{}

// sendOn refuses to be sent from a server elsewhere to this machine or, by a link-local address, to one beside it, such
// as a cloud's metadata service: what listens only there trusts whoever reaches it. Whether a name stands for such an
// address is seen when it is dialled.
func sendOn(req, first *http.Request) error {
	if nearby(first.URL.Hostname()) {
		return nil
	}
	if nearby(req.URL.Hostname()) {
		return finalError{fmt.Errorf("redirect from %q to %q, which is this machine or one beside it", first.URL.Host, req.URL.Host)}
	}
	port := req.URL.Port()
	if port == "" {
		port = req.URL.Scheme // as the package net knows it
	}
	address := net.JoinHostPort(req.URL.Hostname(), port)
	*req = *req.WithContext(context.WithValue(req.Context(), sentOn{}, address))
	return nil
}

// dial connects, but not to an address nearby where sendOn asked for that. A proxy may be anywhere.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 30 * time.Second}
	if to, ok := ctx.Value(sentOn{}).(string); ok && sameAddress(to, address) {
		d.Control = func(_, found string, _ syscall.RawConn) error {
			if nearby(hostname(found)) {
				return finalError{fmt.Errorf("redirect to %q, whose address %s is this machine or one beside it", address, found)}
			}
			return nil
		}
	}
	return d.DialContext(ctx, network, address)
}

// sameAddress compares HOST:PORT, where the port may be a service's name.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || hostA != hostB {
		return false
	}
	numberA, errA := net.LookupPort("tcp", portA)
	numberB, errB := net.LookupPort("tcp", portB)
	return errA == nil && errB == nil && numberA == numberB
}

// nearby reports whether a host is this machine or one on the same link, as far as its spelling tells.
func nearby(host string) bool {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	host, _, _ = strings.Cut(host, "%") // the zone of an IPv6 address
	ip := net.ParseIP(host)
	return ip != nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified())
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dial,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    30 * time.Second,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: 1 << 20,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        30 * time.Second,
		DisableCompression:     true, // sizes and ranges are those of the bytes that are pinned
	}
}

// open starts a GET at offset. The body ends with an error when nothing comes for stallTimeout.
func (f *Fetcher) open(ctx context.Context, address string, offset int64) (*http.Response, error) {
	if f.Offline {
		return nil, finalError{&MissingError{Inputs: []string{redacted(address)}, Cure: offlineCure}}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stall := time.AfterFunc(stallTimeout+headerTimeout, func() { cancel(fmt.Errorf("get %s: nothing came for %v", redacted(address), stallTimeout)) })
	stop := func() { stall.Stop(); cancel(nil) }
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		stop()
		return nil, finalError{err}
	}
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := f.client().Do(req)
	if err != nil {
		stop()
		return nil, err
	}
	resp.Body = &body{resp.Body, ctx, stall, stop}
	ranged := offset > 0 && (resp.StatusCode == http.StatusPartialContent || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable)
	if resp.StatusCode != http.StatusOK && !ranged {
		resp.Body.Close()
		return nil, &statusError{redacted(address), resp.StatusCode, retryAfter(resp)}
	}
	return resp, nil
}

// body resets the stall timer with every byte, and tells why it was ended.
type body struct {
	io.ReadCloser
	ctx   context.Context
	stall *time.Timer
	stop  func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.stall.Reset(stallTimeout)
	}
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		if cause := context.Cause(b.ctx); !errors.Is(cause, context.Canceled) {
			err = cause
		}
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.stop()
	return err
}

func retryAfter(resp *http.Response) time.Duration {
	s, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(s) * time.Second
}

// get returns a small document of at most max bytes.
func (f *Fetcher) get(ctx context.Context, address string, max int64) ([]byte, error) {
	if path, ok := filePath(address); ok {
		return readSmall(path, max)
	}
	var data []byte
	err := f.retry(ctx, redacted(address), func() (bool, error) {
		resp, err := f.open(ctx, address, 0)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		data, err = io.ReadAll(io.LimitReader(resp.Body, max+1))
		if err == nil && int64(len(data)) > max {
			err = finalError{tooLarge(redacted(address), max)}
		}
		return false, err
	})
	return data, err
}

func readSmall(path string, max int64) ([]byte, error) {
	file, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, max+1))
	if err == nil && int64(len(data)) > max {
		err = tooLarge(path, max)
	}
	return data, err
}

// redacted is an address without the password that a GOPROXY may hold.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that is no URL"
	}
	return u.Redacted()
}

func tooLarge(what string, max int64) error {
	return fmt.Errorf("get %s: larger than the limit of %d bytes", what, max)
}

// filePath returns the path of a file: URL.
func filePath(address string) (string, bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "file" {
		return "", false
	}
	return filepath.FromSlash(u.Path), true
}

// openRegular opens a file without waiting for the other end of a FIFO, and refuses everything but regular files.
func openRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
