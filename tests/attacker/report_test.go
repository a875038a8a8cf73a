package attacker_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/tests/attacker"
)

func TestTargetsTravel(t *testing.T) {
	want := attacker.Targets{Token: "t", Canary: "/a b", Victim: 7, TCP: 80, Metadata: true, Input: "/inputs/\"x\""}
	_, value, _ := strings.Cut(want.Env(), "=")
	got, err := attacker.TargetsFromEnv(func(string) string { return value })
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := attacker.TargetsFromEnv(func(string) string { return "{" }); err == nil {
		t.Error("cut targets are taken")
	}
}

// FuzzReadReports reads what a hostile job may write in place of reports. What is read is written and read again the same.
func FuzzReadReports(f *testing.F) {
	f.Add([]byte(`{"name":"a","class":"b","outcome":"denied","detail":"c"}` + "\n"))
	f.Add([]byte("{}\n{}\n"))
	f.Add([]byte("not JSON"))
	f.Add([]byte(`{"name":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		reports, err := attacker.ReadReports(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, r := range reports {
			if err := json.NewEncoder(&again).Encode(r); err != nil {
				t.Fatal(err)
			}
		}
		got, err := attacker.ReadReports(&again)
		if err != nil && !strings.Contains(err.Error(), "too long") {
			t.Fatal(err)
		}
		if diff := cmp.Diff(reports, got); err == nil && diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
