package checkpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"arch.network/attest/digest"
)

// Checkpoint is a stopped execution.
type Checkpoint struct {
	Module  digest.SHA256 // of the module, as whoever started the run has named it
	Gas     uint64        // used so far
	Granted uint64        // gas of the slices given so far; less than Gas
	Version string        // gas.Version that it was stopped with
	Entry   string        // the export that runs
	State   digest.SHA256 // of memory, globals and WASI state
	// Snapshot resumes without repeating; nil: a mark.
	Snapshot *Snapshot

	encoded []byte // of one that was mapped, which nobody changes; nil: Marshal makes it
}

// Snapshot is the state of a module.
type Snapshot struct {
	WASI    []byte   // wasi.State as JSON
	Globals []uint64 // the values of the exports gas.StatePrefix…, in the order of their numbers
	Stack   []byte   // the call stack as asyncify writes it
	Pages   uint32   // size of the memory, in 64 KiB
	Blocks  []Block  // what is not zero in it, in rising order
	Files   []Files  // what the module has left in directories that end with its confinement, in rising order of Path
}

// Files is what lies in a directory.
type Files struct {
	Path string // of the directory, in the confinement
	NAR  []byte // of all that is in it
}

// Block is a part of memory that is not all zero.
type Block struct {
	Index uint32 // its offset divided by BlockSize
	Bytes []byte // BlockSize bytes
}

const (
	// BlockSize is the size of a Block.
	BlockSize = 4096
	pageSize  = 1 << 16

	magic = "arch checkpoint 2\n"
	// MaxSize bounds an encoded Checkpoint: all of a memory, with every block's index, files, and everything else.
	MaxSize    = 4<<30 + 4<<20 + maxStack + maxWASI + maxFiles + 1<<20
	maxFiles   = 1 << 30 // bytes of all Files together
	maxDirs    = 256     // as runner.Module.Dirs in package wasm
	maxPath    = 4 << 10
	maxStack   = 16 << 20
	maxWASI    = 32 << 20 // wasi.MaxState
	maxEntry   = 1 << 10
	maxVersion = 64
	maxGlobal  = 50_000
	kindMark   = 1
	kindWhole  = 2
)

// Marshal encodes c. The format, all numbers little-endian:
//
//	"arch checkpoint 2\n", kind (1 byte: 1 mark, 2 snapshot), module (32 bytes), gas, granted (8 each), state (32),
//	version, entry (4-byte length, bytes each), call stack (4-byte length, bytes; empty in a mark), SHA-256 of the files (32; of a mark zeros),
//	SHA-256 of all before (32);
//	of a snapshot, with the SHA-256 that state says: WASI state (4-byte length, bytes), globals (4-byte number, 8 each),
//	pages (4), blocks (4-byte number; of each its index in 4 bytes and 4096 bytes; rising, none all zero);
//	and its files (4-byte number; of each the path and the NAR, each with a 4-byte length; paths rising)
//
// Of one that Map has read, it is the mapping. Equal Checkpoints have equal encodings, and what Parse accepts, Marshal encodes to the same bytes.
func (c *Checkpoint) Marshal() []byte {
	if c.encoded != nil {
		return c.encoded
	}
	size := 256 + len(c.Entry)
	kind, stack, files := byte(kindMark), []byte(nil), digest.SHA256{}
	if s := c.Snapshot; s != nil {
		size += s.size() + len(s.Stack) + s.filesSize()
		kind, stack, files = kindWhole, s.Stack, s.filesDigest()
	}
	b := append(make([]byte, 0, size), magic...)
	b = append(b, kind)
	b = append(b, c.Module[:]...)
	b = binary.LittleEndian.AppendUint64(b, c.Gas)
	b = binary.LittleEndian.AppendUint64(b, c.Granted)
	b = append(b, c.State[:]...)
	b = appendSized(b, []byte(c.Version))
	b = appendSized(b, []byte(c.Entry))
	b = appendSized(b, stack)
	b = append(b, files[:]...)
	sum := sha256.Sum256(b)
	b = append(b, sum[:]...)
	if s := c.Snapshot; s != nil {
		b = s.appendMemory(s.appendState(b))
		s.parts(func(part []byte) { b = append(b, part...) })
	}
	return b
}

