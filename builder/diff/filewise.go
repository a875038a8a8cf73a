package diff

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// blockSize is how much of two files is compared at a time.
const blockSize = 256 << 10

// compareFiles compares batches of files until there are no more.
func (w *walk) compareFiles() error {
	bufA, bufB := make([]byte, blockSize), make([]byte, blockSize)
	for batch := range w.batches {
		for _, name := range batch.names {
			if err := w.file(batch.in, name, bufA, bufB); err != nil {
				batch.in.release()
				return err
			}
		}
		batch.in.release()
		if err := w.c.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) file(d *directories, name string, bufA, bufB []byte) error {
	full := name
	if d.path != "" {
		full = d.path + "/" + name
	}
	a, statA, err := openStat(d.a, name)
	if err != nil {
		return err
	}
	defer unix.Close(a)
	b, statB, err := openStat(d.b, name)
	if err != nil {
		return err
	}
	defer unix.Close(b)
	w.files.Add(1)
	w.bytes.Add(statA.Size)
	if statA.Dev == statB.Dev && statA.Ino == statB.Ino {
		return nil
	}
	w.note(w.c.metadata(full, &statA, &statB)...)
	if known := w.digestsA[full]; statA.Size == statB.Size && !known.IsZero() && known == w.digestsB[full] {
		return nil
	}
	equal, err := equalFiles(a, b, statA.Size, statB.Size, bufA, bufB)
	if err != nil {
		return fmt.Errorf("read %q: %w", full, err)
	}
	if !equal {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.differ = append(w.differ, full)
	}
	return nil
}

func openStat(dir *os.File, name string) (fd int, stat unix.Stat_t, err error) {
	fd, err = unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, stat, &os.PathError{Op: "open", Path: name, Err: err}
	}
	if err := unix.Fstat(fd, &stat); err != nil {
		unix.Close(fd)
		return -1, stat, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, stat, &os.PathError{Op: "open", Path: name, Err: errors.New("it is no longer a file")}
	}
	return fd, stat, nil
}

// equalFiles compares block by block and ends at the first that differs.
func equalFiles(a, b int, sizeA, sizeB int64, bufA, bufB []byte) (bool, error) {
	if sizeA != sizeB {
		return false, nil
	}
	for left := sizeA; left > 0; {
		n := min(left, int64(len(bufA)))
		if err := readBlock(a, bufA[:n]); err != nil {
			return false, err
		}
		if err := readBlock(b, bufB[:n]); err != nil {
			return false, err
		}
		if string(bufA[:n]) != string(bufB[:n]) {
			return false, nil
		}
		left -= n
	}
	return true, nil
}

func readBlock(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Read(fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			p = p[n:]
		}
	}
	return nil
}
