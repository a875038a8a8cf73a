package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// VerifyOptions say how Verify goes about it.
type VerifyOptions struct {
	Repair   bool                  // move what is damaged to the directory corrupt of the store, for a person to look at
	Progress func(Object, Summary) // called after each object; nil: not called
}

// Summary counts what Verify has seen.
type Summary struct {
	Objects int
	Records int   // records and roots
	Bytes   int64 // of content that was hashed
}

// Damage is one thing in the store that is not what it should be.
type Damage struct {
	Path  string // inside the store's directory
	Cause string
	Moved string // where Verify moved it, inside the store's directory; empty: it is still in its place
}

// VerifyReport is what Verify found.
type VerifyReport struct {
	Summary
	Damaged []Damage // blobs, trees, records, roots, each sorted by path
}

// OK reports whether everything is as it should be.
func (r VerifyReport) OK() bool { return len(r.Damaged) == 0 }

// Verify hashes every object again and checks every record. Damage is reported, not returned as an error.
func (s *Store) Verify(ctx context.Context, opts VerifyOptions) (VerifyReport, error) {
	lease, err := s.Lease(ctx)
	if err != nil {
		return VerifyReport{}, err
	}
	defer lease.Release()
	v := verification{store: s, opts: opts}
	for _, kind := range []Kind{Blob, Tree} {
		if err := s.each(ctx, kind, func(o Object) error { return v.object(ctx, o) }); err != nil {
			return v.report, fmt.Errorf("verify store %s: %w", s.dir, err)
		}
	}
	if err := v.records(ctx); err != nil {
		return v.report, fmt.Errorf("verify store %s: %w", s.dir, err)
	}
	return v.report, nil
}

// verification is one run of Verify.
type verification struct {
	store  *Store
	opts   VerifyOptions
	report VerifyReport
}

func (v *verification) object(ctx context.Context, o Object) error {
	got, size, err := v.hash(ctx, o)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if passing(err) {
		return fmt.Errorf("read %s %s: %w", o.Kind, o.Digest, err)
	}
	rel := v.rel(v.store.objectPath(o))
	switch {
	case err != nil:
		err = v.damaged(rel, err.Error())
	case got != o.Digest:
		err = v.damaged(rel, "its content is "+got.String())
	case size != o.Size:
		err = v.damaged(rel, "the note of its size is damaged")
	}
	v.report.Objects++
	v.report.Bytes += size
	if v.opts.Progress != nil {
		v.opts.Progress(o, v.report.Summary)
	}
	return err
}

// passing reports whether an error says something of this process or moment, and nothing of the object.
func passing(err error) bool {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EACCES, unix.EPERM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (v *verification) hash(ctx context.Context, o Object) (digest.SHA256, int64, error) {
	if o.Kind == Tree {
		return nar.Hash(ctx, filepath.Join(v.store.objectPath(o), treeName), nar.Options{})
	}
	f, err := v.store.OpenBlob(o.Digest)
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	defer f.Close()
	return digest.OfReader(contextReader{ctx, f})
}

// records checks the records of each kind, and the roots.
func (v *verification) records(ctx context.Context) error {
	kinds, err := v.store.fs.ReadDir(v.store.path(recordDir))
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		check := func(rel string) error { return v.store.checkRecord(rel, kind.Name()) }
		if err := v.eachRecord(ctx, filepath.Join(recordDir, kind.Name()), check); err != nil {
			return err
		}
	}
	return v.eachRecord(ctx, rootDir, func(rel string) error {
		_, err := v.store.readRoot(rel)
		return err
	})
}

func (v *verification) eachRecord(ctx context.Context, dir string, check func(rel string) error) error {
	entries, err := v.store.fs.ReadDir(v.store.path(dir))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		rel := filepath.Join(dir, entry.Name())
		err := check(rel)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		v.report.Records++
		if corrupt, ok := errors.AsType[*CorruptError](err); ok {
			err = v.damaged(rel, corrupt.Cause)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) checkRecord(rel, kind string) error {
	r, err := s.readRecord(rel)
	if err != nil {
		return err
	}
	if r.Kind != kind || filepath.Base(rel) != keyName(r.Key) {
		return &CorruptError{Path: rel, Cause: fmt.Sprintf("it is the record of %s %q", r.Kind, r.Key)}
	}
	return nil
}

// damaged notes a damaged path and, if asked to, moves it away.
func (v *verification) damaged(rel, cause string) error {
	damage := Damage{Path: rel, Cause: cause}
	if v.opts.Repair {
		moved, err := v.store.quarantine(rel)
		if err != nil {
			return err
		}
		damage.Moved = moved
	}
	v.report.Damaged = append(v.report.Damaged, damage)
	return nil
}

func (v *verification) rel(path string) string {
	rel, err := filepath.Rel(v.store.dir, path)
	if err != nil {
		return path
	}
	return rel
}

// quarantine moves something of the store to the directory corrupt.
func (s *Store) quarantine(rel string) (moved string, err error) {
	kind, _, _ := strings.Cut(rel, string(filepath.Separator))
	moved = filepath.Join(corruptDir, kind+"-"+filepath.Base(rel)+"-"+rand.Text()[:8])
	if err := s.fs.Rename(s.path(rel), s.path(moved)); err != nil {
		return "", fmt.Errorf("move damaged %s away: %w", rel, err)
	}
	return moved, errors.Join(s.fs.SyncDir(s.path(filepath.Dir(rel))), s.fs.SyncDir(s.path(corruptDir)))
}
