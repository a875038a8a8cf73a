package control

import (
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"arch.network/agent/control/wire"
)

// FuzzReason: whatever is accepted as the body of an act is exactly one sentence, and says the same to every reader.
func FuzzReason(f *testing.F) {
	for _, seed := range []string{`{"reason":"x"}`, `{"reason":"x","reason":"y"}`, `{"REASON":"x"}`, `{}`, `[]`, "", `{"reason":"\ud800"}`, `{"reason":"x"} {}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", wire.MediaJSON)
		reason, err := readReason(r)
		if err != nil {
			return
		}
		var loose map[string]any
		if err := json.Unmarshal(body, &loose); err != nil || len(loose) != 1 || loose["reason"] != reason || reason == "" || len(reason) > wire.MaxReason {
			t.Errorf("%q was read as %q", body, reason)
		}
	})
}

// FuzzAfter: a number of an event is read only as it is written.
func FuzzAfter(f *testing.F) {
	for _, seed := range []string{"0", "17", "-1", "+1", "01", "9223372036854775808", "1e3", "1\n", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := httptest.NewRequest("GET", "/v1/events?"+url.Values{"after": {"5"}}.Encode(), nil)
		r.Header.Set("Last-Event-ID", text)
		n, err := readAfter(r)
		if err == nil && text != "" {
			if got, ok := parseNumber(text); !ok || got != n {
				t.Errorf("%q was read as %d", text, n)
			}
		}
		if err == nil && n < 0 {
			t.Errorf("%q was read as %d", text, n)
		}
	})
}

// FuzzLogQuery: no offset or attempt is ever below zero, and nothing unknown is accepted.
func FuzzLogQuery(f *testing.F) {
	for _, seed := range []string{"", "offset=7", "offset=-7", "stream=stdin", "follow=true&attempt=2", "offset=1&offset=2", "x=1", "%zz", "offset=%31"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = raw
		q, err := readLogQuery(r)
		if err == nil && (q.Offset < 0 || q.Attempt < 0 || q.Stream != "stdout" && q.Stream != "stderr") {
			t.Errorf("%q was read as %+v", raw, q)
		}
	})
}
