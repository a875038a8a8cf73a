package wasi

import (
	"encoding/binary"
	"io"
	"slices"
	"strings"
)

func (s *System) fdAdvise(_ memory, p []uint64) errno {
	if p[3] > 5 {
		return errInvalid
	}
	_, e := s.get(p[0], rightAdvise)
	return e
}

func (s *System) fdAllocate(_ memory, p []uint64) errno {
	d, e := s.getFile(p[0], rightAllocate)
	if e != success {
		return e
	}
	end := p[1] + p[2]
	if p[2] == 0 || end < p[1] || end > maxFileSize {
		return errInvalid
	}
	st, e := d.file.stat()
	if e != success || st.size >= end {
		return e
	}
	return d.file.truncate(int64(end))
}

func (s *System) fdClose(_ memory, p []uint64) errno {
	d, e := s.get(p[0], 0)
	if e != success {
		return e
	}
	s.table[p[0]] = nil
	return d.close()
}

func (s *System) fdSync(_ memory, p []uint64) errno     { return s.sync(p[0], rightSync) }
func (s *System) fdDatasync(_ memory, p []uint64) errno { return s.sync(p[0], rightDatasync) }

func (s *System) sync(fd uint64, need rights) errno {
	d, e := s.get(fd, need)
	if e != success || d.file == nil {
		return e
	}
	return d.file.sync()
}

// fileType returns what a descriptor is to a module.
func (d *descriptor) fileType() fileType {
	switch {
	case d.isDirectory():
		return typeDirectory
	case d.file != nil:
		return typeRegular
	default:
		return typeUnknown
	}
}

func (s *System) fdFdstatGet(m memory, p []uint64) errno {
	d, e := s.get(p[0], 0)
	if e != success {
		return e
	}
	b, e := m.at(p[1], sizeFDStat)
	if e != success {
		return e
	}
	clear(b)
	b[0] = byte(d.fileType())
	binary.LittleEndian.PutUint16(b[2:], d.flags)
	binary.LittleEndian.PutUint64(b[8:], uint64(d.rights))
	binary.LittleEndian.PutUint64(b[16:], uint64(d.inheriting))
	return success
}

func (s *System) fdFdstatSetFlags(_ memory, p []uint64) errno {
	d, e := s.get(p[0], rightSetFlags)
	if e != success {
		return e
	}
	if p[1]&^flagsAll != 0 {
		return errInvalid
	}
	d.flags = uint16(p[1])
	return success
}

func (s *System) fdFdstatSetRights(_ memory, p []uint64) errno {
	d, e := s.get(p[0], 0)
	if e != success {
		return e
	}
	base, inheriting := rights(p[1]), rights(p[2])
	if base&^d.rights != 0 || inheriting&^d.inheriting != 0 {
		return errNotCap
	}
	d.rights, d.inheriting = base, inheriting
	return success
}

func (s *System) fdFilestatGet(m memory, p []uint64) errno {
	d, e := s.get(p[0], rightStat)
	if e != success {
		return e
	}
	var st stat
	if d.isDirectory() || d.file != nil {
		if st, e = s.statOf(d); e != success {
			return e
		}
	}
	b, e := m.at(p[1], sizeFileStat)
	if e == success {
		st.put(b)
	}
	return e
}

func (s *System) fdFilestatSetSize(_ memory, p []uint64) errno {
	d, e := s.getFile(p[0], rightSetSize)
	if e != success {
		return e
	}
	if p[1] > maxFileSize {
		return errFileBig
	}
	return d.file.truncate(int64(p[1]))
}

func (s *System) fdFilestatSetTimes(_ memory, p []uint64) errno {
	d, e := s.get(p[0], rightSetTimes)
	if e != success {
		return e
	}
	accessed, modified, e := s.times(p[1], p[2], p[3])
	if e != success || s.clock.start != nil {
		return e
	}
	if d.file != nil {
		return d.file.setTimes(accessed, modified)
	}
	return s.tree(d).setTimes(d.path, true, accessed, modified)
}