func appendSized(b, content []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(content)))
	return append(b, content...)
}

func (s *Snapshot) appendState(b []byte) []byte {
	b = appendSized(b, s.WASI)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.Globals)))
	for _, g := range s.Globals {
		b = binary.LittleEndian.AppendUint64(b, g)
	}
	return b
}

func (s *Snapshot) appendMemory(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, s.Pages)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.Blocks)))
	for _, block := range s.Blocks {
		b = binary.LittleEndian.AppendUint32(b, block.Index)
		b = append(b, block.Bytes...)
	}
	return b
}

// parts gives the encoding of the files, piece by piece.
func (s *Snapshot) parts(give func(part []byte)) {
	give(binary.LittleEndian.AppendUint32(nil, uint32(len(s.Files))))
	for _, f := range s.Files {
		give(appendSized(nil, []byte(f.Path)))
		give(binary.LittleEndian.AppendUint32(nil, uint32(len(f.NAR))))
		give(f.NAR)
	}
}

// filesSize is how long the encoding of the files is.
func (s *Snapshot) filesSize() (size int) {
	s.parts(func(part []byte) { size += len(part) })
	return size
}

// filesDigest is the SHA-256 of the encoded files.
func (s *Snapshot) filesDigest() digest.SHA256 {
	h := sha256.New()
	s.parts(func(part []byte) { h.Write(part) })
	return digest.SHA256(h.Sum(nil))
}

// digest is Checkpoint.State: the SHA-256 of the encoded state and memory.
func (s *Snapshot) digest() digest.SHA256 {
	h := sha256.New()
	h.Write(s.appendState(nil))
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], s.Pages)
	binary.LittleEndian.PutUint32(head[4:], uint32(len(s.Blocks)))
	h.Write(head[:])
	for _, block := range s.Blocks {
		binary.LittleEndian.PutUint32(head[:], block.Index)
		h.Write(head[:4])
		h.Write(block.Bytes)
	}
	return digest.SHA256(h.Sum(nil))
}

// Parse decodes what Marshal wrote, and refuses everything else. Blocks refer to data, which must not change.
func Parse(data []byte) (*Checkpoint, error) {
	c, err := parse(data)
	if err == nil && c.Snapshot != nil {
		end := len(data) - c.Snapshot.filesSize()
		if digest.Of(data[end-c.Snapshot.size():end]) != c.State {
			err = errors.New("damaged: its state is not the one that it names")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("parse checkpoint: %w", err)
	}
	return c, nil
}

// size is how long the encoding of the state and memory is.
func (s *Snapshot) size() int {
	return 4 + len(s.WASI) + 4 + 8*len(s.Globals) + 4 + 4 + len(s.Blocks)*(4+BlockSize)
}

// parse is Parse without a look at the hash of the state: who resumes gets it from whoever has parsed it. Files are compared with theirs.
func parse(data []byte) (*Checkpoint, error) {
	if uint64(len(data)) > MaxSize {
		return nil, fmt.Errorf("%d bytes, more than %d", len(data), uint64(MaxSize))
	}
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, fmt.Errorf("starts with %q, not %q", data[:min(len(data), len(magic))], magic)
	}
	r := &reader{data: data[len(magic):]}
	kind := r.take(1)
	c := &Checkpoint{Module: r.hash(), Gas: r.u64(), Granted: r.u64(), State: r.hash(), Version: string(r.sized("version", maxVersion)), Entry: string(r.sized("entry", maxEntry))}
	stack, files := r.sized("call stack", maxStack), r.hash()
	head := data[:len(data)-len(r.data)]
	sum := r.take(sha256.Size)
	switch {
	case r.err != nil:
		return nil, r.err
	case sha256.Sum256(head) != [32]byte(sum):
		return nil, errors.New("damaged: its hash is another")
	case c.Gas <= c.Granted:
		return nil, fmt.Errorf("gas %d is not more than the %d granted", c.Gas, c.Granted)
	case kind[0] == kindWhole:
		if c.Snapshot = r.snapshot(stack); r.err == nil && c.Snapshot.filesDigest() != files {
			r.err = errors.New("damaged: its files are not the ones that it names")
		}
	case kind[0] != kindMark || len(stack) > 0 || !files.IsZero():
		return nil, fmt.Errorf("kind %d, call stack of %d bytes", kind[0], len(stack))
	}
	if r.err == nil && len(r.data) > 0 {
		r.err = fmt.Errorf("%d bytes more than its content", len(r.data))
	}
	return c, r.err
}

