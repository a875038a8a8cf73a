package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"arch.network/attest/digest"
)

// defaultMax is how many bytes a download may have unless Fetcher.MaxDownload says otherwise.
const defaultMax = 8 << 30

// download gets a file into the store. name tells unfinished downloads apart. check judges the complete file before
// the store takes it; if it refuses what was put together from several answers, the download is started over once.
func (f *Fetcher) download(ctx context.Context, address, name string, check func(*os.File) error) (digest.SHA256, error) {
	if path, ok := filePath(address); ok {
		return f.addFile(ctx, path, check)
	}
	if f.Offline {
		return digest.SHA256{}, &MissingError{Inputs: []string{redacted(address)}, Cure: offlineCure}
	}
	part, err := f.openPartial(ctx, digest.Of([]byte(address+"\n"+name)).Hex())
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("download %s: %w", redacted(address), err)
	}
	defer closePartial(part)
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
			return digest.SHA256{}, err
		}
		f.log(Event{Kind: EventRetry, What: redacted(address), Detail: "what was resumed does not fit: " + err.Error()})
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

func (f *Fetcher) maxDownload() int64 {
	if f.MaxDownload > 0 {
		return f.MaxDownload
	}
	return defaultMax
}

// receive completes part from address, resuming after interruptions. It reports whether it resumed anything.
func (f *Fetcher) receive(ctx context.Context, address string, part *os.File) (resumed bool, err error) {
	f.log(Event{Kind: EventStart, What: redacted(address)})
	err = f.retry(ctx, redacted(address), func() (bool, error) {
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
	f.log(Event{Kind: EventDone, What: redacted(address), Bytes: size, Total: size})
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
			return fmt.Errorf("get %s: the server cannot resume at byte %d", redacted(address), offset)
		}
		offset, total = 0, max(resp.ContentLength, 0)
	}
	limit := f.maxDownload()
	if total > limit {
		return finalError{tooLarge(redacted(address), limit)}
	}
	if _, err := part.Seek(offset, io.SeekStart); err != nil {
		return finalError{err}
	}
	progress := &progress{f: f, event: Event{Kind: EventProgress, What: redacted(address), Bytes: offset, Total: total}}
	n, err := io.Copy(part, io.TeeReader(io.LimitReader(resp.Body, limit-offset+1), progress))
	if err == nil && offset+n > limit {
		// It must not be resumed either.
		err = finalError{errors.Join(tooLarge(redacted(address), limit), part.Truncate(0))}
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
