package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/artifact"
)

// Deliver writes every output of made into the directory dir, each under its name and in the form its type says, and
// returns their paths. An output appears complete or not at all; what was there under the name before is replaced, unless it is the
// very file that would be written.
func (b *Builder) Deliver(ctx context.Context, made *Made, dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make result directory: %w", err)
	}
	var paths []string
	for i, out := range made.Record.Outputs {
		path := filepath.Join(dir, out.Name)
		end := b.begin(StageDeliver, out.Name)
		write := func(temp string) error {
			return writeOutput(ctx, made.Manifest, made.Manifest.Spec.Outputs[i], out, temp)
		}
		if !isDelivered(ctx, out, path, made.Manifest.Spec.SourceDateEpoch) {
			if err := replace(path, write); err != nil {
				return nil, fmt.Errorf("deliver output %s: %w", out.Name, err)
			}
		}
		end(path)
		paths = append(paths, path)
	}
	return paths, nil
}

// isDelivered reports whether path already is what copyOut makes of an output that is a file: bytes, permissions, time, and nobody
// else's. Reading it costs less than writing it again.
func isDelivered(ctx context.Context, out Output, path string, epoch int64) bool {
	if out.Type != manifest.OutputFile && out.Type != manifest.OutputWasm {
		return false
	}
	info, err := os.Lstat(path)
	if err != nil || !info.ModTime().Equal(time.Unix(epoch, 0)) || info.Mode() != 0o644 && info.Mode() != 0o755 {
		return false
	}
	if st := info.Sys().(*syscall.Stat_t); st.Nlink != 1 || int(st.Uid) != os.Geteuid() {
		return false
	}
	sum, _, err := nar.Hash(ctx, path, nar.Options{})
	return err == nil && sum == out.NAR
}

// writeOutput writes the delivered form of out at the new path temp.
func writeOutput(ctx context.Context, doc *manifest.Build, decl manifest.BuildOutput, out Output, temp string) error {
	switch out.Type {
	case manifest.OutputTar:
		f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		var sum digest.Writer
		if err := artifact.WriteTar(ctx, &teeFile{f, &sum}, out.Path, doc.Spec.SourceDateEpoch); err != nil {
			return err
		}
		if sum.Sum() != out.Tar {
			return &DamagedError{Form: "tar", Want: out.Tar, Got: sum.Sum()}
		}
		return f.Close()
	case manifest.OutputOCI:
		got, err := imageOf(doc, decl).WriteLayout(ctx, temp, out.Path)
		if err == nil && got != out.OCI {
			err = &DamagedError{Form: "image", Want: out.OCI, Got: got}
		}
		return err
	}
	return copyOut(ctx, out, temp, doc.Spec.SourceDateEpoch)
}

// teeFile writes to both; the digest never fails.
type teeFile struct {
	file *os.File
	sum  *digest.Writer
}

func (t *teeFile) Write(p []byte) (int, error) {
	n, err := t.file.Write(p)
	t.sum.Write(p[:n])
	return n, err
}

// copyOut copies a file or tree out of the store as a NAR, so that what arrives is what was hashed.
func copyOut(ctx context.Context, out Output, temp string, epoch int64) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	dumped := make(chan error, 1)
	go func() {
		err := nar.Dump(ctx, w, out.Path, nar.Options{})
		dumped <- errors.Join(err, w.Close())
	}()
	var sum digest.Writer
	err = nar.Restore(ctx, &teeReader{r, &sum}, temp, nar.RestoreOptions{Writable: true, ModTime: time.Unix(epoch, 0)})
	if err != nil {
		r.Close() // ends the dump
		return errors.Join(err, <-dumped)
	}
	if err := <-dumped; err != nil {
		return err
	}
	if sum.Sum() != out.NAR {
		return &DamagedError{Form: "NAR", Want: out.NAR, Got: sum.Sum()}
	}
	return nil
}

type teeReader struct {
	from *os.File
	sum  *digest.Writer
}

func (t *teeReader) Read(p []byte) (int, error) {
	n, err := t.from.Read(p)
	t.sum.Write(p[:n])
	return n, err
}

// replace has write make something at a temporary name beside path, then gives it its name in one step. What was there
// before goes away with the temporary directory.
func replace(path string, write func(temp string) error) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".arch-*")
	if err != nil {
		return err
	}
	defer nar.RemoveAll(dir)
	temp := filepath.Join(dir, "new")
	if err := write(temp); err != nil {
		return err
	}
	return swap(temp, path)
}

// swap moves temp to path. Where a directory is in the way or takes the place of something, which no plain rename
// allows, the two change places; on a file system that cannot do this, the old one is moved aside first.
func swap(temp, path string) error {
	err := os.Rename(temp, path)
	if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EISDIR) {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		if err != nil {
			return &os.LinkError{Op: "exchange", Old: temp, New: path, Err: err}
		}
		return nil
	}
	old := filepath.Join(filepath.Dir(temp), "old")
	if err := os.Rename(path, old); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Rename(old, path))
	}
	return nil
}

// WriteFile writes data at path in one step: readers see the old content or the new one. A file that has this content
// already is left as it is.
func WriteFile(path string, data []byte) error {
	if holds(path, data) {
		return nil
	}
	return replace(path, func(temp string) error {
		f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(data); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		return f.Close()
	})
}

// holds reports whether path is a regular file with the content data.
func holds(path string, data []byte) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(data)) {
		return false
	}
	have, err := os.ReadFile(path)
	return err == nil && bytes.Equal(have, data)
}
