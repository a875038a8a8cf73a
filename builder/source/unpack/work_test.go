package unpack

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// crowdedZip is a zip archive whose directory has n entries without a name, all of the one empty file.
func crowdedZip(n int) []byte {
	header := make([]byte, 46)
	binary.LittleEndian.PutUint32(header, 0x02014b50)
	directory := bytes.Repeat(header, n)
	end := make([]byte, 22)
	binary.LittleEndian.PutUint32(end, 0x06054b50)
	binary.LittleEndian.PutUint16(end[8:], uint16(n))
	binary.LittleEndian.PutUint16(end[10:], uint16(n))
	binary.LittleEndian.PutUint32(end[12:], uint32(len(directory)))
	return append(directory, end...)
}

// Memory is taken for each entry of the directory before anything is known of them.
func TestCrowdedZip(t *testing.T) {
	if _, err := OpenZip(bytes.NewReader(crowdedZip(1000)), int64(len(crowdedZip(1000)))); err != nil {
		t.Errorf("a small directory: %v", err)
	}
	crowded := crowdedZip(1<<20/46 + 10_000)
	_, err := openZip(bytes.NewReader(crowded), int64(len(crowded)), 1<<20)
	if got, want := errText(err), "archive exceeds the limit of 1048576 bytes of zip directory"; got != want {
		t.Errorf("error is %q, want %q", got, want)
	}
}

// Links that lead back and forth make one short name cost a walk of 80,000 elements.
func TestLongWalks(t *testing.T) {
	in, _ := arena(t)
	tree := newTree(t, in, RootFS, Limits{})
	entries := []e{{name: "d/", typ: tar.TypeDir}}
	for i := range 40 {
		next := fmt.Sprintf("l%d", i+1)
		if i == 39 {
			next = "d"
		}
		entries = append(entries, e{name: fmt.Sprintf("l%d", i), typ: tar.TypeSymlink, link: strings.Repeat("d/../", 800) + next})
	}
	entries = append(entries, e{name: "l0/file"})
	err := tree.Tar(t.Context(), bytes.NewReader(tarOf(t, entries...)), 0)
	if got, want := errText(err), `archive entry "l0/file": leads through too many path elements`; got != want {
		t.Errorf("error is %q, want %q", got, want)
	}
}

// A layer that hides what lies in a full directory of its own again and again has it looked at once.
func TestRepeatedWhiteouts(t *testing.T) {
	in, _ := arena(t)
	tree := newTree(t, in, RootFS, Limits{})
	layer := func(entries ...e) {
		t.Helper()
		if err := tree.Layer(t.Context(), bytes.NewReader(tarOf(t, entries...)), None, nil); err != nil {
			t.Fatal(err)
		}
	}
	layer(e{name: "d/old"}, e{name: "d/sub/old"}, e{name: "d/gone/old"})
	entries := []e{{name: "d/sub/new"}}
	for i := range 3000 {
		entries = append(entries, e{name: "d/.wh..wh..opq"}, e{name: fmt.Sprintf("d/%d", i)}, e{name: ".wh.d"})
	}
	layer(entries...)
	node := tree.model.children["d"]
	if node == nil || len(node.children) != 3001 || node.children["old"] != nil || node.children["gone"] != nil || len(node.children["sub"].children) != 1 {
		t.Errorf("the tree is %v", node)
	}
	// The next layer hides it all.
	layer(e{name: ".wh.d"})
	if len(tree.model.children) != 0 {
		t.Errorf("the tree is %v", tree.model.children)
	}
}
