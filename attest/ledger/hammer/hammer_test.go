package hammer_test

import (
	"path/filepath"
	"testing"

	"arch.network/attest/ledger/hammer"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	opts := hammer.Options{Dir: filepath.Join(dir, "ledger"), Signed: filepath.Join(dir, "signed"), Goal: 500, Writers: 32, Readers: 2}
	r, err := hammer.Run(t.Context(), opts)
	if err != nil || r.Recorded != 500 || r.Proved == 0 || r.P50 <= 0 || r.P99 < r.P50 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := hammer.Run(t.Context(), opts); err == nil {
		t.Error("a ledger that exists was hammered")
	}
}
