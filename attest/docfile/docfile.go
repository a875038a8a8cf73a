// Package docfile reads files that nobody but their administrator may change: signed documents, which are the trust root, believed because it
// lies where it lies, and the policy, whose signatures somebody else then checks; and the configuration of programs.
//
// It promises that it looks at what it opened, not at what the name leads to afterwards; that the file, and each directory
// in which a name on the way to it can be swapped, belongs to root or to the user of this process and cannot be written by
// others; and that nothing over dsse.MaxEnvelope is read. Symbolic links are followed, since whole configurations are put in
// force by swapping one.
//
// It verifies no signature and writes nothing.
package docfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

// Error says why a file is not believed.
type Error struct {
	Path  string
	Cause string
	Cure  string
}

func (e *Error) Error() string { return e.Path + ": " + e.Cause }

// Hint tells the way out.
func (e *Error) Hint() string { return e.Cure }

// maxLinks is how many symbolic links may be on the way, as in the kernel's own lookup.
const maxLinks = 40

// Read reads a document in YAML, or its DSSE envelope, and returns the envelope. Nothing is verified.
func Read(path string) (*dsse.Envelope, error) {
	data, err := Bytes(path)
	if err != nil {
		return nil, err
	}
	env, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return env, nil
}

// Bytes returns what is in such a file, whatever it is: a program's configuration is believed for the same reasons.
func Bytes(path string) ([]byte, error) {
	if _, err := walk(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &Error{path, "it is no regular file", ""}
	}
	if err := owned(path, st.Uid, st.Mode&0o022 != 0, st.Mode); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, dsse.MaxEnvelope+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > dsse.MaxEnvelope:
		return nil, &Error{path, fmt.Sprintf("it has more than %d bytes", dsse.MaxEnvelope), ""}
	}
	return data, nil
}

// Parse makes an envelope of either form.
func Parse(data []byte) (*dsse.Envelope, error) {
	if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return dsse.Parse(data)
	}
	doc, err := manifest.ReadYAML(data)
	if err != nil {
		return nil, err
	}
	return manifest.Wrap(doc)
}

// Dirs returns the directories in which a change can make path another file: that of the file, and that of each symbolic
// link on the way. When the file is missing, they are those up to where the way ends.
func Dirs(path string) ([]string, error) {
	dirs, err := walk(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return dirs, err
}

// walk follows path name by name.
func walk(path string) (dirs []string, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	rest := strings.Split(abs[1:], "/")
	at, links := "/", 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		var st unix.Stat_t
		if err := unix.Lstat(next, &st); err != nil {
			return append(dirs, at), &fs.PathError{Op: "open", Path: next, Err: err}
		}
		isLink := st.Mode&unix.S_IFMT == unix.S_IFLNK
		if (isLink || len(rest) == 0) && !slices.Contains(dirs, at) {
			if err := guarded(at); err != nil {
				return dirs, err
			}
			dirs = append(dirs, at)
		}
		if !isLink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return dirs, &Error{path, fmt.Sprintf("more than %d symbolic links lead to it", maxLinks), ""}
		}
		target, err := os.Readlink(next)
		if err != nil {
			return dirs, err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return dirs, nil
}

// guarded wants a directory in which others cannot swap names. With the sticky bit they can only add some.
func guarded(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	return owned(dir, st.Uid, st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0, st.Mode)
}

func owned(path string, uid uint32, writable bool, mode uint32) error {
	switch {
	case uid != 0 && int(uid) != os.Geteuid():
		return &Error{path, fmt.Sprintf("it belongs to user %d, who could change it", uid), "chown root " + path}
	case writable:
		return &Error{path, fmt.Sprintf("its mode is %04o: others may change it", mode&0o7777), "chmod go-w " + path}
	}
	return nil
}
