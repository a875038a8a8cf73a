package binary

import "math"

// NameSection is the name of the custom section that names functions and variables (section "Name Section" of the appendix on custom
// sections). The specification lets an engine ignore a malformed one; engines believe its counts instead, so Decode checks it.
const NameSection = "name"

// checkNames reads the content of a name section.
func (d *decoder) checkNames(data []byte) {
	n := names{reader: reader{data: d.data, pos: d.pos - len(data), section: "name", limits: d.limits}}
	n.subsections()
	if n.err != nil {
		d.err = n.err
	}
}

// ShiftNames returns the content of a name section that Decode has accepted for a module in which functions from the given
// index on have moved by one. Names of anything but the module, functions and local variables are left out.
func ShiftNames(data []byte, from uint32) []byte {
	n := names{reader: reader{data: data, section: "name", limits: new(Limits)}, from: from, keep: true}
	n.limits.Name = len(data)
	n.subsections()
	return n.out
}

type names struct {
	reader
	from uint32
	keep bool
	out  []byte
}

func (n *names) subsections() {
	whole := n.data
	for n.left() > 0 && n.err == nil {
		id, size := n.byte(), n.u32()
		if n.err == nil && uint64(size) > uint64(n.left()) {
			n.failf("%d bytes announced, %d left", size, n.left())
		}
		if n.err != nil {
			return
		}
		end, at := n.pos+int(size), len(n.out)
		n.data = whole[:end]
		switch id {
		case 0:
			n.copyName()
		case 1:
			n.each(2, n.function, n.copyName)
		case 2:
			n.each(2, n.function, func() { n.each(2, n.local, n.copyName) })
		default:
			n.pos = end
		}
		if n.err == nil && n.pos != end {
			n.failf("%d bytes more than its content", end-n.pos)
		}
		n.data = whole
		n.prepend(at, id)
	}
}

// prepend puts id and size before what was written since at.
func (n *names) prepend(at int, id byte) {
	if content := n.out[at:]; n.keep && len(content) > 0 {
		sized := AppendU32([]byte{id}, uint32(len(content)))
		n.out = append(n.out[:at:at], append(sized, content...)...)
	}
}

// each reads a list of indexes with content.
func (n *names) each(size int, index, content func()) {
	count := n.count("names", size, math.MaxInt)
	n.put(uint32(count))
	for range count {
		if index(); n.err != nil {
			return
		}
		content()
	}
}

func (n *names) function() {
	i := n.u32()
	if i >= n.from {
		i++
	}
	n.put(i)
}

func (n *names) local() { n.put(n.u32()) }

func (n *names) copyName() {
	s := n.name()
	n.put(uint32(len(s)))
	if n.keep {
		n.out = append(n.out, s...)
	}
}

func (n *names) put(v uint32) {
	if n.keep {
		n.out = AppendU32(n.out, v)
	}
}
