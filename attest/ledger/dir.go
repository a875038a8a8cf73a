package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

// CheckpointPath is where a log's signed checkpoint lies, below its prefix.
const CheckpointPath = "checkpoint"

// CosignedPath is where a writer keeps the newest checkpoint that witnesses have cosigned as its policy asks, or as far as they have. It is not
// published under this name: see Dir.ReadCheckpoint.
const CosignedPath = "cosigned"

// PolicyPath is where a writer keeps the keys of its log, as a policy, for those who read the log in its own directory. It is not published: whoever
// gets a log from elsewhere has its keys from elsewhere, too.
const PolicyPath = "policy"

// Source is where a log's files are read from: a Dir, or a server.
type Source interface {
	TileReader
	// ReadCheckpoint returns the signed checkpoint, of at most MaxNote bytes.
	ReadCheckpoint(ctx context.Context) ([]byte, error)
	// ReadBundle returns the bytes that lie at the path of a Bundle.
	ReadBundle(ctx context.Context, path string) ([]byte, error)
}

// Dir is a directory in which a log's files lie. Where a partial tile or bundle is not there any more, because the full one has taken its
// place, it reads that one and cuts it.
type Dir string

// The sizes that the files of a log can have, in bytes.
const (
	MaxTile   = tileWidth * tlog.HashSize
	MaxBundle = tileWidth * (2 + MaxEntry)
)

// ReadCheckpoint implements Source. The newest checkpoint comes with the cosignatures that it has, if it is the one at CosignedPath.
func (d Dir) ReadCheckpoint(context.Context) ([]byte, error) {
	newest, err := d.read(CheckpointPath, MaxNote)
	if err != nil {
		return nil, err
	}
	cosigned, err := d.ReadCosigned()
	if err == nil && sameText(newest, cosigned) {
		return cosigned, nil
	}
	return newest, nil // one that nobody has cosigned, or a later one
}

// ReadCosigned returns the newest checkpoint that witnesses have cosigned; the error is fs.ErrNotExist if there is none.
func (d Dir) ReadCosigned() ([]byte, error) { return d.read(CosignedPath, MaxNote) }

// sameText reports whether two notes say the same, whoever signed them.
func sameText(a, b []byte) bool {
	textA, _, okA := bytes.Cut(a, []byte("\n\n"))
	textB, _, okB := bytes.Cut(b, []byte("\n\n"))
	return okA && okB && bytes.Equal(textA, textB)
}

// ReadPolicy returns the keys that the log's own writer says it has.
func (d Dir) ReadPolicy() (*Policy, error) {
	data, err := d.read(PolicyPath, MaxPolicy)
	if err != nil {
		return nil, fmt.Errorf("read the log's own keys: %w", err)
	}
	return ParsePolicy(data)
}

// ReadTile implements TileReader.
func (d Dir) ReadTile(_ context.Context, path string) ([]byte, error) {
	return d.partial(path, MaxTile)
}

// ReadBundle implements Source.
func (d Dir) ReadBundle(_ context.Context, path string) ([]byte, error) {
	return d.partial(path, MaxBundle)
}

func (d Dir) partial(path string, limit int) ([]byte, error) {
	return ReadPartial(path, func(path string) ([]byte, error) { return d.read(path, limit) })
}

// ReadPartial reads the tile or bundle at path by read. If it is a partial one that is not there (fs.ErrNotExist), it reads the full one and cuts it
// (C2SP tlog-tiles, Partial Tiles).
func ReadPartial(path string, read func(path string) ([]byte, error)) ([]byte, error) {
	tile, bundle, err := ParsePath(path)
	if err != nil {
		return nil, err
	}
	data, err := read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	full, cut := whole(tile, bundle)
	if full == path {
		return nil, err
	}
	more, err2 := read(full)
	if err2 != nil {
		return nil, err
	}
	return cut(more)
}

func (d Dir) read(path string, limit int) ([]byte, error) {
	f, err := os.Open(filepath.Join(string(d), filepath.FromSlash(path)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("read %s: it is over the limit of %d bytes", path, limit)
	}
	return data, err
}

// whole returns the path of the full tile or bundle that takes the place of a partial one, and what cuts it to the partial one.
func whole(tile *Tile, bundle *Bundle) (string, func([]byte) ([]byte, error)) {
	if tile != nil {
		full := Tile{Level: tile.Level, Number: tile.Number, Width: tileWidth}
		return full.Path(), func(data []byte) ([]byte, error) {
			if len(data) != MaxTile {
				return nil, fmt.Errorf("read %s: it has %d bytes, not %d", full.Path(), len(data), MaxTile)
			}
			return data[:tile.Width*tlog.HashSize], nil
		}
	}
	full := Bundle{Number: bundle.Number, Width: tileWidth}
	return full.Path(), func(data []byte) ([]byte, error) {
		entries, err := ParseEntries(full, data)
		if err != nil {
			return nil, err
		}
		size := 0
		for _, e := range entries[:bundle.Width] {
			size += 2 + len(e)
		}
		return data[:size], nil
	}
}

// ReadEntry returns entry index of a log of size entries. Whether it is the right one, only a proof shows.
func ReadEntry(ctx context.Context, from Source, index, size int64) ([]byte, error) {
	if index < 0 || index >= size {
		return nil, fmt.Errorf("read entry %d: the log has %d entries", index, size)
	}
	b, at := BundleOf(index, size)
	data, err := from.ReadBundle(ctx, b.Path())
	if err != nil {
		return nil, fmt.Errorf("read entry %d: %w", index, err)
	}
	entries, err := ParseEntries(b, data)
	if err != nil {
		return nil, fmt.Errorf("read entry %d: %w", index, err)
	}
	return entries[at], nil
}
