package executor

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/agent"
	"arch.network/attest/digest"
)

// FuzzRecord: whatever is read as the record of a job is the same when it was written and read again, and a copy of it can be changed
// without changing it.
func FuzzRecord(f *testing.F) {
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	full := &record{
		Number: 7, Job: agent.Job{Name: "wordcount", Attempts: []agent.Attempt{{Number: 1}}}, Findings: []agent.Finding{{}},
		Weight: 2, Until: at, Sources: map[string][]digest.SHA256{"x": {digest.Of(nil)}}, Content: []digest.SHA256{digest.Of(nil)},
		Executions: []executed{{Attempt: 1, Gas: 1 << 60, Differs: []differs{{Output: "o"}}}}, Cancel: &cancellation{By: "a"}, Kept: at, Gone: []string{"logs"},
	}
	data, err := full.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"number":1}`))
	f.Add([]byte(`{"number":1,"findings":null,"executions":[{}]}`))
	f.Add([]byte(`{"until":"2026-05-01T00:00:00+25:00"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err != nil {
			return
		}
		form, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeRecord(form)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := again.encode(); err != nil || !bytes.Equal(form, second) {
			t.Errorf("%s became %s, %v", form, second, err)
		}
		c := r.copy()
		for range findings + 1 {
			c.find(agent.Finding{})
		}
		if a := c.attempt(); a != nil {
			a.Reason = "changed"
		}
		if now, err := r.encode(); err != nil || !bytes.Equal(now, form) {
			t.Errorf("what is done to a copy is seen: %s", cmp.Diff(string(form), string(now)))
		}
		r.unfinished()
	})
}

// FuzzExpiry: the keys by which the database knows what ends when are read back as they were written, and what is no key is none.
func FuzzExpiry(f *testing.F) {
	f.Add(int64(1_900_000_000), uint64(7), expireArchive, []byte("short"))
	f.Add(int64(-1), uint64(1<<63), "", []byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, at int64, number uint64, kind string, foreign []byte) {
		gotAt, gotNumber, gotKind := parseExpiry(expiryKey(time.Unix(at, 0), number, kind))
		if gotAt != max(at, 0) || gotNumber != number || gotKind != kind {
			t.Errorf("%d, %d, %q became %d, %d, %q", at, number, kind, gotAt, gotNumber, gotKind)
		}
		parseExpiry(foreign)
	})
}
