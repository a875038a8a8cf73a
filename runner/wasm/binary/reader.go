package binary

import (
	"fmt"
	"unicode/utf8"
)

// reader reads numbers and names from part of a module. After its first error it reads zeros, and keeps the error.
type reader struct {
	data    []byte // the module up to the end of this part
	pos     int
	section string
	limits  *Limits
	err     error
}

func (r *reader) failf(format string, args ...any) {
	if r.err == nil {
		r.err = &FormatError{r.section, r.pos, fmt.Sprintf(format, args...)}
	}
	r.pos = len(r.data)
}

func (r *reader) left() int { return len(r.data) - r.pos }

func (r *reader) byte() byte {
	if r.pos >= len(r.data) {
		r.failf("unexpected end")
		return 0
	}
	b := r.data[r.pos]
	r.pos++
	return b
}

func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(r.left()) {
		r.failf("%d bytes announced, %d left", n, r.left())
		return nil
	}
	b := r.data[r.pos : r.pos+int(n) : r.pos+int(n)]
	r.pos += int(n)
	return b
}

// u32 reads an unsigned LEB128 number of at most ceil(32/7) bytes without bits above the 32nd (section 5.2.2).
func (r *reader) u32() uint32 {
	if r.pos < len(r.data) && r.data[r.pos] < 0x80 {
		r.pos++
		return uint32(r.data[r.pos-1])
	}
	var v uint32
	for shift := uint(0); shift < 35; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		if shift == 28 && b > 0x0f {
			r.pos--
			r.failf("number of more than 32 bits")
			return 0
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	return v
}

// signed reads a signed LEB128 number of the given number of bits.
func (r *reader) signed(bits uint) int64 {
	var v int64
	for shift := uint(0); ; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		if rest := bits - shift; rest < 7 { // the last byte: unused bits repeat the sign, and nothing follows
			if top := int8(b<<1) >> rest; b >= 0x80 || top != 0 && top != -1 {
				r.pos--
				r.failf("number of more than %d bits", bits)
				return 0
			}
		}
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			if shift += 7; shift < 64 && b&0x40 != 0 {
				v |= -1 << shift
			}
			return v
		}
	}
}

// count reads how many items follow, each of at least size bytes, and at most limit.
func (r *reader) count(what string, size, limit int) int {
	at := r.pos
	n := r.u32()
	if r.err != nil {
		return 0
	}
	if uint64(n) > uint64(limit) {
		r.pos = at
		r.over(what, uint64(n), limit)
		return 0
	}
	if uint64(n)*uint64(size) > uint64(r.left()) {
		r.pos = at
		r.failf("%d %s announced, %d bytes left", n, what, len(r.data)-at)
		return 0
	}
	return int(n)
}

func (r *reader) over(what string, n uint64, limit int) {
	if r.err == nil {
		r.err = &LimitError{r.section, r.pos, what, n, limit}
	}
	r.pos = len(r.data)
}

// index reads a number below n.
func (r *reader) index(what string, n int) uint32 {
	at := r.pos
	i := r.u32()
	if r.err == nil && uint64(i) >= uint64(n) {
		r.pos = at
		r.failf("%s %d does not exist", what, i)
		return 0
	}
	return i
}

func (r *reader) name() string {
	at := r.pos
	n := r.u32()
	if r.err == nil && uint64(n) > uint64(r.limits.Name) {
		r.pos = at
		r.over("bytes of a name", uint64(n), r.limits.Name)
	}
	b := r.bytes(n)
	if !utf8.Valid(b) {
		r.pos = at
		r.failf("name is not UTF-8")
		return ""
	}
	return string(b)
}

func (r *reader) valType() ValType {
	t := ValType(r.byte())
	if r.err == nil && !t.valid() {
		r.pos--
		if t >= 0x60 && t < 0x6f || t == 0x71 || t == 0x72 || t == 0x73 || t == 0x74 {
			r.failf("type %#x: garbage collection and typed references are not supported", byte(t))
		} else {
			r.failf("%#x is not the type of a value", byte(t))
		}
	}
	return t
}

func (r *reader) refType() ValType {
	t := r.valType()
	if r.err == nil && !t.ref() {
		r.pos--
		r.failf("%#x is not the type of a reference", byte(t))
	}
	return t
}

// bounds reads the limits of a table or memory (section 5.3.5 of the binary format, "Limits").
func (r *reader) bounds(what string) (lo, hi uint32, has bool) {
	switch flag := r.byte(); {
	case r.err != nil:
	case flag == 0:
		lo = r.u32()
	case flag == 1:
		lo, hi, has = r.u32(), r.u32(), true
		if r.err == nil && hi < lo {
			r.failf("%s of at least %d and at most %d", what, lo, hi)
		}
	case flag == 2 || flag == 3:
		r.failf("shared %s: threads are not supported", what)
	case flag <= 7:
		r.failf("64-bit %s is not supported", what)
	default:
		r.failf("flags %#x of a %s", flag, what)
	}
	return lo, hi, has
}

func (r *reader) memory() Memory {
	at := r.pos
	lo, hi, has := r.bounds("memory")
	if r.err != nil {
		return Memory{}
	}
	if uint64(lo) > uint64(r.limits.Pages) {
		r.pos = at
		r.over("initial pages of the memory", uint64(lo), r.limits.Pages)
	}
	if hi > 1<<16 || lo > 1<<16 {
		r.pos = at
		r.failf("memory of more than 65536 pages")
	}
	return Memory{lo, hi, has}
}

func (r *reader) table() Table {
	at := r.pos
	if r.left() > 0 && r.data[r.pos] == 0x40 {
		r.failf("table with an initial value: typed function references are not supported")
	}
	t := r.refType()
	lo, hi, has := r.bounds("table")
	if r.err == nil && uint64(lo) > uint64(r.limits.Elements) {
		r.pos = at
		r.over("initial elements of tables", uint64(lo), r.limits.Elements)
	}
	return Table{t, lo, hi, has}
}

func (r *reader) globalType() GlobalType {
	t := r.valType()
	mut := r.byte()
	if r.err == nil && mut > 1 {
		r.pos--
		r.failf("mutability %#x", mut)
	}
	return GlobalType{t, mut == 1}
}
