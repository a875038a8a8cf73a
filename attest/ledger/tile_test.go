package ledger_test

import (
	"strings"
	"testing"

	"arch.network/attest/ledger"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
)

// Paths are those of golang.org/x/mod, which has the height of the tiles in them, too.
func TestTilePath(t *testing.T) {
	for _, tile := range []ledger.Tile{
		{0, 0, 256},
		{0, 0, 1},
		{1, 999, 256},
		{2, 1000, 255},
		{3, 1234067, 8},
		{7, 1<<62 - 1, 256},
	} {
		theirs := tlog.Tile{H: 8, L: tile.Level, N: tile.Number, W: tile.Width}.Path()
		if got, want := tile.Path(), strings.Replace(theirs, "tile/8/", "tile/", 1); got != want {
			t.Errorf("%+v: %s, want %s", tile, got, want)
		}
		back, bundle, err := ledger.ParsePath(tile.Path())
		if err != nil || bundle != nil {
			t.Errorf("%s: %v, %v", tile.Path(), bundle, err)
			continue
		}
		if diff := cmp.Diff(&tile, back); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tile.Path(), diff)
		}
	}
}

func TestBundleOf(t *testing.T) {
	for _, tt := range []struct {
		index, size int64
		path        string
		at          int
	}{
		{0, 1, "tile/entries/000.p/1", 0},
		{255, 256, "tile/entries/000", 255},
		{256, 300, "tile/entries/001.p/44", 0},
		{256_123, 1 << 40, "tile/entries/x001/000", 123},
	} {
		b, at := ledger.BundleOf(tt.index, tt.size)
		if b.Path() != tt.path || at != tt.at {
			t.Errorf("entry %d of %d: %s at %d, want %s at %d", tt.index, tt.size, b.Path(), at, tt.path, tt.at)
		}
		if _, back, err := ledger.ParsePath(b.Path()); err != nil || *back != b {
			t.Errorf("%s: %+v, %v", b.Path(), back, err)
		}
	}
}

func TestParsePathRefuses(t *testing.T) {
	for _, path := range []string{
		"", "tile", "tile/0", "tile/0/", "/tile/0/000", "tile/0/0", "tile/0/0000", "tile/0/000/", "tile/8/000", "tile/-1/000", "tile/00/000",
		"tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/0/x000/001", "tile/0/001/000", "tile/0/x1/000",
		"tile/0/../000", "tile/entries/../../checkpoint", "tile/entries", "tile/entries/x001", "tile/data/000", "checkpoint",
		"tile/0/x999/x999/x999/x999/x999/x999/x999/999", "tile/0/000\x00", "tile/0/+00",
	} {
		if tile, bundle, err := ledger.ParsePath(path); err == nil {
			t.Errorf("%q is read as %+v, %+v", path, tile, bundle)
		}
	}
}

func TestEntries(t *testing.T) {
	var data []byte
	want := [][]byte{[]byte("one"), {}, []byte(strings.Repeat("x", ledger.MaxEntry))}
	for _, e := range want {
		var err error
		if data, err = ledger.AppendEntry(data, e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ledger.ParseEntries(ledger.Bundle{Width: 3}, data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if _, err := ledger.AppendEntry(nil, make([]byte, ledger.MaxEntry+1)); err == nil {
		t.Error("an entry over the limit was added")
	}
	for _, width := range []int{2, 4} {
		if _, err := ledger.ParseEntries(ledger.Bundle{Width: width}, data); err == nil {
			t.Errorf("3 entries were read as %d", width)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"tile/0/000", "tile/3/x001/234.p/8", "tile/entries/x001/000.p/255"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		tile, bundle, err := ledger.ParsePath(path)
		switch {
		case err != nil:
		case (tile == nil) == (bundle == nil), tile != nil && tile.Path() != path, bundle != nil && bundle.Path() != path:
			t.Errorf("%q is read as %+v, %+v", path, tile, bundle)
		}
	})
}

func FuzzParseEntries(f *testing.F) {
	f.Add(2, []byte{0, 1, 'a', 0, 0})
	f.Fuzz(func(t *testing.T, width int, data []byte) {
		if width < 1 || width > 256 {
			return
		}
		entries, err := ledger.ParseEntries(ledger.Bundle{Width: width}, data)
		if err != nil {
			return
		}
		var again []byte
		for _, e := range entries {
			again, _ = ledger.AppendEntry(again, e)
		}
		if string(again) != string(data) {
			t.Errorf("%q is read as %q", data, entries)
		}
	})
}
