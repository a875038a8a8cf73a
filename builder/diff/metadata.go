package diff

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// metadata compares what the file system says of two files.
func (c *comparison) metadata(path string, a, b *unix.Stat_t) []treeDifference {
	var found []treeDifference
	add := func(cause Cause, what, x, y string) {
		if x != y {
			found = append(found, treeDifference{path, cause, what, x, y})
		}
	}
	if !c.opts.Metadata {
		if a.Mode&unix.S_IFMT == unix.S_IFREG {
			add(Mode, "executable bit", executable(a), executable(b))
		}
		return found
	}
	link := a.Mode&unix.S_IFMT == unix.S_IFLNK
	if !link {
		add(Mode, "mode", fmt.Sprintf("%04o", a.Mode&0o7777), fmt.Sprintf("%04o", b.Mode&0o7777))
	}
	add(Owner, "owner", fmt.Sprintf("%d:%d", a.Uid, a.Gid), fmt.Sprintf("%d:%d", b.Uid, b.Gid))
	add(Mtime, "modification time", instant(time.Unix(a.Mtim.Unix())), instant(time.Unix(b.Mtim.Unix())))
	return found
}

func executable(s *unix.Stat_t) string {
	if s.Mode&0o100 != 0 {
		return "executable"
	}
	return "not executable"
}