// times returns what two timestamps and fstflags ask for; nil is no change. With a fixed clock files have one time, whatever
// a module sets.
func (s *System) times(accessed, modified, flags uint64) (a, m *int64, e errno) {
	const both, bothNow = setAccess | setAccessNow, setModify | setModifyNow
	if flags&^setTimesAll != 0 || flags&both == both || flags&bothNow == bothNow {
		return nil, nil, errInvalid
	}
	pick := func(value uint64, set, now bool) *int64 {
		t := int64(value)
		switch {
		case now:
			t = s.clock.fileTime()
		case !set:
			return nil
		}
		return &t
	}
	return pick(accessed, flags&setAccess != 0, flags&setAccessNow != 0), pick(modified, flags&setModify != 0, flags&setModifyNow != 0), success
}

func (s *System) fdRead(m memory, p []uint64) errno {
	d, e := s.reader(p[0])
	if e != success {
		return e
	}
	n, e := m.vectors(p[1], p[2], func(b []byte) (int, errno) { return s.read(d, b, &d.offset) })
	if e != success {
		return e
	}
	return m.put32(p[3], n)
}

func (s *System) fdPread(m memory, p []uint64) errno {
	d, e := s.getFile(p[0], 0)
	if e != success {
		return e
	}
	if _, e := s.reader(p[0]); e != success {
		return e
	}
	if int64(p[3]) < 0 {
		return errInvalid
	}
	offset := int64(p[3])
	n, e := m.vectors(p[1], p[2], func(b []byte) (int, errno) { return s.read(d, b, &offset) })
	if e != success {
		return e
	}
	return m.put32(p[4], n)
}

// reader returns a descriptor to read from. Like POSIX it says EBADF where reading is not among the rights.
func (s *System) reader(fd uint64) (*descriptor, errno) {
	d, e := s.get(fd, 0)
	switch {
	case e != success:
		return nil, e
	case d.isDirectory():
		return nil, errIsDir
	case d.rights&rightRead == 0:
		return nil, errBadFD
	}
	return d, success
}

func (s *System) read(d *descriptor, b []byte, offset *int64) (int, errno) {
	if d.file == nil { // stdin is at its end
		return 0, success
	}
	n, e := d.file.readAt(b, *offset)
	s.charge(n)
	*offset += int64(n)
	return n, e
}

func (s *System) fdWrite(m memory, p []uint64) errno {
	d, e := s.writer(p[0])
	if e != success {
		return e
	}
	if d.file != nil && d.flags&flagAppend != 0 {
		st, e := d.file.stat()
		if e != success {
			return e
		}
		d.offset = int64(st.size)
	}
	n, e := m.vectors(p[1], p[2], func(b []byte) (int, errno) { return s.write(p[0], d, b, &d.offset) })
	if e != success {
		return e
	}
	return m.put32(p[3], n)
}

func (s *System) fdPwrite(m memory, p []uint64) errno {
	d, e := s.getFile(p[0], 0)
	if e != success {
		return e
	}
	if _, e := s.writer(p[0]); e != success {
		return e
	}
	if int64(p[3]) < 0 {
		return errInvalid
	}
	offset := int64(p[3])
	n, e := m.vectors(p[1], p[2], func(b []byte) (int, errno) { return s.write(p[0], d, b, &offset) })
	if e != success {
		return e
	}
	return m.put32(p[4], n)
}

func (s *System) writer(fd uint64) (*descriptor, errno) {
	d, e := s.get(fd, 0)
	switch {
	case e != success:
		return nil, e
	case d.isDirectory():
		return nil, errIsDir
	case d.rights&rightWrite == 0:
		return nil, errBadFD
	}
	return d, success
}

func (s *System) write(fd uint64, d *descriptor, b []byte, offset *int64) (int, errno) {
	s.charge(len(b))
	if d.file != nil {
		if *offset > maxFileSize {
			return 0, errFileBig
		}
		n, e := d.file.writeAt(b, *offset)
		*offset += int64(n)
		return n, e
	}
	n, e := len(b), success
	if d.out != nil {
		var err error
		if n, err = d.out.Write(b); err != nil {
			e = errIO
		}
	}
	if d.kind == kindStdout {
		s.written[1] += uint64(n)
	} else {
		s.written[2] += uint64(n)
	}
	return n, e
}

