package sequencer

import (
	"crypto/rand"
	"path/filepath"
	"testing"

	"arch.network/attest/ledger/journal"
	"arch.network/attest/ledger/notekey"
)

// What the journal has and the tiles have not is in the log when it is opened again, and counts from then on; what both have is there once.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	keys, err := notekey.Generate("example.org/log", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{Dir: filepath.Join(dir, "log"), Signed: filepath.Join(dir, "signed"), Keys: keys}
	for round := range int64(3) { // each finds entries of a killed process in the journal, the first of which are in the tiles
		if round > 0 {
			j, err := journal.Open(filepath.Join(opts.Dir, ".state"), journalOptions)
			if err != nil {
				t.Fatal(err)
			}
			first := 4*round - 3
			if err := j.Write(first-1, [][]byte{[]byte("d"), []byte("a"), []byte("b"), []byte("c")}); err != nil {
				t.Fatal(err)
			}
			j.Close()
		}
		l, err := Open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		index, err := l.Append(t.Context(), []byte("d"))
		if err != nil || index != 4*round {
			t.Errorf("round %d: entry %d, %v", round, index, err)
		}
		if _, err := l.Proof(t.Context(), index); err != nil {
			t.Error(err)
		}
		if tree, err := l.Tree(); err != nil || tree.Size != index+1 {
			t.Errorf("round %d: a tree of %d, %v", round, tree.Size, err)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
