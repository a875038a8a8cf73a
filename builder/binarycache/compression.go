package binarycache

import (
	"bufio"
	"fmt"
	"io"
	"slices"

	"arch.network/builder/source/unpack"
)

// Compression is how a NAR is packed, by the name that narinfos have for it.
type Compression string

// The compressions that can be unpacked. Nix has more (br, compress, lrzip, lz4, …), which no large cache uses.
const (
	None  Compression = "none"
	XZ    Compression = "xz"
	Zstd  Compression = "zstd"
	Gzip  Compression = "gzip"
	Bzip2 Compression = "bzip2"
	Lzip  Compression = "lzip"
)

// preferred are the compressions, the ones that are unpacked fastest first.
func preferred() []Compression { return []Compression{Zstd, Gzip, None, XZ, Lzip, Bzip2} }

// CompressionError says that a NAR is only there in packings that cannot be unpacked.
type CompressionError struct{ Offered []Compression }

func (e *CompressionError) Error() string {
	return fmt.Sprintf("unpack NAR: %.100q cannot be unpacked", e.Offered)
}

// Hint tells which can.
func (e *CompressionError) Hint() string {
	return fmt.Sprintf("caches that pack with one of %v work", preferred())
}

// File returns the packing to fetch: the one that is unpacked fastest.
func (n *NarInfo) File() (File, error) {
	var offered []Compression
	for _, c := range preferred() {
		for _, f := range n.Files {
			if f.Compression == c {
				return f, nil
			}
		}
	}
	for _, f := range n.Files {
		offered = append(offered, f.Compression)
	}
	slices.Sort(offered)
	return File{}, &CompressionError{slices.Compact(offered)}
}

// Decompress returns the plain bytes of r. The memory it takes is bounded, its output is not. Reading to EOF checks the checksums of the
// format. The caller calls Close.
func Decompress(r *bufio.Reader, c Compression) (io.ReadCloser, error) {
	switch c {
	case None:
		return io.NopCloser(r), nil
	case Lzip:
		return io.NopCloser(newLzip(r)), nil
	case XZ, Zstd, Gzip, Bzip2:
		return unpack.Decompress(r, unpack.Compression(c))
	}
	return nil, &CompressionError{[]Compression{c}}
}
