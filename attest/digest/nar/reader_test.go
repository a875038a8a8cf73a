package nar_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"arch.network/attest/digest/nar"

	"github.com/google/go-cmp/cmp"
)

func TestReaderReadsWhatWriterWrites(t *testing.T) {
	trees := map[string][]node{
		"sample":          sample(),
		"file":            {file("", "content")},
		"empty file":      {file("", "")},
		"program":         {program("", "#!/bin/sh")},
		"link":            {link("", "/nowhere")},
		"empty directory": {dir("")},
		"longest name":    {dir(""), file(strings.Repeat("n", 255), "")},
		"longest target":  {link("", strings.Repeat("t", 4095))},
		"large file":      {file("", strings.Repeat("0123456789abcdef", 20_000)+"end")},
	}
	for name, tree := range trees {
		t.Run(name, func(t *testing.T) {
			archive := encode(t, tree)
			for how, r := range map[string]io.Reader{
				"whole":    bytes.NewReader(archive),
				"one byte": iotest.OneByteReader(bytes.NewReader(archive)),
				"data+EOF": iotest.DataErrReader(bytes.NewReader(archive)),
			} {
				got, err := decode(r, nar.Limits{})
				if err != nil {
					t.Fatalf("%s: %v", how, err)
				}
				if diff := cmp.Diff(tree, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", how, diff)
				}
			}
		})
	}
}

