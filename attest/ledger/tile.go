package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Tiles hold the tree's hashes, and bundles its entries, 256 to each (C2SP tlog-tiles).
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// Tile names a tile by its level and number, and by how many hashes it holds: 256, or fewer at the right edge of the tree.
type Tile struct {
	Level  int
	Number int64
	Width  int
}

// Path returns the tile's path below the log's prefix, such as "tile/0/x001/x234/067.p/8".
func (t Tile) Path() string {
	return "tile/" + strconv.Itoa(t.Level) + "/" + numberPath(t.Number, t.Width)
}

// Bundle names a bundle of entries by its number, and by how many it holds.
type Bundle struct {
	Number int64
	Width  int
}

// Path returns the bundle's path below the log's prefix, such as "tile/entries/000.p/8".
func (b Bundle) Path() string { return "tile/entries/" + numberPath(b.Number, b.Width) }

// BundleOf returns the bundle that holds entry index of a log of size entries, and the entry's place in it.
func BundleOf(index, size int64) (Bundle, int) {
	n := index / tileWidth
	return Bundle{Number: n, Width: int(min(size-n*tileWidth, tileWidth))}, int(index % tileWidth)
}

// numberPath writes a number in groups of three digits, all but the last with an x before them, and the width if it is partial.
func numberPath(n int64, width int) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	if width < tileWidth {
		path += ".p/" + strconv.Itoa(width)
	}
	return path
}

// ParsePath reads the path of a tile or of a bundle: exactly one of the results is not nil. It accepts only what Path
// writes, so that a server that opens what it accepts opens nothing else.
func ParsePath(path string) (*Tile, *Bundle, error) {
	refuse := func() (*Tile, *Bundle, error) {
		return nil, nil, fmt.Errorf("read tile path: %q is none", shorten(path))
	}
	rest, ok := strings.CutPrefix(path, "tile/")
	level, rest, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || len(path) > 64 {
		return refuse()
	}
	number, width, partial := strings.Cut(rest, ".p/")
	w := tileWidth
	if partial {
		n, ok := ParseNumber(width)
		if !ok || n < 1 || n >= tileWidth {
			return refuse()
		}
		w = int(n)
	}
	n, err := strconv.ParseInt(strings.NewReplacer("x", "", "/", "").Replace(number), 10, 64)
	if err != nil || n < 0 {
		return refuse()
	}
	if level == "entries" {
		if b := (Bundle{Number: n, Width: w}); b.Path() == path {
			return nil, &b, nil
		}
		return refuse()
	}
	l, ok := ParseNumber(level)
	if t := (Tile{Level: int(l), Number: n, Width: w}); ok && l < 8 && t.Path() == path {
		return &t, nil, nil
	}
	return refuse()
}

// parseTile reads the hashes of a tile, which must be exactly width many.
func parseTile(t Tile, data []byte) ([]tlog.Hash, error) {
	if len(data) != t.Width*tlog.HashSize {
		return nil, fmt.Errorf("read %s: it has %d bytes, not %d", t.Path(), len(data), t.Width*tlog.HashSize)
	}
	hashes := make([]tlog.Hash, t.Width)
	for i := range hashes {
		hashes[i] = tlog.Hash(data[i*tlog.HashSize:])
	}
	return hashes, nil
}

// ParseEntries reads the entries of a bundle: each has its length before it, in two bytes, most significant first. What
// they are is only known once a proof shows that they are in the log.
func ParseEntries(b Bundle, data []byte) ([][]byte, error) {
	entries := make([][]byte, 0, b.Width)
	for len(entries) < b.Width {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("read %s: entry %d is cut short", b.Path(), len(entries))
		}
		n := int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:2+n:2+n])
		data = data[2+n:]
	}
	if len(data) > 0 {
		return nil, fmt.Errorf("read %s: %d bytes are left behind its %d entries", b.Path(), len(data), b.Width)
	}
	return entries, nil
}

// AppendEntry appends an entry to a bundle's bytes.
func AppendEntry(bundle, entry []byte) ([]byte, error) {
	if len(entry) > MaxEntry {
		return nil, fmt.Errorf("add entry: %d bytes are over the limit of %d; log its digest instead", len(entry), MaxEntry)
	}
	bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(entry)))
	return append(bundle, entry...), nil
}

// errTile says that a tile does not belong to the checkpoint.
var errTile = errors.New("its hashes are not those of the checkpoint")
