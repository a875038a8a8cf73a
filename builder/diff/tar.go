package diff

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tar compares two tar archives.
func (e *explainer) tar(at place, a, b content, depth int) error {
	as, err := e.tarMembers(a)
	if err != nil {
		return fmt.Errorf("first: %w", err)
	}
	bs, err := e.tarMembers(b)
	if err != nil {
		return fmt.Errorf("second: %w", err)
	}
	return e.members(at, "member", as, bs, depth)
}

// tarMembers reads the headers. Contents are read from their place in the archive when they are compared.
func (e *explainer) tarMembers(c content) ([]member, error) {
	src := c.reader()
	r := tar.NewReader(src)
	var list []member
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		if err := e.room(len(list)); err != nil {
			return nil, err
		}
		m, err := e.tarMember(c, src, r, h)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
}

// room returns an error if a list of members is full.
func (e *explainer) room(have int) error {
	if have >= e.opts.Members {
		return &limitError{fmt.Sprintf("it has more than %d members", e.opts.Members)}
	}
	return e.ctx.Err()
}

func (e *explainer) tarMember(c content, src io.Seeker, r *tar.Reader, h *tar.Header) (member, error) {
	m := member{name: h.Name, attributes: tarAttributes(h)}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
		return m, nil
	}
	if sparse(h) {
		body, err := e.store.unpack(e.ctx, r, c.size)
		m.body = fixed(body)
		return m, err
	}
	// Package tar reads headers in whole blocks and nothing ahead, so the content begins where it stands.
	offset, err := src.Seek(0, io.SeekCurrent)
	if err != nil {
		return member{}, err
	}
	if h.Size > c.size-offset {
		return member{}, io.ErrUnexpectedEOF
	}
	m.body = fixed(c.section(offset, h.Size))
	return m, nil
}

// sparse reports whether a member's content is written with holes.
func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func tarAttributes(h *tar.Header) []attribute {
	list := []attribute{
		{"type", tarType(h.Typeflag), Type},
		{"mode", fmt.Sprintf("%04o", h.Mode), Mode},
		{"owner", owner(h.Uid, h.Uname), Owner},
		{"group", owner(h.Gid, h.Gname), Owner},
		{"modification time", instant(h.ModTime), Mtime},
		{"link target", h.Linkname, Target},
		{"device", fmt.Sprintf("%d, %d", h.Devmajor, h.Devminor), Content},
		{"access time", instant(h.AccessTime), Mtime},
		{"change time", instant(h.ChangeTime), Mtime},
	}
	return append(list, attribute{"extended header", paxText(h.PAXRecords), Content})
}

// paxText writes the extended header records that the other attributes do not show.
func paxText(records map[string]string) string {
	var text []string
	for _, key := range slices.Sorted(maps.Keys(records)) {
		switch key {
		case "path", "linkpath", "size", "uid", "gid", "uname", "gname", "mtime", "atime", "ctime":
		default:
			text = append(text, key+"="+records[key])
		}
	}
	return strings.Join(text, " ")
}

func tarType(flag byte) string {
	switch flag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return "file"
	case tar.TypeLink:
		return "hard link"
	case tar.TypeSymlink:
		return "symbolic link"
	case tar.TypeDir:
		return "directory"
	case tar.TypeChar, tar.TypeBlock:
		return "device"
	case tar.TypeFifo:
		return "FIFO"
	default:
		return "type " + strconv.Quote(string(rune(flag)))
	}
}

func owner(id int, name string) string {
	if name == "" {
		return strconv.Itoa(id)
	}
	return strconv.Itoa(id) + " " + name
}

func instant(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.UTC().Format(time.RFC3339Nano)
}
