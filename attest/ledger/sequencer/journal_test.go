package sequencer

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/ledger/notekey"

	"github.com/google/go-cmp/cmp"
)

// What was synced is read again, whatever became of what was being written behind it; damage before it is said.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	entries := [][]byte{[]byte("a"), []byte("bb"), []byte("ccc")}
	for i := range entries { // one group of one, one of two
		if i < 2 {
			if err := j.write(int64(7+i), entries[i:i+1+i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := j.turn()
	if err := j.write(10, [][]byte{[]byte("d")}); err != nil {
		t.Fatal(err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "journal.0")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	second := len(whole) - groupHead - (4 + 2) - (4 + 3)
	change := func(at int) []byte { c := bytes.Clone(whole); c[at] ^= 1; return c }
	for _, tt := range []struct {
		name string
		data []byte
		from int64
		want string // or the error
	}{
		{"whole", whole, 7, "a bb ccc d"},
		{"some are in the tiles", whole, 9, "ccc d"},
		{"all are", whole, 11, ""},
		{"more than it has are", whole, 12, ""},
		{"the group before the last is cut off", whole[:len(whole)-1], 7, "entry 8 is missing"},
		{"a group is damaged before a whole one", change(second - 1), 7, "is damaged"},
		{"its sum is", change(0), 7, "is damaged"},
		{"its length is", change(groupHead - 5), 7, "is damaged"},
		{"the last group is damaged", change(len(whole) - 1), 7, "is damaged"},
		{"its length is, too", change(second + groupHead - 5), 7, "is damaged"},
		{"it is cut off and damaged", change(second + groupHead)[:len(whole)-1], 7, "entry 8 is missing"},
		{"some that the tiles have not are missing", nil, 7, "entry 7 is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readJournal(t, dir, tt.from)
			if err != nil {
				if got = err.Error(); !strings.Contains(got, tt.want) || err.(*journalError).Hint() == "" {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			} else if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if first != 0 {
		t.Errorf("the first file is %d", first)
	}
}

// readJournal returns the entries of a journal as one text.
func readJournal(t *testing.T, dir string, from int64) (string, error) {
	t.Helper()
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	list, err := j.read(from)
	var words []string
	for _, e := range list {
		words = append(words, string(e.entry))
	}
	return strings.Join(words, " "), err
}

// A group that was being written last is as if nobody had handed it over, at whatever byte it stopped, and whatever stands there.
func TestJournalTail(t *testing.T) {
	j, err := openJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	for i := range 2 {
		if err := j.write(int64(i), [][]byte{[]byte("entry")}); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(j.paths[0])
	if err != nil {
		t.Fatal(err)
	}
	want := []journaled{{0, []byte("entry")}}
	half := len(data) / 2
	for n := half; n < len(data); n++ {
		for _, tail := range [][]byte{data[half:n], make([]byte, n-half)} {
			got, good, err := parseJournal(append(bytes.Clone(data[:half]), tail...))
			if err != nil || good != half {
				t.Fatalf("%d bytes: %d, %v", n, good, err)
			}
			if d := cmp.Diff(want, got, cmp.AllowUnexported(journaled{})); d != "" {
				t.Fatal(d)
			}
		}
	}
}

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
			j, err := openJournal(filepath.Join(opts.Dir, ".state"))
			if err != nil {
				t.Fatal(err)
			}
			first := 4*round - 3
			if err := j.write(first-1, [][]byte{[]byte("d"), []byte("a"), []byte("b"), []byte("c")}); err != nil {
				t.Fatal(err)
			}
			j.close()
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

func FuzzParseJournal(f *testing.F) {
	dir := f.TempDir()
	j, err := openJournal(dir)
	if err != nil {
		f.Fatal(err)
	}
	if err := j.write(3, [][]byte{[]byte("a"), []byte("b")}); err != nil {
		f.Fatal(err)
	}
	j.close()
	data, err := os.ReadFile(j.paths[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(append(data, data...))
	f.Add(data[:len(data)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, good, err := parseJournal(data)
		if err != nil {
			return
		}
		again, n, err := parseJournal(data[:good])
		if err != nil || n != good {
			t.Errorf("%s: %d of %d: %v", hex.EncodeToString(data), n, good, err)
		}
		if d := cmp.Diff(entries, again, cmp.AllowUnexported(journaled{})); d != "" {
			t.Error(d)
		}
	})
}
