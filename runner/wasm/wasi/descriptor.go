package wasi

import (
	"hash/fnv"
	"io"
	"strings"
)

// kind says what a descriptor is. The words are those of a State.
type kind string

const (
	kindStdin     kind = "stdin"
	kindStdout    kind = "stdout"
	kindStderr    kind = "stderr"
	kindPreopen   kind = "preopen"
	kindDirectory kind = "directory"
	kindFile      kind = "file"
)

// descriptor is one entry of the table.
type descriptor struct {
	kind       kind
	rights     rights // what may be done with it
	inheriting rights // what may be done with what is opened below it
	flags      uint16 // fdflags

	dir     int    // index in Config.Dirs of what path is relative to
	path    string // of a directory or file; "" for a preopened one
	file    file   // of a file
	offset  int64  // of a file
	removed bool   // its name is gone

	out     io.Writer // of stdout and stderr
	listing []entry   // of a directory: what the last reading from its beginning found, "." and ".." first
}

// maxDescriptors is how many may be open at a time.
const maxDescriptors = 4096

func preopened(i int, dir Dir) *descriptor {
	d := &descriptor{kind: kindPreopen, dir: i, rights: readDirRights, inheriting: readDirRights | readFileRights}
	if dir.Writable {
		d.rights |= writeDirRights
		d.inheriting |= writeDirRights | writeFileRights
	}
	return d
}

func (d *descriptor) isDirectory() bool { return d.kind == kindPreopen || d.kind == kindDirectory }

// get returns an open descriptor that has the rights.
func (s *System) get(fd uint64, need rights) (*descriptor, errno) {
	if fd >= uint64(len(s.table)) || s.table[fd] == nil {
		return nil, errBadFD
	}
	d := s.table[fd]
	if d.rights&need != need {
		return nil, errNotCap
	}
	return d, success
}

// getFile returns an open regular file that has the rights.
func (s *System) getFile(fd uint64, need rights) (*descriptor, errno) {
	d, e := s.get(fd, 0)
	switch {
	case e != success:
		return nil, e
	case d.isDirectory():
		return nil, errIsDir
	case d.file == nil:
		return nil, errSeekPipe
	}
	return s.get(fd, need)
}

// getDir returns an open directory that has the rights. It tells of a read-only file system before it tells of rights.
func (s *System) getDir(fd uint64, need rights) (*descriptor, errno) {
	d, e := s.get(fd, 0)
	switch {
	case e != success:
		return nil, e
	case !d.isDirectory():
		return nil, errNotDir
	case need&(writeDirRights|writeFileRights) != 0 && !s.config.Dirs[d.dir].Writable:
		return nil, errReadOnly
	}
	return s.get(fd, need)
}

// add puts d at the lowest free number.
func (s *System) add(d *descriptor) (fd int, e errno) {
	for i, old := range s.table {
		if old == nil {
			s.table[i] = d
			return i, success
		}
	}
	if len(s.table) >= maxDescriptors {
		return 0, errManyFiles
	}
	s.table = append(s.table, d)
	return len(s.table) - 1, success
}

// full reports whether add would fail.
func (s *System) full() bool {
	if len(s.table) < maxDescriptors {
		return false
	}
	for _, d := range s.table {
		if d == nil {
			return false
		}
	}
	return true
}

func (d *descriptor) close() errno {
	if d.file == nil {
		return success
	}
	return d.file.close()
}

// tree returns the tree that d's path is in.
func (s *System) tree(d *descriptor) Tree { return s.config.Dirs[d.dir].Tree }

// statOf asks for the state of an open directory or file.
func (s *System) statOf(d *descriptor) (stat, errno) {
	var st stat
	var e errno
	if d.file != nil {
		st, e = d.file.stat()
	} else {
		st, e = s.tree(d).stat(d.path, true)
	}
	return s.shown(st, d.dir, d.path), e
}

// shown is st as a module sees it. Numbers of devices and inodes are made of names, so that they are the same on every host:
// two names of one file look like two files. With a fixed clock, so do times, the size of directories and counts of links.
func (s *System) shown(st stat, dir int, path string) stat {
	st.device, st.inode = uint64(dir)+1, inode(dir, path)
	if s.clock.start != nil {
		t := s.clock.fileTime()
		st.accessed, st.modified, st.status, st.links = t, t, t, 1
		if st.kind == typeDirectory {
			st.size = 0
		}
	}
	return st
}

// inode makes the number of a name: never zero, which some programs take for an entry that is not there.
func inode(dir int, path string) uint64 {
	h := fnv.New64a()
	h.Write([]byte{byte(dir)})
	for part := range strings.SplitSeq(path, "/") {
		if part != "" && part != "." {
			io.WriteString(h, "/"+part)
		}
	}
	return h.Sum64() | 1
}

// join puts a path, checked by check, behind a directory's. It is not cleaned: ".." behind a link means the link's target's
// parent.
func join(dir, path string) string {
	if dir == "" {
		return path
	}
	return dir + "/" + path
}

// below returns the path that a call names, relative to the tree of d.
func (m memory) below(d *descriptor, pointer, size uint64) (string, errno) {
	if size > maxPath {
		return "", errNameLong
	}
	b, e := m.at(pointer, size)
	if e != success {
		return "", e
	}
	path := string(b)
	if e := check(path); e != success {
		return "", e
	}
	if len(d.path)+len(path) >= maxPath {
		return "", errNameLong
	}
	return join(d.path, path), success
}

// check refuses what no path is, and what leaves its directory by its own words. What leaves it by links, the tree refuses.
func check(path string) errno {
	switch {
	case path == "":
		return errNoEntry
	case strings.ContainsRune(path, 0):
		return errSequence
	case path[0] == '/':
		return errPerm
	}
	depth := 0
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return errPerm
			}
		default:
			depth++
		}
	}
	return success
}