func (s *System) fdSeek(m memory, p []uint64) errno {
	d, e := s.getFile(p[0], 0)
	if e != success {
		return e
	}
	need, base := rightSeek, int64(0)
	switch p[2] {
	case io.SeekStart:
	case io.SeekCurrent:
		base = d.offset
		if p[1] == 0 {
			need = rightTell
		}
	case io.SeekEnd:
		st, e := d.file.stat()
		if e != success {
			return e
		}
		base = int64(st.size)
	default:
		return errInvalid
	}
	if d.rights&need == 0 {
		return errNotCap
	}
	to := base + int64(p[1])
	if to < 0 {
		return errInvalid
	}
	if e := m.put64(p[3], uint64(to)); e != success {
		return e
	}
	d.offset = to
	return success
}

func (s *System) fdTell(m memory, p []uint64) errno {
	d, e := s.getFile(p[0], rightTell)
	if e != success {
		return e
	}
	return m.put64(p[1], uint64(d.offset))
}

// fdRenumber moves a descriptor to the number of another open one, which is closed. Those that were opened beforehand stay.
func (s *System) fdRenumber(_ memory, p []uint64) errno {
	from, e := s.get(p[0], 0)
	if e != success {
		return e
	}
	to, e := s.get(p[1], 0)
	if e != success || p[0] == p[1] {
		return e
	}
	if from.kind == kindPreopen || to.kind == kindPreopen {
		return errNotSup
	}
	s.table[p[0]], s.table[p[1]] = nil, from
	return to.close()
}

func (s *System) fdPrestatGet(m memory, p []uint64) errno {
	d, e := s.get(p[0], 0)
	if e != success {
		return e
	}
	if d.kind != kindPreopen {
		return errBadFD
	}
	b, e := m.at(p[1], sizePrestat)
	if e != success {
		return e
	}
	clear(b) // the first byte, zero, says that it is a directory
	binary.LittleEndian.PutUint32(b[4:], uint32(len(s.config.Dirs[d.dir].Name)))
	return success
}

func (s *System) fdPrestatDirName(m memory, p []uint64) errno {
	d, e := s.get(p[0], 0)
	if e != success {
		return e
	}
	if d.kind != kindPreopen {
		return errBadFD
	}
	name := s.config.Dirs[d.dir].Name
	if p[2] < uint64(len(name)) {
		return errNameLong
	}
	b, e := m.at(p[1], uint64(len(name)))
	if e == success {
		copy(b, name)
	}
	return e
}

// fdReaddir writes entries from a cookie on, as much as fits; an entry that does not fit is cut off, which tells the module
// that there is more. A cookie is the number of the next entry of the listing, which is made anew at cookie zero.
func (s *System) fdReaddir(m memory, p []uint64) errno {
	d, e := s.getDir(p[0], rightReadDir)
	if e != success {
		return e
	}
	if p[3] == 0 || d.listing == nil {
		if d.listing, e = s.list(d); e != success {
			return e
		}
	}
	if p[3] == 0 { // not where a restored System makes it once more
		s.charge(len(d.listing) * sizeDirent)
	}
	if p[3] > uint64(len(d.listing)) {
		return errInvalid
	}
	buffer, e := m.at(p[1], p[2])
	if e != success {
		return e
	}
	free := buffer
	for i := p[3]; i < uint64(len(d.listing)) && len(free) > 0; i++ {
		free = free[copy(free, s.dirent(d, i)):]
	}
	s.charge(len(buffer) - len(free))
	return m.put32(p[4], uint32(len(buffer)-len(free)))
}

func (s *System) list(d *descriptor) ([]entry, errno) {
	list, e := s.tree(d).list(d.path)
	if e != success {
		return nil, e
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return slices.Concat([]entry{{".", typeDirectory}, {"..", typeDirectory}}, list), success
}

// dirent is entry i of d's listing as bytes.
func (s *System) dirent(d *descriptor, i uint64) []byte {
	e := d.listing[i]
	path := join(d.path, e.name)
	switch {
	case e.name == "..": // of a preopened directory it is the directory itself
		path = d.path[:max(0, strings.LastIndexByte(d.path, '/'))]
	case e.name == ".":
		path = d.path
	}
	b := make([]byte, sizeDirent, sizeDirent+len(e.name))
	binary.LittleEndian.PutUint64(b[0:], i+1)
	binary.LittleEndian.PutUint64(b[8:], inode(d.dir, path))
	binary.LittleEndian.PutUint32(b[16:], uint32(len(e.name)))
	b[20] = byte(e.kind)
	return append(b, e.name...)
}