func TestReaderOffsets(t *testing.T) {
	archive := encode(t, sample())
	want := map[string]string{}
	for _, n := range sample() {
		if n.Type == nar.Regular {
			want[n.Path] = n.Content
		}
	}
	got := map[string]string{}
	for r := nar.NewReader(bytes.NewReader(archive), nar.Limits{}); ; {
		e, err := r.Next() // content is skipped
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == nar.Regular {
			got[e.Path] = string(archive[e.Offset : e.Offset+e.Size])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("contents found by offset (-want +got):\n%s", diff)
	}
}

// hostile archives: every one is refused by Reader, and Restore leaves nothing of it.
func hostile() map[string]struct{ archive, reason string } {
	ok := regularNode("x")
	return map[string]struct{ archive, reason string }{
		"nothing":                        {"", "ends too early"},
		"other magic":                    {str("nix-archive-2") + ok, "the magic of a Nix archive"},
		"magic in capitals":              {str("NIX-ARCHIVE-1") + ok, "the magic of a Nix archive"},
		"magic with padding not zero":    {strings.Replace(archive(ok), "-1\x00", "-1\x01", 1), "the magic of a Nix archive"},
		"a tar":                          {strings.Repeat("ustar\x00", 100), "the magic of a Nix archive"},
		"no root":                        {str("nix-archive-1"), "ends too early"},
		"root without parenthesis":       {archive(str("type", "regular", "contents", "", ")")), "the beginning of a node"},
		"unknown type":                   {archive(str("(", "type", "blockdev", ")") + ok), "no regular file, directory or symbolic link"},
		"type twice":                     {archive(str("(", "type", "regular", "type", "regular", "contents", "", ")")), "the content of a file"},
		"no type":                        {archive(str("(", "contents", "x", ")")), "the beginning of a node"},
		"file without content":           {archive(str("(", "type", "regular", ")")), "ends too early"},
		"file without content in a tree": {archive(directoryNode(entry("a", str("(", "type", "regular", ")")))), "the content of a file"},
		"content twice":                  {archive(str("(", "type", "regular", "contents", "a", "contents", "b", ")")), "the end of a node"},
		"executable after content":       {archive(str("(", "type", "regular", "contents", "a", "executable", "", ")")), "the end of a node"},
		"executable twice":               {archive(str("(", "type", "regular", "executable", "", "executable", "", "contents", "a", ")")), "the content of a file"},
		"executable with a value":        {archive(str("(", "type", "regular", "executable", "yes", "contents", "a", ")")), "the content of a file"},
		"content padding not zero":       {archive(str("(", "type", "regular", "contents") + "\x01\x00\x00\x00\x00\x00\x00\x00xPADDING" + str(")")), "the padding is not zero"},
		"name padding not zero":          {archive(directoryNode(str("entry", "(", "name") + "\x01\x00\x00\x00\x00\x00\x00\x00aPADDING" + str("node") + ok + str(")"))), "the padding is not zero"},
		"target padding not zero":        {archive(str("(", "type", "symlink", "target") + "\x01\x00\x00\x00\x00\x00\x00\x00aPADDING" + str(")")), "the padding is not zero"},
		"link without target":            {archive(str("(", "type", "symlink", ")", ")")), "the target of a symbolic link"},
		"empty target":                   {archive(symlinkNode("")), "an empty link target"},
		"NUL in target":                  {archive(symlinkNode("a\x00b")), "a link target with a NUL"},
		"long target":                    {archive(symlinkNode(strings.Repeat("a", 4096))), "target limit of 4095"},
		"link with content":              {archive(str("(", "type", "symlink", "target", "a", "contents", "b", ")")), "the end of a node"},
		"empty name":                     {archive(directoryNode(entry("", ok))), "an empty name"},
		"name .":                         {archive(directoryNode(entry(".", ok))), "stands for another directory"},
		"name ..":                        {archive(directoryNode(entry("..", ok))), "stands for another directory"},
		"name with slash":                {archive(directoryNode(entry("a/b", ok))), "a name with a slash"},
		"absolute name":                  {archive(directoryNode(entry("/etc", ok))), "a name with a slash"},
		"name with NUL":                  {archive(directoryNode(entry("a\x00", ok))), "a name with a NUL"},
		"long name":                      {archive(directoryNode(entry(strings.Repeat("a", 256), ok))), "name limit of 255"},
		"duplicate name":                 {archive(directoryNode(entry("a", ok), entry("a", ok))), `two entries "a"`},
		"link, then directory there":     {archive(directoryNode(entry("a", symlinkNode("/etc")), entry("a", directoryNode(entry("passwd", ok))))), `two entries "a"`},
		"duplicate name apart":           {archive(directoryNode(entry("a", ok), entry("b", ok), entry("a", ok))), `"a" comes after "b"`},
		"wrong order":                    {archive(directoryNode(entry("b", ok), entry("a", ok))), `"a" comes after "b"`},
		"wrong order of a prefix":        {archive(directoryNode(entry("ab", ok), entry("a", ok))), `"a" comes after "ab"`},
		"order not of bytes":             {archive(directoryNode(entry("a", ok), entry("B", ok))), `"B" comes after "a"`},
		"wrong order below":              {archive(directoryNode(entry("a", directoryNode(entry("d", ok), entry("c", ok))))), `"c" comes after "d"`},
		"entry without node":             {archive(directoryNode(str("entry", "(", "name", "a", ")", ")"))), "the node of the entry"},
		"entry without name":             {archive(directoryNode(str("entry", "(", "node") + ok + str(")"))), "an entry or the end of the directory"},
		"entry with two nodes":           {archive(directoryNode(str("entry", "(", "name", "a", "node") + ok + str("node") + ok + str(")"))), "the end of an entry"},
		"content in a directory":         {archive(str("(", "type", "directory", "contents", "x", ")")), "an entry or the end of the directory"},
		"directory not closed":           {archive(str("(", "type", "directory")), "ends too early"},
		"trailing byte":                  {archive(ok) + "\x00", "something follows"},
		"trailing archive":               {archive(ok) + archive(ok), "something follows"},
		"trailing parenthesis":           {archive(ok) + str(")"), "something follows"},
		"content of 2^64-1 bytes":        {archive(str("(", "type", "regular", "contents") + u64(math.MaxUint64)), "size limit"},
		"content of 2^63 bytes":          {archive(str("(", "type", "regular", "contents") + u64(1<<63)), "size limit"},
		"content of 2^63-1 bytes":        {archive(str("(", "type", "regular", "contents") + u64(math.MaxInt64)), "size limit"},
		"content that lies":              {archive(str("(", "type", "regular", "contents") + u64(1000) + "only sixteen ..."), "ends too early"},
		"name of 2^64-8 bytes":           {archive(str("(", "type", "directory", "entry", "(", "name") + u64(math.MaxUint64-7)), "name limit"},
		"deep":                           {archive(strings.Repeat(str("(", "type", "directory", "entry", "(", "name", "a", "node"), 300)), "depth limit of 256"},
	}
}

func u64(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }

func TestReaderRefuses(t *testing.T) {
	for name, test := range hostile() {
		t.Run(name, func(t *testing.T) {
			_, err := decode(strings.NewReader(test.archive), nar.Limits{})
			if err == nil || !strings.Contains(err.Error(), test.reason) {
				t.Fatalf("error %q, want one with %q", err, test.reason)
			}
			_, syntax := errors.AsType[*nar.SyntaxError](err)
			_, limit := errors.AsType[*nar.LimitError](err)
			if !syntax && !limit {
				t.Errorf("error of type %T", err)
			}
			if early := strings.Contains(test.reason, "ends too early"); early != errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("errors.Is(%q, io.ErrUnexpectedEOF) = %t", err, !early)
			}
		})
	}
}

// No part of an archive passes for a whole one.
func TestReaderRefusesTruncation(t *testing.T) {
	archive := encode(t, sample())
	for n := range archive {
		_, err := decode(bytes.NewReader(archive[:n]), nar.Limits{})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the first %d of %d bytes: %v", n, len(archive), err)
		}
		if err := skipAll(archive[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the first %d of %d bytes, skipping content: %v", n, len(archive), err)
		}
	}
}

