package diff

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"io"

	"arch.network/builder/source/unpack"
)

// zip compares two zip archives.
func (e *explainer) zip(at place, a, b content, depth int) error {
	as, commentA, err := e.zipMembers(a)
	if err != nil {
		return fmt.Errorf("first: %w", err)
	}
	bs, commentB, err := e.zipMembers(b)
	if err != nil {
		return fmt.Errorf("second: %w", err)
	}
	if commentA != commentB {
		cause := textCause(commentA, commentB)
		e.addValues(at, cause, "The comment of the archive differs.", commentA, commentB)
	}
	return e.members(at, "member", as, bs, depth)
}

func (e *explainer) zipMembers(c content) (list []member, comment string, err error) {
	r, err := unpack.OpenZip(c.r, c.size)
	if err != nil {
		return nil, "", err
	}
	if err := e.room(len(r.File)); err != nil {
		return nil, "", err
	}
	for _, f := range r.File {
		list = append(list, e.zipMember(c, f))
	}
	return list, r.Comment, nil
}

func (e *explainer) zipMember(c content, f *zip.File) member {
	m := member{name: f.Name, attributes: zipAttributes(f)}
	m.packed = func() (content, error) {
		offset, err := f.DataOffset()
		if err != nil {
			return content{}, err
		}
		size := int64(min(f.CompressedSize64, uint64(c.size)))
		if offset < 0 || offset > c.size || size > c.size-offset {
			return content{}, io.ErrUnexpectedEOF
		}
		return c.section(offset, size), nil
	}
	m.body = func() (content, error) {
		packed, err := m.packed()
		if err != nil || f.Method == zip.Store {
			return packed, err
		}
		r, err := f.Open()
		if err != nil {
			return content{}, err
		}
		defer r.Close()
		return e.store.unpack(e.ctx, r, packed.size)
	}
	return m
}

func zipAttributes(f *zip.File) []attribute {
	list := []attribute{
		{"mode", f.Mode().String(), Mode},
		{"modification time", instant(f.Modified), Mtime},
		{"DOS time", fmt.Sprintf("%04x %04x", f.ModifiedDate, f.ModifiedTime), Mtime},
		{"compression method", fmt.Sprint(f.Method), Compressor},
		{"version of the archiver", fmt.Sprintf("%#04x", f.CreatorVersion), Compressor},
		{"attributes", fmt.Sprintf("%#08x", f.ExternalAttrs), Mode},
		{"comment", f.Comment, Content},
	}
	return append(list, zipExtra(f.Extra)...)
}

// zipExtra are the extra fields that hold times and owners (Info-ZIP's proginfo/extrafld.txt), and the others together.
func zipExtra(extra []byte) []attribute {
	times := attribute{"extra field of times", "", Mtime}
	owners := attribute{"extra field of owners", "", Owner}
	others := attribute{"extra field", "", Content}
	for len(extra) >= 4 {
		id, size := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		size = min(size, len(extra)-4)
		text := fmt.Sprintf("%04x:%x ", id, extra[4:4+size])
		switch id {
		case 0x5455, 0x5855, 0x000a: // extended timestamp, old Info-ZIP Unix, NTFS
			times.value += text
		case 0x7875, 0x7855: // Info-ZIP Unix with ids
			owners.value += text
		default:
			others.value += text
		}
		extra = extra[4+size:]
	}
	return []attribute{times, owners, others}
}