// reader takes parts off data. After its first error it gives zeros.
type reader struct {
	data []byte
	err  error
}

func (r *reader) take(n int) []byte {
	if r.err == nil && n > len(r.data) {
		r.err = fmt.Errorf("%d bytes expected, %d left", n, len(r.data))
	}
	if r.err != nil {
		return make([]byte, min(n, 32))
	}
	b := r.data[:n:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) hash() digest.SHA256 { return digest.SHA256(r.take(32)) }
func (r *reader) u64() uint64         { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *reader) u32() uint32         { return binary.LittleEndian.Uint32(r.take(4)) }

// count reads a number of items of a size.
func (r *reader) count(what string, size, limit int) int {
	n := r.u32()
	if r.err == nil && (uint64(n) > uint64(limit) || uint64(n)*uint64(size) > uint64(len(r.data))) {
		r.err = fmt.Errorf("%s of %d, with a limit of %d and %d bytes left", what, n, limit, len(r.data))
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *reader) sized(what string, limit int) []byte { return r.take(r.count(what, 1, limit)) }

func (r *reader) snapshot(stack []byte) *Snapshot {
	s := &Snapshot{Stack: stack, WASI: r.sized("WASI state", maxWASI)}
	if n := r.count("globals", 8, maxGlobal); n > 0 {
		s.Globals = make([]uint64, n)
		for i := range s.Globals {
			s.Globals[i] = r.u64()
		}
	}
	s.Pages = r.u32()
	if r.err == nil && s.Pages > pageSize {
		r.err = fmt.Errorf("memory of %d pages", s.Pages)
	}
	most := int(s.Pages) * (pageSize / BlockSize)
	n := r.count("blocks", BlockSize+4, most)
	s.Blocks = make([]Block, 0, n)
	next := uint32(0)
	for range n {
		block := Block{r.u32(), r.take(BlockSize)}
		if r.err == nil && (block.Index < next || int(block.Index) >= most || isZero(block.Bytes)) {
			r.err = fmt.Errorf("block %d out of order, out of memory, or zero", block.Index)
		}
		if r.err != nil {
			return nil
		}
		next = block.Index + 1
		s.Blocks = append(s.Blocks, block)
	}
	s.Files = r.files()
	return s
}

func (r *reader) files() []Files {
	var out []Files
	for range r.count("directories", 8, maxDirs) {
		f := Files{string(r.sized("path", maxPath)), r.sized("files", maxFiles)}
		if r.err == nil && len(out) > 0 && f.Path <= out[len(out)-1].Path {
			r.err = fmt.Errorf("directory %q out of order", f.Path)
		}
		out = append(out, f)
	}
	return out
}

// blocks returns the blocks of memory that are not zero. They refer to memory.
func blocks(memory []byte) []Block {
	var out []Block
	for i := 0; i < len(memory); i += BlockSize {
		if b := memory[i : i+BlockSize : i+BlockSize]; !isZero(b) {
			out = append(out, Block{uint32(i / BlockSize), b})
		}
	}
	return slices.Clip(out)
}

// own makes the blocks copies.
func (s *Snapshot) own() {
	buffer := make([]byte, 0, len(s.Blocks)*BlockSize)
	for i := range s.Blocks {
		at := len(buffer)
		buffer = append(buffer, s.Blocks[i].Bytes...)
		s.Blocks[i].Bytes = buffer[at:len(buffer):len(buffer)]
	}
}

func isZero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
