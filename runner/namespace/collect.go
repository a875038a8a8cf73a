package namespace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest/nar"
)

// sendOutputs sends each output as a NAR. No process of the commands is alive any more, so that nothing can change
// what is read, and no symbolic link that they left is followed on the way to an output.
func (i *initProcess) sendOutputs() error {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for n := range i.order.Outputs {
		for again := true; again; {
			if again, err = i.sendOutput(root, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// sendOutput sends one output, and reports whether the driver wants it once more.
func (i *initProcess) sendOutput(root, n int) (again bool, err error) {
	out := i.order.Outputs[n]
	err = enterParent(root, out.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return false, writeJSON(i.report, frameAbsent, absence{n, err.Error()})
	}
	if err := writeJSON(i.report, frameOutput, n); err != nil {
		return false, err
	}
	if err == nil {
		err = nar.Dump(context.Background(), dataWriter{i.report}, lastOf(out.Path), nar.Options{})
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if err := writeFrame(i.report, frameEOF, []byte(text)); err != nil {
		return false, err
	}
	return <-i.verdicts == verdictAgain, nil
}

// enterParent makes the directory that holds the output the working directory. An output that does not exist, or that
// lies behind a symbolic link, is an error.
func enterParent(root int, output string) error {
	dir := "./" + strings.TrimPrefix(path.Dir(output), "/")
	fd, err := openInside(root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return describeLink(output, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstatat(fd, lastOf(output), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", output, err)
	}
	return unix.Fchdir(fd)
}

// lastOf returns the last element of p, as a relative path.
func lastOf(p string) string {
	if p == "/" {
		return "."
	}
	return path.Base(p)
}
