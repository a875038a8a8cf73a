package tilehttp_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/tilehttp"
)

// answering is a network whose only server has the same answer for every full tile and bundle, and another for everything else.
type answering struct {
	status     int
	rest, full []byte
}

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: a.status, Header: http.Header{}, Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	body := a.rest
	if strings.HasPrefix(r.URL.Path, "/tile/") && !strings.Contains(r.URL.Path, ".p/") {
		resp.StatusCode, body = http.StatusOK, a.full
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// FuzzClient: whatever a server answers, what is read is within its bound, and what was cut out of a full tile or bundle is as wide as it
// was asked for.
func FuzzClient(f *testing.F) {
	tile := bytes.Repeat([]byte("x"), ledger.MaxTile)
	var bundle []byte
	for range 256 {
		bundle, _ = ledger.AppendEntry(bundle, []byte("entry"))
	}
	f.Add(404, "tile/0/001.p/3", []byte(nil), tile)
	f.Add(404, "tile/entries/x001/234.p/255", []byte(nil), bundle)
	f.Add(410, "tile/entries/000.p/1", []byte(nil), bundle[:len(bundle)-1])
	f.Add(200, "tile/0/001.p/3", []byte("x"), tile)
	f.Add(302, "tile/0/001.p/3", []byte("x"), tile)
	f.Add(200, "tile/7/000", []byte(nil), []byte("short"))
	f.Fuzz(func(t *testing.T, status int, path string, rest, full []byte) {
		if status/100 == 3 {
			return // net/http follows them, or not, as the caller of NewClient says
		}
		c, err := tilehttp.NewClient("http://log.example", &http.Client{Transport: answering{status, rest, full}})
		if err != nil {
			t.Fatal(err)
		}
		if data, err := c.ReadCheckpoint(t.Context()); err == nil && (status != http.StatusOK || !bytes.Equal(data, rest) || len(data) > ledger.MaxNote) {
			t.Errorf("status %d: a checkpoint of %d bytes", status, len(data))
		}
		asked, entries, err := ledger.ParsePath(path)
		if err != nil {
			return
		}
		cut := status == http.StatusNotFound || status == http.StatusGone
		if asked != nil {
			data, err := c.ReadTile(t.Context(), path)
			if err == nil && (len(data) > ledger.MaxTile || cut && strings.Contains(path, ".p/") && len(data) != asked.Width*32) {
				t.Errorf("%s has %d bytes", path, len(data))
			}
			return
		}
		data, err := c.ReadBundle(t.Context(), path)
		if err != nil {
			return
		}
		if len(data) > ledger.MaxBundle {
			t.Errorf("%s has %d bytes", path, len(data))
		}
		if cut && strings.Contains(path, ".p/") {
			if list, err := ledger.ParseEntries(*entries, data); err != nil || len(list) != entries.Width {
				t.Errorf("%s has %d entries, %v", path, len(list), err)
			}
		}
	})
}
