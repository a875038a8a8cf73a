package hammer_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"arch.network/attest/ledger/hammer"
)

func TestMain(m *testing.M) {
	if handled, code := hammer.Main(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

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

// Nothing that was acknowledged is lost when writers are killed, of which there are always two. ARCH_LEDGER_KILLS says how many are.
func TestKill(t *testing.T) {
	kills, err := strconv.Atoi(os.Getenv("ARCH_LEDGER_KILLS"))
	if err != nil {
		kills = 6
	}
	dir := t.TempDir()
	opts := hammer.KillOptions{Dir: filepath.Join(dir, "ledger"), Signed: filepath.Join(dir, "signed"), Kills: kills}
	r, err := hammer.Kill(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if r.Kills != kills || r.Acknowledged < int64(kills) || r.Entries < r.Acknowledged || r.Waited == 0 || r.Checkpoints == 0 {
		t.Errorf("%+v", r)
	}
	t.Logf("%+v", *r)
	if _, err := hammer.Kill(t.Context(), opts); err == nil {
		t.Error("a ledger that exists was hammered")
	}
}

// A program that is no writer is noticed, and does not count as killed.
func TestKillWrongProgram(t *testing.T) {
	dir := t.TempDir()
	opts := hammer.KillOptions{Dir: filepath.Join(dir, "ledger"), Signed: filepath.Join(dir, "signed"), Kills: 1, Program: "/bin/true"}
	if r, err := hammer.Kill(t.Context(), opts); err == nil {
		t.Errorf("%+v", r)
	}
}
