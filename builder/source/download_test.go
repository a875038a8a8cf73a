package source

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
)

// payload is long enough to be cut.
var payload = bytes.Repeat([]byte("0123456789abcdef"), 64<<10)

// naughty is a server that answers the n-th request as steps[n] says, and as the last one from then on. It notes the
// Range of each request.
type naughty struct {
	mu     sync.Mutex
	steps  []http.HandlerFunc
	ranges []string
}

func (n *naughty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	step := n.steps[min(len(n.ranges), len(n.steps)-1)]
	n.ranges = append(n.ranges, r.Header.Get("Range"))
	n.mu.Unlock()
	step(w, r)
}

func whole(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

// cut promises everything from where it is asked on, and hangs up after n bytes.
func cut(b []byte, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
			w.Header().Set("Content-Length", strconv.Itoa(len(b)-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		}
		w.Write(b[from : from+n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func ignoringRange(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(b) }
}

func TestDownload(t *testing.T) {
	evil := bytes.ToUpper(payload)
	tests := []struct {
		name   string
		steps  []http.HandlerFunc
		ranges []string
		waits  []time.Duration
		err    string
	}{
		{name: "at once", steps: []http.HandlerFunc{whole(payload)}, ranges: []string{""}},
		{
			name: "interrupted twice, resumed", steps: []http.HandlerFunc{cut(payload, 1000), cut(payload, 2000), whole(payload)},
			ranges: []string{"", "bytes=1000-", "bytes=3000-"}, waits: []time.Duration{500 * time.Millisecond, 500 * time.Millisecond},
		},
		{name: "server cannot resume", steps: []http.HandlerFunc{cut(payload, 1000), ignoringRange(payload)}, ranges: []string{"", "bytes=1000-"}, waits: []time.Duration{500 * time.Millisecond}},
		{name: "server resumes elsewhere", steps: []http.HandlerFunc{cut(payload, 1000), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 7-9/1048576")
			w.WriteHeader(http.StatusPartialContent)
		}, whole(payload)}, ranges: []string{"", "bytes=1000-", ""}, waits: []time.Duration{500 * time.Millisecond, time.Second}},
		{name: "content changed meanwhile", steps: []http.HandlerFunc{cut(evil, 1000), whole(payload)}, ranges: []string{"", "bytes=1000-", ""}, waits: []time.Duration{500 * time.Millisecond}},
		{
			name: "busy, then fine", steps: []http.HandlerFunc{status(503), status(502), status(429), whole(payload)}, ranges: []string{"", "", "", ""},
			waits: []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second},
		},
		{name: "retry after", steps: []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(503)
		}, whole(payload)}, ranges: []string{"", ""}, waits: []time.Duration{7 * time.Second}},
		{name: "retry much later", steps: []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(503)
		}}, ranges: []string{""}, err: "the server says 503 Service Unavailable"},
		{
			name: "down for good", steps: []http.HandlerFunc{status(500)}, ranges: []string{"", "", "", "", ""},
			waits: []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second}, err: "the server says 500 Internal Server Error",
		},
		{name: "not there", steps: []http.HandlerFunc{status(404)}, ranges: []string{""}, err: "the server says 404 Not Found"},
		{name: "forbidden", steps: []http.HandlerFunc{status(403)}, ranges: []string{""}, err: "the server says 403 Forbidden"},
		{
			name: "always cut at the same place", steps: []http.HandlerFunc{cut(payload, 0)}, ranges: []string{"", "", "", "", ""},
			waits: []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second}, err: "EOF",
		},
		{name: "corrupt", steps: []http.HandlerFunc{whole(evil)}, ranges: []string{""}, err: "the pin says"},
		{name: "promises too much", steps: []http.HandlerFunc{whole(append(payload[:len(payload):len(payload)], payload...))}, ranges: []string{""}, err: "larger than the limit of 1048576 bytes"},
		{name: "sends too much", steps: []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				w.Write(payload)
				w.(http.Flusher).Flush()
			}
		}}, ranges: []string{""}, err: "larger than the limit of 1048576 bytes"},
		{
			name: "redirects in circles", steps: []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }},
			ranges: []string{"", "", "", "", "", "", "", "", "", ""}, err: "more than 10 redirects",
		},
		{name: "redirect to a file", steps: []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(302)
		}, status(404)}, ranges: []string{"", ""}, waits: []time.Duration{500 * time.Millisecond}, err: "404"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := &naughty{steps: tt.steps}
			s := httptest.NewServer(n)
			defer s.Close()
			f := newFetcher(t)
			f.MaxDownload = int64(len(payload))
			var waits []time.Duration
			f.Sleep = func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
			_, err := f.Fetch(t.Context(), input(t, s.URL+"/file#"+digest.Of(payload).SRI()), "", nil)
			if tt.err == "" && err != nil || !strings.Contains(errText(err), tt.err) {
				t.Errorf("error %q does not say %q", errText(err), tt.err)
			}
			if diff := cmp.Diff(tt.ranges, n.ranges); diff != "" {
				t.Errorf("ranges (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.waits, waits); diff != "" {
				t.Errorf("waits (-want +got):\n%s", diff)
			}
			left, _ := filepath.Glob(filepath.Join(f.Store.Dir()+".partial", "*"))
			if len(left) > 0 {
				t.Errorf("unfinished downloads remain: %q", left)
			}
		})
	}
}

