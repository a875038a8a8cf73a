package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DefaultAge is how long GC spares an object that no root keeps. A build that was interrupted finds what it had fetched when it is started
// again within the hour.
const DefaultAge = time.Hour

// GCOptions say what GC removes.
type GCOptions struct {
	DryRun bool          // only report what would be removed
	Age    time.Duration // objects added within it stay; zero: DefaultAge; negative: none stays for its age
}

// GCReport is what GC did, or would do in a dry run.
type GCReport struct {
	Removed []Object // sorted as List sorts
	Kept    int      // objects that stay
	Freed   int64    // bytes of the removed objects' content
	Swept   int      // temporary directories of dead processes that were removed
}

// GC removes the objects that no root keeps and that are old enough. It waits until nobody holds a lease, and nobody gets one while it
// decides; the space is given back after that. A damaged root stops it before anything is removed, since what that root kept is unknown.
//
// Cancelled or killed at any instant, it leaves each object either whole or gone.
func (s *Store) GC(ctx context.Context, opts GCOptions) (GCReport, error) {
	report, trash, err := s.collect(ctx, opts)
	if len(trash) > 0 {
		err = errors.Join(err, s.empty(trash))
	}
	if !opts.DryRun && err == nil {
		report.Swept, err = s.sweep()
	}
	if err != nil {
		return report, fmt.Errorf("collect garbage in store %s: %w", s.dir, err)
	}
	return report, nil
}

// empty removes what collect moved away. That it is out of its place must be durable first, lest a power cut put it back half emptied.
func (s *Store) empty(trash []string) error {
	if err := errors.Join(s.fs.SyncDir(s.path(blobDir)), s.fs.SyncDir(s.path(treeDir))); err != nil {
		return err
	}
	for _, temp := range trash {
		if err := s.discard(temp); err != nil {
			return err
		}
	}
	return nil
}

// collect moves what is to be removed among the temporary files, whose names it returns.
func (s *Store) collect(ctx context.Context, opts GCOptions) (report GCReport, trash []string, err error) {
	release, err := s.exclusive(ctx)
	if err != nil {
		return GCReport{}, nil, err
	}
	defer release()
	objects, err := s.List(ctx)
	if err != nil {
		return GCReport{}, nil, err
	}
	for _, o := range objects {
		if len(o.Roots) > 0 || !s.oldEnough(o, opts.Age) {
			report.Kept++
			continue
		}
		if !opts.DryRun {
			if err := ctx.Err(); err != nil {
				return report, trash, err
			}
			temp, err := s.unlink(o)
			if err != nil {
				return report, trash, err
			}
			trash = append(trash, temp)
		}
		report.Removed = append(report.Removed, o)
		report.Freed += max(o.Size, 0)
	}
	return report, trash, nil
}

func (s *Store) oldEnough(o Object, age time.Duration) bool {
	if age == 0 {
		age = DefaultAge
	}
	return age < 0 || s.now().Sub(o.Added) >= age
}

// unlink takes an object out of the store at once and whole.
func (s *Store) unlink(o Object) (temp string, err error) {
	if temp, err = s.temp(); err != nil {
		return "", err
	}
	return temp, s.fs.Rename(s.objectPath(o), temp)
}

func (s *Store) objectPath(o Object) string {
	if o.Kind == Blob {
		return s.blobPath(o.Digest)
	}
	return s.treePath(o.Digest)
}
