package wasi

import (
	"slices"
	"strings"
)

func (s *System) pathOpen(m memory, p []uint64) errno {
	dir, e := s.getDir(p[0], rightOpen)
	if e != success {
		return e
	}
	path, e := m.below(dir, p[2], p[3])
	if e != success {
		return e
	}
	if p[1]&^lookupFollow != 0 || p[4]&^openFlagsAll != 0 || p[7]&^flagsAll != 0 {
		return errInvalid
	}
	asked := rights(p[5])
	how := opening{
		read: asked&rightRead != 0, write: asked&rightWrite != 0, follow: p[1]&lookupFollow != 0,
		create: p[4]&openCreate != 0, directory: p[4]&openDirectory != 0,
		exclusive: p[4]&openExclusive != 0, truncate: p[4]&openTruncate != 0,
	}
	how.write = how.write && !how.directory // many ask for all rights on a directory
	if how.create && how.directory {
		return errInvalid
	}
	if e := s.mayOpen(p[0], dir, how); e != success {
		return e
	}
	if s.full() {
		return errManyFiles
	}
	f, st, e := s.tree(dir).open(path, how)
	if e != success {
		return e
	}
	d := &descriptor{kind: kindFile, dir: dir.dir, path: path, file: f, flags: uint16(p[7])}
	d.rights, d.inheriting = asked&dir.inheriting, rights(p[6])&dir.inheriting
	switch {
	case st.kind == typeDirectory:
		d.kind = kindDirectory
		d.rights &= readDirRights | writeDirRights
	case how.write:
		d.rights &= readFileRights | writeFileRights
	default: // many, Go among them, ask for the right to set the size of what they read
		d.rights &= readFileRights | rightDatasync | rightSync
	}
	fd, e := s.add(d)
	if e != success {
		return e
	}
	if e := m.put32(p[8], uint32(fd)); e != success {
		s.table[fd] = nil
		d.close()
		return e
	}
	return success
}

// mayOpen checks what opening needs beside the right to open.
func (s *System) mayOpen(fd uint64, dir *descriptor, how opening) errno {
	var need rights
	if how.create {
		need |= rightCreateFile
	}
	if how.truncate {
		need |= rightPathSetSize
	}
	if _, e := s.getDir(fd, need); e != success {
		return e
	}
	if how.write && !s.config.Dirs[dir.dir].Writable {
		return errReadOnly
	}
	if how.write && dir.inheriting&rightWrite == 0 {
		return errNotCap
	}
	return success
}

// at finds the directory and the path that a call names.
func (s *System) at(m memory, fd, pointer, size uint64, need rights) (*descriptor, string, errno) {
	d, e := s.getDir(fd, need)
	if e != success {
		return nil, "", e
	}
	path, e := m.below(d, pointer, size)
	return d, path, e
}

func (s *System) pathFilestatGet(m memory, p []uint64) errno {
	d, path, e := s.at(m, p[0], p[2], p[3], rightPathStat)
	if e != success {
		return e
	}
	st, e := s.tree(d).stat(path, p[1]&lookupFollow != 0)
	if e != success {
		return e
	}
	b, e := m.at(p[4], sizeFileStat)
	if e == success {
		s.shown(st, d.dir, path).put(b)
	}
	return e
}

func (s *System) pathFilestatSetTimes(m memory, p []uint64) errno {
	d, path, e := s.at(m, p[0], p[2], p[3], rightPathSetTimes)
	if e != success {
		return e
	}
	accessed, modified, e := s.times(p[4], p[5], p[6])
	if e != success {
		return e
	}
	follow := p[1]&lookupFollow != 0
	if s.clock.start != nil {
		_, e := s.tree(d).stat(path, follow)
		return e
	}
	return s.tree(d).setTimes(path, follow, accessed, modified)
}

