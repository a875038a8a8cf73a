package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"arch.network/attest/digest"
)

// AddBlob stores the bytes of r and returns their digest and number. If want is not zero the bytes must have that digest, otherwise the
// error is a *MismatchError; if the store has want already, r is not read.
// AddBlob bounds neither size nor time: r and ctx do.
func (s *Store) AddBlob(ctx context.Context, r io.Reader, want digest.SHA256) (digest.SHA256, int64, error) {
	lease, err := s.Lease(ctx)
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	defer lease.Release()
	if !want.IsZero() {
		size, ok, err := s.haveBlob(want)
		if ok || err != nil {
			return want, size, err
		}
	}
	d, size, err := s.addBlob(ctx, r, want)
	if mismatch, ok := errors.AsType[*MismatchError](err); ok {
		return digest.SHA256{}, 0, mismatch
	}
	if err != nil {
		return digest.SHA256{}, 0, fmt.Errorf("add blob to the store: %w", err)
	}
	return d, size, nil
}

// haveBlob reports whether the blob is there, for good, and refreshes its age.
func (s *Store) haveBlob(d digest.SHA256) (size int64, ok bool, err error) {
	info, err := s.fs.Lstat(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("find blob %s in the store: %w", d, err)
	}
	if err := s.confirm(s.blobPath(d), blobDir); err != nil {
		return 0, false, fmt.Errorf("confirm blob %s in the store: %w", d, err)
	}
	return info.Size(), true, nil
}

// confirm makes sure that the name of an object that another process may just have added is durable, and that the object counts as new.
func (s *Store) confirm(path, dir string) error {
	if err := s.fs.Touch(path, s.now()); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return s.fs.SyncDir(s.path(dir))
}

func (s *Store) addBlob(ctx context.Context, r io.Reader, want digest.SHA256) (digest.SHA256, int64, error) {
	temp, err := s.temp()
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	d, size, err := s.receiveBlob(ctx, temp, r)
	if err == nil && !want.IsZero() && d != want {
		err = &MismatchError{Kind: Blob, Want: want, Got: d}
	}
	if err == nil {
		err = s.fs.Rename(temp, s.blobPath(d))
	}
	if err != nil {
		return digest.SHA256{}, 0, errors.Join(err, s.discard(temp))
	}
	return d, size, s.fs.SyncDir(s.path(blobDir))
}

// receiveBlob writes r to a durable, read-only temporary file.
func (s *Store) receiveBlob(ctx context.Context, temp string, r io.Reader) (digest.SHA256, int64, error) {
	f, err := s.fs.Create(temp)
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	var sum digest.Writer
	if _, err := io.CopyBuffer(io.MultiWriter(f, &sum), contextReader{ctx, r}, make([]byte, 256<<10)); err != nil {
		return digest.SHA256{}, 0, errors.Join(err, f.Close())
	}
	if err := s.fs.Seal(temp, 0o444); err != nil {
		return digest.SHA256{}, 0, errors.Join(err, f.Close())
	}
	return sum.Sum(), sum.Size(), errors.Join(f.Sync(), f.Close())
}

// OpenBlob opens a blob for reading; a blob that is not there is a *NotFoundError. The bytes are not hashed again.
// An open blob can be read to its end even if GC removes it.
func (s *Store) OpenBlob(d digest.SHA256) (*os.File, error) {
	f, err := os.Open(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{Kind: Blob, Digest: d}
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s of the store: %w", d, err)
	}
	return f, nil
}

// BlobPath returns where the blob is and whether it is there. Only a Lease keeps it there.
func (s *Store) BlobPath(d digest.SHA256) (string, bool) {
	path := s.blobPath(d)
	_, err := os.Lstat(path)
	return path, err == nil
}

// contextReader is a reader that ends with the context's error.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
