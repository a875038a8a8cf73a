package node_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// TestFetching shows that while something that a job pins is on its way, the node tells how much of it is here.
func TestFetching(t *testing.T) {
	w := newWorld(t)
	w.online = true
	text := bytes.Repeat([]byte("a\n"), 1<<20)
	half, more := len(text)/2+1, make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", "2097152")
		if r.Method == http.MethodHead {
			return
		}
		rw.Write(text[:half])
		rw.(http.Flusher).Flush()
		<-more
		rw.Write(text[half:])
	}))
	defer server.Close()
	where := server.URL + "/text"
	n := w.start(t)
	submitted, err := n.Submit(t.Context(), w.sign(t, w.job(t, "nonce-0000000000000001", func(j *manifest.Job) {
		j.Spec.Resources.Gas = 10_000_000_000
		j.Spec.Inputs["text"] = manifest.Ref{Scheme: manifest.RefURL, Location: where, Digest: digest.Of(text)}
	}), "alice", "bob"), "uid:1000")
	if err != nil {
		t.Fatal(err)
	}
	for {
		j, err := n.Job(t.Context(), submitted.ID.String())
		if err != nil || j.State.Ended() {
			t.Fatalf("it is %s, %v, %+v", j.State, err, j.Reasons)
		}
		if f := j.Fetching; f != nil && f.Bytes > 0 {
			if f.What != where || f.Bytes < 1<<20 || f.Bytes > int64(half) || f.Total != int64(len(text)) {
				t.Errorf("fetching %+v", f)
			}
			break
		}
		time.Sleep(5 * time.Millisecond) // no event tells of it
	}
	close(more)
	if j := await(t, n, submitted); j.State != agent.Archived || j.Fetching != nil {
		t.Errorf("it is %s, %+v: %+v", j.State, j.Fetching, j.Reasons)
	}
}
