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
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
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
	partialAge    = 7 * 24 * time.Hour     // unfinished downloads are then removed
	defaultMax    = 8 << 30                // bytes of a download
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
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
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
		return nil
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

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
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
		return nil, finalError{&MissingError{Inputs: []string{address}, Cure: offlineCure}}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stall := time.AfterFunc(stallTimeout+headerTimeout, func() { cancel(fmt.Errorf("get %s: nothing came for %v", address, stallTimeout)) })
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
		return nil, &statusError{address, resp.StatusCode, retryAfter(resp)}
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
	err := f.retry(ctx, address, func() (bool, error) {
		resp, err := f.open(ctx, address, 0)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		data, err = io.ReadAll(io.LimitReader(resp.Body, max+1))
		if err == nil && int64(len(data)) > max {
			err = finalError{tooLarge(address, max)}
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

// download gets a file into the store. name tells unfinished downloads apart. check judges the complete file before
// the store takes it; if it refuses what was put together from several answers, the download is started over once.
func (f *Fetcher) download(ctx context.Context, address, name string, check func(*os.File) error) (digest.SHA256, error) {
	if path, ok := filePath(address); ok {
		return f.addFile(ctx, path, check)
	}
	if f.Offline {
		return digest.SHA256{}, &MissingError{Inputs: []string{address}, Cure: offlineCure}
	}
	part, err := f.openPartial(ctx, digest.Of([]byte(address+"\n"+name)).Hex())
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("download %s: %w", address, err)
	}
	defer part.Close()
	for again := false; ; again = true {
		resumed, err := f.receive(ctx, address, part)
		if err != nil {
			return digest.SHA256{}, err
		}
		err = check(part)
		if err == nil {
			return f.keep(ctx, part)
		}
		if err := part.Truncate(0); err != nil {
			return digest.SHA256{}, err
		}
		if !resumed || again {
			os.Remove(part.Name())
			return digest.SHA256{}, err
		}
		f.log(Event{Kind: EventRetry, What: address, Detail: "what was resumed does not fit: " + err.Error()})
	}
}

// keep moves a checked download into the store.
func (f *Fetcher) keep(ctx context.Context, part *os.File) (digest.SHA256, error) {
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return digest.SHA256{}, err
	}
	d, _, err := f.Store.AddBlob(ctx, part, digest.SHA256{})
	if err != nil {
		return digest.SHA256{}, err
	}
	return d, os.Remove(part.Name())
}

// addFile copies a local file into the store. What is checked is the copy, so that it cannot change in between.
func (f *Fetcher) addFile(ctx context.Context, path string, check func(*os.File) error) (digest.SHA256, error) {
	file, err := openRegular(path)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer file.Close()
	temp, err := os.CreateTemp("", "arch-file-")
	if err != nil {
		return digest.SHA256{}, err
	}
	defer temp.Close()
	defer os.Remove(temp.Name())
	limit := f.maxDownload()
	n, err := io.Copy(temp, &untilDone{ctx, io.LimitReader(file, limit+1)})
	if err != nil {
		return digest.SHA256{}, err
	}
	if n > limit {
		return digest.SHA256{}, tooLarge(path, limit)
	}
	if err := check(temp); err != nil {
		return digest.SHA256{}, err
	}
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		return digest.SHA256{}, err
	}
	d, _, err := f.Store.AddBlob(ctx, temp, digest.SHA256{})
	return d, err
}

// openPartial opens and locks an unfinished download, waiting while another process works on it.
func (f *Fetcher) openPartial(ctx context.Context, name string) (*os.File, error) {
	dir := f.Partial
	if dir == "" {
		dir = f.Store.Dir() + ".partial"
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	sweepPartial(dir)
	path := filepath.Join(dir, name)
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(file, path) {
			return file, nil
		}
		file.Close()
		if err != nil && err != unix.EWOULDBLOCK {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if err != nil {
			if err := f.sleep(ctx, 200*time.Millisecond); err != nil {
				return nil, err
			}
		}
	}
}

// sameFile reports whether path still names the open file: its last owner may have removed it.
func sameFile(file *os.File, path string) bool {
	a, err := file.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// sweepPartial removes downloads that nobody came back for. What it cannot remove harms nobody.
func sweepPartial(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > partialAge {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

func (f *Fetcher) maxDownload() int64 {
	if f.MaxDownload > 0 {
		return f.MaxDownload
	}
	return defaultMax
}

// receive completes part from address, resuming after interruptions. It reports whether it resumed anything.
func (f *Fetcher) receive(ctx context.Context, address string, part *os.File) (resumed bool, err error) {
	f.log(Event{Kind: EventStart, What: address})
	err = f.retry(ctx, address, func() (bool, error) {
		before, err := part.Seek(0, io.SeekEnd)
		if err != nil {
			return false, finalError{err}
		}
		resumed = resumed || before > 0
		err = f.receiveSome(ctx, address, part, before)
		after, _ := part.Seek(0, io.SeekEnd)
		return after > before, err
	})
	if err != nil {
		return resumed, err
	}
	size, err := part.Seek(0, io.SeekEnd)
	f.log(Event{Kind: EventDone, What: address, Bytes: size, Total: size})
	return resumed, err
}

// receiveSome appends to part what one answer gives, from offset on.
func (f *Fetcher) receiveSome(ctx context.Context, address string, part *os.File, offset int64) error {
	resp, err := f.open(ctx, address, offset)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	start, total := contentRange(resp)
	switch {
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && total == offset:
		return nil // all of it had arrived before
	case resp.StatusCode != http.StatusPartialContent || start != offset:
		// The server begins at the beginning, or nowhere we asked for: so do we.
		if err := part.Truncate(0); err != nil {
			return finalError{err}
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("get %s: the server cannot resume at byte %d", address, offset)
		}
		offset, total = 0, max(resp.ContentLength, 0)
	}
	limit := f.maxDownload()
	if total > limit {
		return finalError{tooLarge(address, limit)}
	}
	if _, err := part.Seek(offset, io.SeekStart); err != nil {
		return finalError{err}
	}
	progress := &progress{f: f, event: Event{Kind: EventProgress, What: address, Bytes: offset, Total: total}}
	n, err := io.Copy(part, io.TeeReader(io.LimitReader(resp.Body, limit-offset+1), progress))
	if err == nil && offset+n > limit {
		// It must not be resumed either.
		err = finalError{errors.Join(tooLarge(address, limit), part.Truncate(0))}
	}
	if err == nil && total > 0 && offset+n != total {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// contentRange returns where a partial answer begins and how long the whole is; zero where it is not said.
func contentRange(resp *http.Response) (start, total int64) {
	text, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	span, all, ok2 := strings.Cut(text, "/")
	if !ok || !ok2 {
		return 0, 0
	}
	total, err := strconv.ParseInt(all, 10, 64)
	if err != nil || total < 0 {
		total = 0
	}
	from, _, _ := strings.Cut(span, "-")
	if start, err = strconv.ParseInt(from, 10, 64); err != nil {
		start = 0
	}
	return start, total
}

// progress tells of every mebibyte.
type progress struct {
	f     *Fetcher
	event Event
	told  int64
}

func (p *progress) Write(b []byte) (int, error) {
	p.event.Bytes += int64(len(b))
	if p.event.Bytes-p.told >= 1<<20 {
		p.told = p.event.Bytes
		p.f.log(p.event)
	}
	return len(b), nil
}

// untilDone is a reader that ends with its context.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