// skipAll reads an archive without its contents.
func skipAll(archive []byte) error {
	for r := nar.NewReader(bytes.NewReader(archive), nar.Limits{}); ; {
		if _, err := r.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// A flipped bit makes another tree or none: what is accepted is the encoding of what was read, and differs.
func TestReaderIsInjective(t *testing.T) {
	want := sample()[:10]
	archive := encode(t, want)
	accepted := 0
	for i := range archive {
		for bit := range 8 {
			flipped := bytes.Clone(archive)
			flipped[i] ^= 1 << bit
			tree, err := decode(bytes.NewReader(flipped), nar.Limits{})
			if err != nil {
				continue
			}
			accepted++
			if !bytes.Equal(encode(t, tree), flipped) {
				t.Errorf("byte %d, bit %d: accepted, but not the encoding of what was read", i, bit)
			}
			if cmp.Equal(want, tree) {
				t.Errorf("byte %d, bit %d: accepted as the same tree", i, bit)
			}
		}
	}
	if accepted == 0 {
		t.Error("no flip was accepted: contents and names should be free")
	}
}

func TestReaderLimits(t *testing.T) {
	archive := encode(t, sample())
	size := int64(len(archive))
	exact := nar.Limits{Depth: 3, Name: 5, Target: 8, Entries: 14, Size: size}
	if _, err := decode(bytes.NewReader(archive), exact); err != nil {
		t.Errorf("limits that are just kept: %v", err)
	}
	tests := map[string]struct {
		limits nar.Limits
		want   nar.LimitError
	}{
		"depth":   {nar.Limits{Depth: 2}, nar.LimitError{"x/y", "depth", 2}},
		"name":    {nar.Limits{Name: 4}, nar.LimitError{"b.", "name", 4}},
		"target":  {nar.Limits{Target: 7}, nar.LimitError{"link8", "target", 7}},
		"entries": {nar.Limits{Entries: 13}, nar.LimitError{"z", "entries", 13}},
		"size":    {nar.Limits{Size: size - 1}, nar.LimitError{"", "size", size - 1}},
		"content": {nar.Limits{Size: size - 400}, nar.LimitError{"z", "size", size - 400}},
		"frames":  {nar.Limits{Size: 100}, nar.LimitError{"a", "size", 100}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := decode(bytes.NewReader(archive), test.limits)
			got, ok := errors.AsType[*nar.LimitError](err)
			if !ok {
				t.Fatalf("error %v, want a *LimitError", err)
			}
			if diff := cmp.Diff(test.want, *got); diff != "" {
				t.Errorf("limit (-want +got):\n%s", diff)
			}
		})
	}
}

// Errors stay, and so does the end.
func TestReaderSticks(t *testing.T) {
	cause := errors.New("network gone")
	broken := io.MultiReader(bytes.NewReader(encode(t, sample())[:200]), iotest.ErrReader(cause))
	r := nar.NewReader(broken, nar.Limits{})
	var err error
	for err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
	if _, again := r.Next(); again != err {
		t.Errorf("second error %v, want %v", again, err)
	}
	if _, again := r.Read(make([]byte, 1)); again != err {
		t.Errorf("error of Read %v, want %v", again, err)
	}

	r = nar.NewReader(bytes.NewReader(encode(t, []node{dir("")})), nar.Limits{})
	for _, want := range []error{nil, io.EOF, io.EOF} {
		if _, err := r.Next(); err != want {
			t.Errorf("Next: %v, want %v", err, want)
		}
	}
}

// A 27 MB archive of nested directories is refused after the first few levels, not after building a path of it.
func TestReaderDepthBombIsCheap(t *testing.T) {
	level := str("(", "type", "directory", "entry", "(", "name", "a", "node")
	bomb := &endless{head: []byte(str("nix-archive-1")), part: []byte(level)}
	if _, err := decode(bomb, nar.Limits{}); err == nil {
		t.Fatal("no error")
	}
	if bomb.read > 1<<20 {
		t.Errorf("%d bytes were read", bomb.read)
	}
}

// endless is head and then part for ever.
type endless struct {
	head, part []byte
	read       int
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.head) == 0 {
		e.head = e.part
	}
	n := copy(p, e.head)
	e.head = e.head[n:]
	e.read += n
	return n, nil
}

func FuzzReader(f *testing.F) {
	f.Add(encode(f, sample()))
	for _, test := range hostile() {
		f.Add([]byte(test.archive))
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		tree, err := decode(bytes.NewReader(archive), nar.Limits{})
		if (skipAll(archive) == nil) != (err == nil) {
			t.Errorf("reading content: %v, skipping it: %v", err, skipAll(archive))
		}
		if err != nil {
			return
		}
		if again := encode(t, tree); !bytes.Equal(again, archive) {
			t.Errorf("accepted %q, which encodes to %q", archive, again)
		}
		compareWithGoNix(t, archive, tree)
	})
}