func (s *System) pathCreateDirectory(m memory, p []uint64) errno {
	d, path, e := s.at(m, p[0], p[1], p[2], rightCreateDirectory)
	if e != success {
		return e
	}
	return s.tree(d).mkdir(path)
}

func (s *System) pathRemoveDirectory(m memory, p []uint64) errno {
	d, path, e := s.at(m, p[0], p[1], p[2], rightRemoveDirectory)
	if e != success {
		return e
	}
	if e = s.tree(d).rmdir(path); e == success {
		s.removed(d.dir, path)
	}
	return e
}

func (s *System) pathUnlinkFile(m memory, p []uint64) errno {
	d, path, e := s.at(m, p[0], p[1], p[2], rightUnlink)
	if e != success {
		return e
	}
	if e = s.tree(d).unlink(path); e == success {
		s.removed(d.dir, path)
	}
	return e
}

func (s *System) pathRename(m memory, p []uint64) errno {
	from, source, e := s.at(m, p[0], p[1], p[2], rightRenameSource)
	if e != success {
		return e
	}
	to, target, e := s.at(m, p[3], p[4], p[5], rightRenameTarget)
	if e != success {
		return e
	}
	if from.dir != to.dir {
		return errCrossDev
	}
	if e := s.tree(from).rename(source, target); e != success {
		return e
	}
	s.renamed(from.dir, source, target)
	return success
}

func (s *System) pathLink(m memory, p []uint64) errno {
	from, source, e := s.at(m, p[0], p[2], p[3], rightLinkSource)
	if e != success {
		return e
	}
	to, target, e := s.at(m, p[4], p[5], p[6], rightLinkTarget)
	if e != success {
		return e
	}
	switch {
	case p[1]&lookupFollow != 0:
		return errInvalid // as others do: POSIX leaves it open
	case from.dir != to.dir:
		return errCrossDev
	}
	return s.tree(from).link(source, target)
}

// pathSymlink makes a relative link. What it points to need not exist, and is looked at when the link is followed.
func (s *System) pathSymlink(m memory, p []uint64) errno {
	d, path, e := s.at(m, p[2], p[3], p[4], rightSymlink)
	if e != success {
		return e
	}
	if p[1] > maxPath-1 {
		return errNameLong
	}
	b, e := m.at(p[0], p[1])
	if e != success {
		return e
	}
	target := string(b)
	switch {
	case target == "":
		return errNoEntry
	case strings.ContainsRune(target, 0):
		return errSequence
	case target[0] == '/':
		return errPerm
	}
	return s.tree(d).symlink(target, path)
}

func (s *System) pathReadlink(m memory, p []uint64) errno {
	d, path, e := s.at(m, p[0], p[1], p[2], rightReadLink)
	if e != success {
		return e
	}
	target, e := s.tree(d).readlink(path)
	if e != success {
		return e
	}
	b, e := m.at(p[3], p[4])
	if e != success {
		return e
	}
	return m.put32(p[5], uint32(copy(b, target)))
}

// removed notes that open descriptors of path have no name any more.
func (s *System) removed(dir int, path string) {
	for _, d := range s.table {
		if d != nil && d.dir == dir && (d.kind == kindFile || d.kind == kindDirectory) && same(d.path, path) {
			d.removed = true
		}
	}
}

// renamed gives open descriptors of and below a path their new names.
func (s *System) renamed(dir int, from, to string) {
	s.removed(dir, to)
	old := parts(from)
	for _, d := range s.table {
		if d == nil || d.dir != dir || d.removed || (d.kind != kindFile && d.kind != kindDirectory) {
			continue
		}
		if have := parts(d.path); len(have) >= len(old) && slices.Equal(have[:len(old)], old) {
			d.path = strings.Join(append([]string{strings.TrimRight(to, "/")}, have[len(old):]...), "/")
			d.listing = nil
		}
	}
}

func same(a, b string) bool { return slices.Equal(parts(a), parts(b)) }

func parts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}
