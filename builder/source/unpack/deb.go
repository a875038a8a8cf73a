package unpack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The format of deb(5) and ar(5).
const (
	arMagic     = "!<arch>\n"
	arHeader    = 60 // bytes
	arEnd       = "`\n"
	arMembers   = 16 // a deb has three
	debBinary   = "debian-binary"
	debVersion  = "2." // minor versions may come
	debData     = "data.tar"
	debMaxIntro = 1 << 10 // bytes of the debian-binary member
)

// Deb unpacks the file system of a Debian binary package (deb(5)): its data.tar, compressed in any way that Tar knows.
// Its control part is not looked at, and no script of it is ever run. Where the tree has a symbolic link to a
// directory, a directory of the same name in the package means that one, as for dpkg. The tree should be a RootFS.
func (t *Tree) Deb(ctx context.Context, r io.Reader, strip int) error {
	keep := t.keepDirLinks
	t.keepDirLinks = true
	defer func() { t.keepDirLinks = keep }()

	ar := &arReader{r: bufio.NewReader(r)}
	if err := ar.open(); err != nil {
		return fmt.Errorf("read package: %w", err)
	}
	for n := range arMembers {
		m, err := ar.next()
		if err == io.EOF {
			return errors.New("read package: no data.tar member")
		}
		if err != nil {
			return fmt.Errorf("read package: %w", err)
		}
		if n == 0 {
			if err := checkDeb(m); err != nil {
				return err
			}
			continue
		}
		if m.name == debData || strings.HasPrefix(m.name, debData+".") {
			return t.Tar(ctx, m, strip)
		}
	}
	return &LimitError{"package members", arMembers}
}

func checkDeb(m *arMember) error {
	if m.name != debBinary || m.left > debMaxIntro {
		return fmt.Errorf("read package: first member is %q, not %q", clip(m.name), debBinary)
	}
	version, err := io.ReadAll(m)
	if err != nil {
		return fmt.Errorf("read package: %w", err)
	}
	if !strings.HasPrefix(string(version), debVersion) {
		return fmt.Errorf("read package: format version %q is unknown", clip(string(version)))
	}
	return nil
}

// arReader reads the members of an ar archive in the common and the GNU spelling of short names.
type arReader struct {
	r   *bufio.Reader
	cur *arMember
}

// arMember is one member; it reads its content.
type arMember struct {
	name string
	size int64
	left int64
	r    *bufio.Reader
}

func (m *arMember) Read(p []byte) (int, error) {
	if m.left == 0 {
		return 0, io.EOF
	}
	n, err := m.r.Read(p[:min(int64(len(p)), m.left)])
	m.left -= int64(n)
	if err == io.EOF && m.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

func (a *arReader) open() error {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(a.r, magic); err != nil || string(magic) != arMagic {
		return errors.New("not an ar archive")
	}
	return nil
}

// next goes to the next member. It returns io.EOF at the end of the archive.
func (a *arReader) next() (*arMember, error) {
	if a.cur != nil {
		if _, err := io.Copy(io.Discard, a.cur); err != nil {
			return nil, err
		}
		if a.cur.size%2 == 1 {
			if _, err := a.r.Discard(1); err != nil {
				return nil, err
			}
		}
	}
	h := make([]byte, arHeader)
	if _, err := io.ReadFull(a.r, h); err != nil {
		return nil, err
	}
	if string(h[58:60]) != arEnd {
		return nil, errors.New("ar member header is damaged")
	}
	size, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 40)
	if err != nil {
		return nil, fmt.Errorf("ar member size %q is no number", h[48:58])
	}
	name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	a.cur = &arMember{name: name, size: int64(size), left: int64(size), r: a.r}
	return a.cur, nil
}
