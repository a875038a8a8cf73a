package namespace

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// vdso is the change to the vDSO (vdso(7)), the kernel's code in each program that reads the clock without a system call:
// its symbols come to name functions, put behind its end, that call the kernel's and add the offset. Only the copy of
// the program that has just been executed changes, and of what that forks.
type vdso struct {
	original []byte // of this process; the kernel gives all programs the same
	changed  []byte
	stubs    int // where the functions begin
	end      int
}

// maxVDSO bounds the size of the image; kernels have two pages.
const maxVDSO = 64 << 10 // bytes

// symbolSize is the size of an entry of the symbol table, and symbolValue the place of the address in it (elf(5): Elf64_Sym).
const (
	symbolSize  = 24
	symbolValue = 8
)

// newVDSO prepares the change that adds offset.
func newVDSO(offset time.Duration) (*vdso, error) {
	image, err := ownVDSO()
	if err != nil {
		return nil, err
	}
	return changeVDSO(image, offset)
}

// ownVDSO returns the image in this process.
func ownVDSO() ([]byte, error) {
	vector, err := unix.Auxv()
	if err != nil {
		return nil, err
	}
	for _, entry := range vector {
		if entry[0] == auxVDSO {
			return imageAt(entry[1])
		}
	}
	return nil, errors.New("this process has no vDSO")
}

// imageAt copies the image at base, in whole pages.
func imageAt(base uintptr) ([]byte, error) {
	head := make([]byte, headSize)
	if !readBytes(unix.Getpid(), uint64(base), head) {
		return nil, errors.New("the vDSO cannot be read")
	}
	size, err := imageSize(head)
	if err != nil {
		return nil, err
	}
	image := make([]byte, (size+pageSize-1)/pageSize*pageSize)
	if !readBytes(unix.Getpid(), uint64(base), image) {
		return nil, errors.New("the vDSO cannot be read")
	}
	return image, nil
}

// headSize is the size of Elf64_Ehdr.
const headSize = 64

// imageSize returns where the last part of an image ends: the section headers (elf(5): e_shoff, e_shentsize, e_shnum).
func imageSize(head []byte) (int, error) {
	sections := binary.NativeEndian.Uint64(head[40:])
	size := uint64(binary.NativeEndian.Uint16(head[58:])) * uint64(binary.NativeEndian.Uint16(head[60:]))
	if sections > maxVDSO || sections+size > maxVDSO {
		return 0, fmt.Errorf("the vDSO is larger than %d bytes", maxVDSO)
	}
	return int(sections + size), nil
}

// changeVDSO changes a copy of image.
func changeVDSO(image []byte, offset time.Duration) (*vdso, error) {
	size, err := imageSize(image)
	if err != nil {
		return nil, err
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, fmt.Errorf("read vDSO: %w", err)
	}
	table := file.SectionByType(elf.SHT_DYNSYM)
	symbols, err := file.DynamicSymbols()
	if err != nil || table == nil {
		return nil, fmt.Errorf("read symbols of vDSO: %w", err)
	}
	place := (size + 15) &^ 15
	where := map[string]int{}
	for _, s := range symbols {
		where[s.Name] = int(s.Value)
	}
	stubs, entries, err := clockStubs(where, place, offset)
	if err != nil {
		return nil, err
	}
	if place+len(stubs) > len(image) || len(bytes.TrimRight(image[place:], "\x00")) > 0 {
		return nil, errors.New("the vDSO has no room")
	}
	v := &vdso{original: image, changed: bytes.Clone(image), stubs: place, end: place + len(stubs)}
	copy(v.changed[place:], stubs)
	for n, s := range symbols {
		if entry, ok := entries[s.Name]; ok {
			at := int(table.Offset) + (n+1)*symbolSize + symbolValue // DynamicSymbols leaves out the first, which is null
			binary.NativeEndian.PutUint64(v.changed[at:], uint64(entry))
		}
	}
	return v, nil
}

// install changes the vDSO at base of the stopped thread tid. It reports false where that is not the one that is known.
func (v *vdso) install(tid int, base uint64) bool {
	there := make([]byte, len(v.original))
	if !readBytes(tid, base, there) || !bytes.Equal(there, v.original) {
		return false
	}
	for at := 0; at < len(there); at += 8 {
		word := v.changed[at : at+8]
		if bytes.Equal(word, v.original[at:at+8]) {
			continue
		}
		value := binary.NativeEndian.Uint64(word)
		if ptrace(unix.PTRACE_POKEDATA, tid, uintptr(base)+uintptr(at), uintptr(value)) != nil {
			return false
		}
	}
	return true
}

// made reports whether the call at instruction is made by a changed vDSO, as it does where it cannot read the clock itself.
func (v *vdso) made(tid int, instruction uint64) bool {
	if v == nil {
		return false
	}
	there := make([]byte, v.end-v.stubs)
	page := instruction &^ (pageSize - 1)
	for before := uint64(0); before < uint64(len(v.original)); before += pageSize {
		if readBytes(tid, page-before+uint64(v.stubs), there) && bytes.Equal(there, v.changed[v.stubs:v.end]) {
			return true
		}
	}
	return false
}

// readBytes fills here from the memory of tid and reports whether it could.
func readBytes(tid int, address uint64, here []byte) bool {
	return transfer(tid, address, here, unix.ProcessVMReadv) == len(here)
}
