package nar

import (
	"context"
	"io"

	"arch.network/attest/digest"
)

// Dump writes the tree at path to w as a NAR. Path itself is not followed if it is a symbolic link; links in its
// parents are. It must be readable as a whole.
//
// Besides errors of reading and of w it returns *TypeError, *LimitError and *ChangedError; what was already written
// to w is then worthless.
func Dump(ctx context.Context, w io.Writer, path string, opts Options) error {
	buf := make([]byte, 0, dumpBuffer)
	d := newDumper(ctx, path, opts, buf, func(full []byte) ([]byte, error) {
		_, err := w.Write(full)
		return full[:0], err
	})
	return d.run()
}

// Hash returns the hash and the size of the NAR of the tree at path, as Dump would write it. Reading goes on beside
// hashing where there is a second processor. It takes about 7 MiB of memory, whatever the tree's size.
func Hash(ctx context.Context, path string, opts Options) (digest.SHA256, int64, error) {
	return hash(ctx, path, opts, nil)
}

// HashListing is Hash and the listing of the tree made on the way. With opts.FileDigests every file's own hash
// is in it.
func HashListing(ctx context.Context, path string, opts Options) (digest.SHA256, Listing, error) {
	listing := Listing{}
	sum, _, err := hash(ctx, path, opts, &listing)
	if err != nil {
		return digest.SHA256{}, nil, err
	}
	return sum, listing, nil
}

func hash(ctx context.Context, path string, opts Options, listing *Listing) (digest.SHA256, int64, error) {
	s := digest.NewStream()
	defer s.Close()
	d := newDumper(ctx, path, opts, s.Next(nil)[:0], func(full []byte) ([]byte, error) {
		return s.Next(full)[:0], nil
	})
	d.listing, d.digests = listing, opts.FileDigests && listing != nil
	if err := d.run(); err != nil {
		return digest.SHA256{}, 0, err
	}
	return s.Sum(), d.sent, nil
}
