package diff

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The format of WebAssembly modules, core specification 2.0, section 5.5: magic, version, then sections: a byte, a size, the content.
// A custom section's content begins with its name.
const (
	wasmMagic   = "\x00asm"
	wasmHeader  = 8
	maxWasmName = 1024 // bytes of a custom section's name
)

// wasmSection is a section of a module.
type wasmSection struct {
	name         string
	custom       bool
	offset, size int64 // of the content in the module, behind a custom section's name
}

// wasm compares two WebAssembly modules or components section by section.
func (e *explainer) wasm(at place, a, b content, depth int) error {
	as, err := e.wasmMembers(a)
	if err != nil {
		return fmt.Errorf("first: %w", err)
	}
	bs, err := e.wasmMembers(b)
	if err != nil {
		return fmt.Errorf("second: %w", err)
	}
	return e.members(at, "section", as, bs, depth)
}

func (e *explainer) wasmMembers(c content) ([]member, error) {
	sections, err := parseWasm(c, e.opts.Members)
	if err != nil {
		return nil, err
	}
	list := []member{{name: "version", body: fixed(c.section(0, wasmHeader))}}
	for _, s := range sections {
		m := member{name: s.name + " section", body: fixed(c.section(s.offset, s.size))}
		if s.custom {
			m.name = "custom section " + s.name
			m.build = s.name == "build_id"
		}
		list = append(list, m)
	}
	return list, nil
}

// parseWasm finds at most limit sections.
func parseWasm(c content, limit int) ([]wasmSection, error) {
	head, err := c.head(wasmHeader)
	if err != nil {
		return nil, err
	}
	if len(head) < wasmHeader || string(head[:4]) != wasmMagic {
		return nil, fmt.Errorf("it begins with %q", head)
	}
	var list []wasmSection
	for offset := int64(wasmHeader); offset < c.size; {
		if len(list) >= limit {
			return nil, &limitError{fmt.Sprintf("it has more than %d sections", limit)}
		}
		s, err := readWasmSection(c, offset)
		if err != nil {
			return nil, fmt.Errorf("section at byte %d: %w", offset, err)
		}
		list = append(list, s)
		offset = s.offset + s.size
	}
	return list, nil
}

func readWasmSection(c content, offset int64) (wasmSection, error) {
	id, err := c.at(offset, 1)
	if err != nil {
		return wasmSection{}, err
	}
	size, n, err := readU32(c, offset+1)
	if err != nil {
		return wasmSection{}, err
	}
	s := wasmSection{name: wasmSectionName(id[0]), offset: offset + 1 + n, size: size}
	if s.size > c.size-s.offset {
		return wasmSection{}, io.ErrUnexpectedEOF
	}
	if id[0] != 0 {
		return s, nil
	}
	length, n, err := readU32(c.section(s.offset, s.size), 0)
	if err != nil {
		return wasmSection{}, err
	}
	if length > maxWasmName || n+length > s.size {
		return wasmSection{}, fmt.Errorf("its name has %d bytes", length)
	}
	name, err := c.at(s.offset+n, length)
	if err != nil {
		return wasmSection{}, err
	}
	return wasmSection{name: string(name), custom: true, offset: s.offset + n + length, size: s.size - n - length}, nil
}

// readU32 reads an unsigned LEB128 number of at most 32 bits and tells how many bytes it takes.
func readU32(c content, offset int64) (value, size int64, err error) {
	b, err := c.at(offset, 5)
	if err != nil {
		return 0, 0, err
	}
	v, n := binary.Uvarint(b)
	if n <= 0 || v > 1<<32-1 {
		return 0, 0, fmt.Errorf("its length is not a number of 32 bits")
	}
	return int64(v), int64(n), nil
}

func wasmSectionName(id byte) string {
	names := []string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count", "tag"}
	if int(id) < len(names) {
		return names[id]
	}
	return fmt.Sprintf("unknown %d", id)
}
