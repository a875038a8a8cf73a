package client

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzFrames: whatever comes over a stream, reading ends, and an event that comes out can be sent on.
func FuzzFrames(f *testing.F) {
	for _, seed := range []string{
		"retry: 2000\n\nid: 1\nevent: job\ndata: {\"number\":1,\"kind\":\"job\",\"text\":\"x\",\"at\":\"2026-01-01T00:00:00Z\"}\n\n",
		":\n\n", "event: problem\ndata: {\"code\":\"lagged\",\"next\":7}\n\n", "data: {\ndata: }\n\n", "data\n\n", "id: 1\r\n\r\n", "data: {\"number\":1,\"number\":2}\n\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream string) {
		in := newFrames(strings.NewReader(stream))
		for range len(stream) + 1 {
			e, err := in.next()
			if err != nil {
				return
			}
			if _, err := json.Marshal(e); err != nil && !strings.Contains(err.Error(), "Time.MarshalJSON") {
				t.Errorf("%+v: %v", e, err)
			}
		}
		t.Error("it does not end")
	})
}
