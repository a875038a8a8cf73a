package oci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"arch.network/attest/digest"
	"arch.network/builder/source/unpack"
)

// An index is the line "arch image index 1\n" and then one entry after the other, each a byte that tells its kind, its name, and for
//
//	d  a directory:          nothing
//	f  a file:               its size as a uvarint, and the SHA-256 of its content
//	x  an executable file:   the same
//	s  a symbolic link:      its target
//	h  a hard link:          the name of the file
//	w  a whiteout:           nothing
//	o  an opaque directory:  nothing
//
// Names and targets are their length in bytes as a uvarint, and the bytes. An index of a root has only d, f, x and s.

const indexMagic = "arch image index 1\n"

// maxIndex bounds an index, in bytes: a million entries with long names fit, four million tests of PATH_MAX do not.
const maxIndex = 256 << 20

// step is an entry of an index.
type step struct {
	unpack.LayerEntry
	Sum digest.SHA256 // of a file
}

// letters are the bytes of the kinds; an executable file has executableLetter.
var letters = [...]byte{
	unpack.LayerDir: 'd', unpack.LayerFile: 'f', unpack.LayerSymlink: 's',
	unpack.LayerLink: 'h', unpack.LayerWhiteout: 'w', unpack.LayerOpaque: 'o',
}

const executableLetter = 'x'

// kindOf is the inverse of letters.
func kindOf(letter byte) (kind unpack.LayerEntryKind, executable, ok bool) {
	if letter == executableLetter {
		return unpack.LayerFile, true, true
	}
	i := slices.Index(letters[:], letter)
	return unpack.LayerEntryKind(i), false, i >= 0
}

// appendStep appends the encoding of s.
func appendStep(b []byte, s step) []byte {
	letter := letters[s.Kind]
	if s.Executable {
		letter = executableLetter
	}
	b = appendText(append(b, letter), s.Name)
	switch s.Kind {
	case unpack.LayerFile:
		b = binary.AppendUvarint(b, uint64(s.Size))
		b = append(b, s.Sum[:]...)
	case unpack.LayerSymlink, unpack.LayerLink:
		b = appendText(b, s.Target)
	}
	return b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

var errIndex = errors.New("index is damaged")

// decodeIndex reads what appendStep wrote behind the magic. It makes no list: each step is handed to use.
func decodeIndex(b []byte, use func(step) error) error {
	rest, ok := cutMagic(b)
	if !ok {
		return errIndex
	}
	for len(rest) > 0 {
		var s step
		if rest, ok = s.decode(rest); !ok {
			return errIndex
		}
		if err := use(s); err != nil {
			return err
		}
	}
	return nil
}

func cutMagic(b []byte) ([]byte, bool) {
	if len(b) < len(indexMagic) || string(b[:len(indexMagic)]) != indexMagic {
		return nil, false
	}
	return b[len(indexMagic):], true
}

func (s *step) decode(b []byte) (rest []byte, ok bool) {
	if s.Kind, s.Executable, ok = kindOf(b[0]); !ok {
		return nil, false
	}
	if s.Name, b, ok = cutText(b[1:]); !ok {
		return nil, false
	}
	switch s.Kind {
	case unpack.LayerFile:
		size, n := binary.Uvarint(b)
		if n <= 0 || size > 1<<62 || len(b) < n+len(s.Sum) || n != len(binary.AppendUvarint(nil, size)) {
			return nil, false
		}
		s.Size = int64(size)
		copy(s.Sum[:], b[n:])
		b = b[n+len(s.Sum):]
	case unpack.LayerSymlink, unpack.LayerLink:
		if s.Target, b, ok = cutText(b); !ok {
			return nil, false
		}
	}
	return b, true
}

func cutText(b []byte) (string, []byte, bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) || used != len(binary.AppendUvarint(nil, n)) {
		return "", nil, false
	}
	b = b[used:]
	return string(b[:n]), b[n:], true
}

// indexWriter collects an index.
type indexWriter struct {
	buf []byte
}

func newIndexWriter() *indexWriter { return &indexWriter{buf: []byte(indexMagic)} }

func (w *indexWriter) add(s step) error {
	if len(w.buf)+len(s.Name)+len(s.Target) > maxIndex {
		return fmt.Errorf("the names of its entries have more than %d bytes", maxIndex)
	}
	w.buf = appendStep(w.buf, s)
	return nil
}
