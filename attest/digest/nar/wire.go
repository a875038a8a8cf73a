package nar

import "encoding/binary"

// A NAR is a sequence of strings, each an 8-byte little-endian length, the bytes, and zeros up to a multiple of 8.
// These are the fixed ones, encoded; all lengths are multiples of 8.
const (
	tokMagic      = "\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1\x00\x00\x00"
	tokOpen       = "\x01\x00\x00\x00\x00\x00\x00\x00(\x00\x00\x00\x00\x00\x00\x00"
	tokClose      = "\x01\x00\x00\x00\x00\x00\x00\x00)\x00\x00\x00\x00\x00\x00\x00"
	tokType       = "\x04\x00\x00\x00\x00\x00\x00\x00type\x00\x00\x00\x00"
	tokRegular    = "\x07\x00\x00\x00\x00\x00\x00\x00regular\x00"
	tokDirectory  = "\x09\x00\x00\x00\x00\x00\x00\x00directory\x00\x00\x00\x00\x00\x00\x00"
	tokSymlink    = "\x07\x00\x00\x00\x00\x00\x00\x00symlink\x00"
	tokExecutable = "\x0a\x00\x00\x00\x00\x00\x00\x00executable\x00\x00\x00\x00\x00\x00"
	tokEmpty      = "\x00\x00\x00\x00\x00\x00\x00\x00"
	tokContents   = "\x08\x00\x00\x00\x00\x00\x00\x00contents"
	tokTarget     = "\x06\x00\x00\x00\x00\x00\x00\x00target\x00\x00"
	tokEntry      = "\x05\x00\x00\x00\x00\x00\x00\x00entry\x00\x00\x00"
	tokName       = "\x04\x00\x00\x00\x00\x00\x00\x00name\x00\x00\x00\x00"
	tokNode       = "\x04\x00\x00\x00\x00\x00\x00\x00node\x00\x00\x00\x00"
)

// The sequences the grammar is made of:
//
//	nar   = tokMagic node
//	node  = tokOpen tokType ( file | link | dir ) tokClose
//	file  = seqRegular length bytes padding  |  seqExecutable length bytes padding
//	link  = seqSymlink string
//	dir   = tokDirectory { seqEntry string tokNode node tokClose }
const (
	seqNode       = tokOpen + tokType
	seqRegular    = tokRegular + tokContents
	seqExecutable = tokRegular + tokExecutable + tokEmpty + tokContents
	seqSymlink    = tokSymlink + tokTarget
	seqEntry      = tokEntry + tokOpen + tokName
)

// maxFrame is more than the framing of any one entry, its name and target counted.
const maxFrame = 6 << 10

// padding returns how many zeros follow n bytes.
func padding(n int64) int { return int(-n & 7) }

// appendString appends s as the format encodes strings.
func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	b = append(b, s...)
	return append(b, tokEmpty[:padding(int64(len(s)))]...)
}

// appendHead appends what stands before a node's own bytes: the magic for the root, else the entry and its name.
func appendHead(b []byte, root bool, name string) []byte {
	if root {
		b = append(b, tokMagic...)
	} else {
		b = append(b, seqEntry...)
		b = appendString(b, name)
		b = append(b, tokNode...)
	}
	return append(b, seqNode...)
}

// appendFile appends what stands before a file's content.
func appendFile(b []byte, executable bool, size int64) []byte {
	if executable {
		b = append(b, seqExecutable...)
	} else {
		b = append(b, seqRegular...)
	}
	return binary.LittleEndian.AppendUint64(b, uint64(size))
}

// appendTail appends what stands after a node's own bytes.
func appendTail(b []byte, root bool) []byte {
	b = append(b, tokClose...)
	if !root {
		b = append(b, tokClose...)
	}
	return b
}
