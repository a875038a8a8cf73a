package checkpoint

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/attest/digest/nar"
	"arch.network/runner"
)

// passing returns the directories that a module may write to and whose content ends with the confinement, rising. What else it may write
// to lies on the host and stays there.
func passing(spec runner.Spec) []string {
	var out []string
	for _, d := range spec.Module.Dirs {
		if d.Writable && on(spec.Mounts, d.Path) == runner.Tmpfs {
			out = append(out, d.Path)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// on is the kind of the mount that a path lies on: the last one at or above it.
func on(mounts []runner.Mount, path string) (kind runner.MountKind) {
	for _, m := range mounts {
		if path == m.Target || strings.HasPrefix(path, strings.TrimSuffix(m.Target, "/")+"/") {
			kind = m.Kind
		}
	}
	return kind
}

// dirs are the directories that the snapshot has the files of.
func (s *Snapshot) dirs() []string {
	var out []string
	for _, f := range s.Files {
		out = append(out, f.Path)
	}
	return out
}

// errFiles says that files are too many to be carried along.
var errFiles = errors.New("the files have more than 1 GiB")

// bounded is a buffer that takes only so much.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errFiles
	}
	return b.Buffer.Write(p)
}

// takeFiles reads what is in directories.
func takeFiles(dirs []string) ([]Files, error) {
	var out []Files
	left := maxFiles
	for _, dir := range dirs {
		b := bounded{left: left}
		if err := nar.Dump(context.Background(), &b, dir, nar.Options{}); err != nil {
			return nil, err
		}
		left = b.left
		out = append(out, Files{dir, b.Bytes()})
	}
	return out, nil
}

// putFiles fills directories, which are empty.
func putFiles(files []Files) error {
	for _, f := range files {
		if err := f.put(); err != nil {
			return fmt.Errorf("restore files of %s: %w", f.Path, err)
		}
	}
	return nil
}

// put restores beside the place and moves everything there, since the place itself is a mount point.
func (f Files) put() error {
	aside := filepath.Join(f.Path, rand.Text())
	if err := nar.Restore(context.Background(), bytes.NewReader(f.NAR), aside, nar.RestoreOptions{Writable: true}); err != nil {
		return err
	}
	entries, err := os.ReadDir(aside)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(aside, e.Name()), filepath.Join(f.Path, e.Name())); err != nil {
			return err
		}
	}
	return os.Remove(aside)
}
