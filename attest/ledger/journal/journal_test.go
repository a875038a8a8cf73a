package journal

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What was synced is read again, whatever became of what was being written behind it; damage before it is said.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{MaxEntry: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	entries := [][]byte{[]byte("a"), []byte("bb"), []byte("ccc")}
	for i := range entries { // one group of one, one of two
		if i < 2 {
			if err := j.Write(int64(7+i), entries[i:i+1+i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	size := j.files[0].size
	first := j.Turn()
	if err := j.Write(10, [][]byte{[]byte("d")}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "journal.0")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole = whole[:size] // the rest is zeros
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
				if got = err.Error(); !strings.Contains(got, tt.want) || err.(*Error).Hint() == "" {
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
	j, err := Open(dir, Options{MaxEntry: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	list, err := j.Read(from)
	var words []string
	for _, e := range list {
		words = append(words, string(e.Data))
	}
	return strings.Join(words, " "), err
}

// A group that was being written last is as if nobody had handed it over, at whatever byte it stopped, and whatever stands there.
func TestJournalTail(t *testing.T) {
	j, err := Open(t.TempDir(), Options{MaxEntry: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for i := range 2 {
		if err := j.Write(int64(i), [][]byte{[]byte("entry")}); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(j.files[0].path)
	if err != nil {
		t.Fatal(err)
	}
	data = data[:j.files[0].size] // the rest is zeros
	want := []Entry{{0, []byte("entry")}}
	half := len(data) / 2
	for n := half; n < len(data); n++ {
		for _, tail := range [][]byte{data[half:n], make([]byte, n-half)} {
			got, good, err := j.o.parse(append(bytes.Clone(data[:half]), tail...), 0)
			if err != nil || good != half {
				t.Fatalf("%d bytes: %d, %v", n, good, err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Fatal(d)
			}
		}
	}
}

// A file that is used again has nothing of its earlier use behind the new groups, at whatever byte the last write stopped; and what had its emptying
// stopped is passed over.
func TestJournalReuse(t *testing.T) {
	dir := t.TempDir()
	o := Options{MaxEntry: 1 << 16, Salt: []byte("salt")}
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	next := int64(0)
	write := func(words ...string) {
		t.Helper()
		var entries [][]byte
		for _, w := range words {
			entries = append(entries, []byte(w))
		}
		if err := j.Write(next, entries); err != nil {
			t.Fatal(err)
		}
		next += int64(len(words))
	}
	for range 40 {
		write("long ago")
	}
	full, err := os.ReadFile(j.files[0].path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range len(full) / sector {
		half := bytes.Clone(full)
		copy(half[at*sector:], make([]byte, sector))
		if got, _, err := o.parse(half, 40); err != nil || len(got) > 40 || len(got) > 0 && got[0].Index != 0 {
			t.Fatalf("sector %d is empty: %d entries, %v", at, len(got), err)
		}
	}
	for range 2 { // to the other file, and back
		if err := j.Empty(j.Turn()); err != nil {
			t.Fatal(err)
		}
	}
	write("new one!") // as long as one of the old ones, so that another follows
	before := j.files[0].size
	write("new", "ones")
	data, err := os.ReadFile(j.files[0].path)
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Clone(data)
	copy(old[before:], make([]byte, j.files[0].size-before))
	for cut := before; cut <= j.files[0].size; cut++ {
		torn := append(bytes.Clone(data[:cut]), old[cut:]...)
		got, good, err := o.parse(torn, 40)
		want := 1
		if cut == j.files[0].size {
			want = 3
		}
		if err != nil || len(got) != want || got[0].Index != 40 {
			t.Fatalf("%d bytes of the last group: %v, %d, %v", cut-before, got, good, err)
		}
	}
	if rest := bytes.Trim(data[j.files[0].size:], "\x00"); len(rest) > 0 {
		t.Errorf("%d bytes of the earlier use are there", len(rest))
	}
	data[groupHead+1] ^= 1
	if _, _, err := o.parse(data, 40); err == nil {
		t.Error("a damaged group before a whole one is passed over")
	}
	if list, _, err := (Options{MaxEntry: 1 << 16, Salt: []byte("other")}).parse(old, 40); err == nil {
		t.Errorf("with another salt: %v", list)
	}
}

func FuzzParse(f *testing.F) {
	dir := f.TempDir()
	j, err := Open(dir, Options{MaxEntry: 1 << 16})
	if err != nil {
		f.Fatal(err)
	}
	if err := j.Write(3, [][]byte{[]byte("a"), []byte("b")}); err != nil {
		f.Fatal(err)
	}
	j.Close()
	data, err := os.ReadFile(j.files[0].path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(append(data, data...))
	f.Add(data[:len(data)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, good, err := j.o.parse(data, 0)
		if err != nil {
			return
		}
		again, n, err := j.o.parse(data[:good], 0)
		if err != nil || n != good {
			t.Errorf("%s: %d of %d: %v", hex.EncodeToString(data), n, good, err)
		}
		if d := cmp.Diff(entries, again); d != "" {
			t.Error(d)
		}
	})
}
