package diff

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// The format of ar archives, ar(5): a magic line, then for each member a header of 60 bytes, the content and a newline if its
// size is odd. Long names are in GNU's member "//" or, in BSD's form "#1/LENGTH", before the content.
const (
	arMagic  = "!<arch>\n"
	arHeader = 60
)

// arMember is a member of an ar archive.
type arMember struct {
	name             string
	mtime, uid, gid  int64
	mode             int64
	offset, size     int64 // of the content in the archive
	symbols, strings bool  // the archive's symbol table; GNU's table of long names
}

// ar compares two ar archives, such as static libraries and Debian packages.
func (e *explainer) ar(at place, a, b content, depth int) error {
	as, err := e.arMembers(a)
	if err != nil {
		return fmt.Errorf("first: %w", err)
	}
	bs, err := e.arMembers(b)
	if err != nil {
		return fmt.Errorf("second: %w", err)
	}
	return e.members(at, "member", as, bs, depth)
}

func (e *explainer) arMembers(c content) ([]member, error) {
	parsed, err := parseAr(c, e.opts.Members)
	if err != nil {
		return nil, err
	}
	var list []member
	for _, m := range parsed {
		list = append(list, member{name: m.name, body: fixed(c.section(m.offset, m.size)), attributes: []attribute{
			{"mode", fmt.Sprintf("%04o", m.mode), Mode},
			{"owner", strconv.FormatInt(m.uid, 10), Owner},
			{"group", strconv.FormatInt(m.gid, 10), Owner},
			{"modification time", time.Unix(m.mtime, 0).UTC().Format(time.RFC3339), Mtime},
		}})
	}
	return list, nil
}

// parseAr reads the headers of at most limit members.
func parseAr(c content, limit int) ([]arMember, error) {
	magic, err := c.head(int64(len(arMagic)))
	if err != nil {
		return nil, err
	}
	if string(magic) != arMagic {
		return nil, fmt.Errorf("it begins with %q, not %q", magic, arMagic)
	}
	var list []arMember
	var names []byte // GNU's table of long names
	for offset := int64(len(arMagic)); offset < c.size; {
		if len(list) >= limit {
			return nil, &limitError{fmt.Sprintf("it has more than %d members", limit)}
		}
		m, err := readArMember(c, offset, names)
		if err != nil {
			return nil, fmt.Errorf("member at byte %d: %w", offset, err)
		}
		if m.strings {
			if names, err = c.at(m.offset, min(m.size, maxText)); err != nil {
				return nil, err
			}
		}
		list = append(list, m)
		offset = m.offset + m.size + m.size&1
	}
	return list, nil
}

func readArMember(c content, offset int64, names []byte) (arMember, error) {
	h, err := c.at(offset, arHeader)
	if err != nil {
		return arMember{}, err
	}
	if len(h) < arHeader {
		return arMember{}, io.ErrUnexpectedEOF
	}
	if string(h[58:60]) != "`\n" {
		return arMember{}, fmt.Errorf("its header ends in %q", h[58:60])
	}
	m := arMember{offset: offset + arHeader}
	fields := []struct {
		to       *int64
		from     []byte
		base     int
		required bool
	}{{&m.mtime, h[16:28], 10, false}, {&m.uid, h[28:34], 10, false}, {&m.gid, h[34:40], 10, false}, {&m.mode, h[40:48], 8, false}, {&m.size, h[48:58], 10, true}}
	for _, f := range fields {
		text := strings.TrimRight(string(f.from), " ")
		if text == "" && !f.required {
			continue // GNU leaves them empty in the table of long names
		}
		if *f.to, err = strconv.ParseInt(text, f.base, 64); err != nil || *f.to < 0 {
			return arMember{}, fmt.Errorf("its header has the number %q", text)
		}
	}
	if m.size > c.size-m.offset {
		return arMember{}, io.ErrUnexpectedEOF
	}
	return m, m.setName(c, strings.TrimRight(string(h[:16]), " "), names)
}

// setName finds the name of a member, which may be somewhere else than in its header.
func (m *arMember) setName(c content, name string, names []byte) error {
	switch {
	case name == "/" || name == "/SYM64/" || strings.HasPrefix(name, "__.SYMDEF"):
		m.name, m.symbols = "symbol table", true
	case name == "//":
		m.name, m.strings = "table of long names", true
	case strings.HasPrefix(name, "#1/"):
		length, err := strconv.ParseInt(name[3:], 10, 32)
		if err != nil || length < 0 || length > m.size || length > 4096 {
			return fmt.Errorf("its name has the length %q", name[3:])
		}
		long, err := c.at(m.offset, length)
		if err != nil {
			return err
		}
		m.name = string(bytes.TrimRight(long, "\x00"))
		m.offset, m.size = m.offset+length, m.size-length
	case strings.HasPrefix(name, "/"):
		at, err := strconv.ParseUint(name[1:], 10, 32)
		if err != nil || at >= uint64(len(names)) {
			return fmt.Errorf("its name %q is not in the table of long names", name)
		}
		long, _, _ := bytes.Cut(names[at:], []byte("\n"))
		m.name = strings.TrimSuffix(string(long[:min(len(long), 4096)]), "/")
	default:
		m.name = strings.TrimSuffix(name, "/")
	}
	return nil
}
