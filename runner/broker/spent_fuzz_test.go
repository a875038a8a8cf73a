package broker

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzSpent: whatever the file of what must not come again holds, it is refused, or kept in full when it is written again.
func FuzzSpent(f *testing.F) {
	f.Add([]byte(`{"started":{},"versions":{}}`))
	f.Add([]byte(`{"started":{"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855":{"times":1,"expires":"2030-01-01T00:00:00Z"}},"versions":{"Policy p":3}}`))
	f.Add([]byte(`{"started":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "spent")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := openLedger(path)
		if err != nil {
			return
		}
		if err := l.save(); err != nil {
			t.Fatal(err)
		}
		again, err := openLedger(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(again.state.Started) != len(l.state.Started) || len(again.state.Versions) != len(l.state.Versions) {
			t.Errorf("written again: %v, was %v", again.state, l.state)
		}
		for sum, was := range l.state.Started {
			if is := again.state.Started[sum]; is.Times != was.Times || !is.Expires.Equal(was.Expires) {
				t.Errorf("%s: %v, was %v", sum, is, was)
			}
		}
	})
}
