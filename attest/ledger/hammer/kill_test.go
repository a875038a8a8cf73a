package hammer

import (
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/digest"
)

// What would be wrong is said: a decision that is not in the ledger, one that is another there, a place that was given twice, a smaller checkpoint.
func TestKillFinds(t *testing.T) {
	dir := t.TempDir()
	k := &killer{opts: KillOptions{Dir: filepath.Join(dir, "ledger"), Signed: filepath.Join(dir, "signed"), Kills: 1}, acks: map[int64]digest.SHA256{}}
	var err error
	if k.opts.Program, err = filepath.Abs("/proc/self/exe"); err != nil {
		t.Fatal(err)
	}
	if err := k.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	good := k.acks[0]
	wants := func(want string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	k.acks[k.result.Entries] = good
	wants("1 of ", k.check(t.Context()))
	delete(k.acks, k.result.Entries)
	k.acks[0] = digest.SHA256{}
	wants("was acknowledged there", k.check(t.Context()))
	k.acks[0] = good
	v := &victim{}
	e, err := parseAck("0 1 " + good.String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	v.acks = append(v.acks, e)
	wants("given twice", k.take(v))
	k.seen.Size++
	wants("was published after one of", k.look(t.Context()))
}