func TestDownloadIsResumedByAnotherProcess(t *testing.T) {
	n := &naughty{steps: []http.HandlerFunc{cut(payload, 4096), status(404), whole(payload)}}
	s := httptest.NewServer(n)
	defer s.Close()
	f := newFetcher(t)
	in := input(t, s.URL+"/file#"+digest.Of(payload).SRI())
	if _, err := f.Fetch(t.Context(), in, "", nil); err == nil {
		t.Fatal("the interrupted download succeeded")
	}
	again := &Fetcher{Store: f.Store}
	if _, err := again.Fetch(t.Context(), in, "", nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"", "bytes=4096-", "bytes=4096-"}, n.ranges); diff != "" {
		t.Errorf("ranges (-want +got):\n%s", diff)
	}
}

// A partial file that somebody spoiled must not make a good download fail.
func TestSpoiledPartialIsStartedOver(t *testing.T) {
	n := &naughty{steps: []http.HandlerFunc{cut(payload, 4096), status(404), whole(payload)}}
	s := httptest.NewServer(n)
	defer s.Close()
	f := newFetcher(t)
	in := input(t, s.URL+"/file#"+digest.Of(payload).SRI())
	if _, err := f.Fetch(t.Context(), in, "", nil); err == nil {
		t.Fatal("the interrupted download succeeded")
	}
	parts, err := filepath.Glob(filepath.Join(f.Store.Dir()+".partial", "*"))
	if err != nil || len(parts) != 1 {
		t.Fatal(parts, err)
	}
	if err := os.WriteFile(parts[0], bytes.Repeat([]byte("X"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Fetch(t.Context(), in, "", nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"", "bytes=4096-", "bytes=4096-", ""}, n.ranges); diff != "" {
		t.Errorf("ranges (-want +got):\n%s", diff)
	}
}

func TestNoDowngradeByRedirect(t *testing.T) {
	plain := serve(t, map[string][]byte{"/file": payload})
	s := httptest.NewTLSServer(http.RedirectHandler(plain.URL+"/file", http.StatusFound))
	defer s.Close()
	f := newFetcher(t)
	f.HTTP = s.Client()
	_, err := f.Fetch(t.Context(), input(t, s.URL+"/file#"+digest.Of(payload).SRI()), "", nil)
	if !strings.Contains(errText(err), `redirect from https to "http"`) {
		t.Errorf("error is %v", err)
	}
}

func TestProgress(t *testing.T) {
	s := serve(t, map[string][]byte{"/file": payload})
	f := newFetcher(t)
	var got []Event
	f.Log = func(e Event) {
		e.What = strings.TrimPrefix(e.What, s.URL)
		got = append(got, e)
	}
	if _, err := f.Fetch(t.Context(), input(t, s.URL+"/file#"+digest.Of(payload).SRI()), "", nil); err != nil {
		t.Fatal(err)
	}
	size := int64(len(payload))
	want := []Event{{Kind: EventStart, What: "/file"}, {Kind: EventProgress, What: "/file", Bytes: size, Total: size}, {Kind: EventDone, What: "/file", Bytes: size, Total: size}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestFilesThatAreNone(t *testing.T) {
	f := newFetcher(t)
	_, err := f.Fetch(t.Context(), input(t, "file:///dev/zero#"+digest.Of(nil).SRI()), "", nil)
	if !strings.Contains(errText(err), "/dev/zero is no regular file") {
		t.Errorf("error is %v", err)
	}
}

func TestTwoProcessesDownloadTheSame(t *testing.T) {
	n := &naughty{steps: []http.HandlerFunc{whole(payload)}}
	s := httptest.NewServer(n)
	defer s.Close()
	f := newFetcher(t)
	in := input(t, s.URL+"/file#"+digest.Of(payload).SRI())
	errs := make(chan error)
	for range 4 {
		go func() {
			other := &Fetcher{Store: f.Store}
			_, err := other.Fetch(t.Context(), in, "", nil)
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	s := httptest.NewServer(status(403))
	defer s.Close()
	f := newFetcher(t)
	f.GoProxy = strings.Replace(s.URL, "http://", "http://user:secret@", 1)
	var shown []string
	f.Log = func(e Event) { shown = append(shown, e.What+e.Detail) }
	_, err := f.Fetch(t.Context(), input(t, "go:example.com/m@v1.0.0#"+h1(digest.Of(nil))), "", nil)
	if all := errText(err) + strings.Join(shown, ""); !strings.Contains(all, "403") || strings.Contains(all, "secret") {
		t.Errorf("shown: %s", all)
	}
}
