package nar_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"arch.network/attest/digest/nar"
)

// node is an entry with its content, for trees in tables.
type node struct {
	Path       string
	Type       nar.Type
	Executable bool
	Content    string
	Target     string
}

func file(path, content string) node {
	return node{Path: path, Type: nar.Regular, Content: content}
}

func program(path, content string) node {
	return node{Path: path, Type: nar.Regular, Executable: true, Content: content}
}
func dir(path string) node { return node{Path: path, Type: nar.Directory} }
func link(path, target string) node {
	return node{Path: path, Type: nar.Symlink, Target: target}
}

// sample has every kind of entry, every length of padding, and names whose order is easily got wrong.
func sample() []node {
	return []node{
		dir(""),
		file("a", ""),
		dir("b"),
		file("b/c", "1"),
		program("b/d", "#!/bin/sh\n"),
		file("b-", "12345678"),
		file("b.", "123456789"),
		dir("empty"),
		link("link", "../b/c"),
		link("link8", "12345678"),
		dir("x"),
		dir("x/y"),
		file("x/y/ü\n\x1b", "not UTF-8 \xff\x00"),
		file("z", strings.Repeat("long ", 100)),
	}
}

// encode writes tree with a Writer.
func encode(t testing.TB, tree []node) []byte {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b, nar.Limits{})
	for _, n := range tree {
		e := nar.Entry{Path: n.Path, Type: n.Type, Executable: n.Executable, Size: int64(len(n.Content)), Target: n.Target}
		if err := w.WriteEntry(e); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, n.Content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// decode reads an archive with a Reader, to its end.
func decode(r io.Reader, limits nar.Limits) ([]node, error) {
	var tree []node
	for nr := nar.NewReader(r, limits); ; {
		e, err := nr.Next()
		if err == io.EOF {
			return tree, nil
		}
		if err != nil {
			return tree, err
		}
		content, err := io.ReadAll(nr)
		if err != nil {
			return tree, err
		}
		tree = append(tree, node{e.Path, e.Type, e.Executable, string(content), e.Target})
	}
}

// plant makes tree at path on disk.
func plant(t testing.TB, path string, tree []node) {
	t.Helper()
	for _, n := range tree {
		var err error
		at := filepath.Join(path, n.Path)
		switch n.Type {
		case nar.Directory:
			err = os.Mkdir(at, 0o755)
		case nar.Symlink:
			err = os.Symlink(n.Target, at)
		case nar.Regular:
			mode := fs.FileMode(0o644)
			if n.Executable {
				mode = 0o755
			}
			err = os.WriteFile(at, []byte(n.Content), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// harvest reads the tree at path with the standard library, in the order of an archive.
func harvest(t testing.TB, path string) []node {
	t.Helper()
	var tree []node
	err := filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(at, path), "/")
		switch {
		case d.IsDir():
			tree = append(tree, dir(rel))
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(at)
			tree = append(tree, link(rel, target))
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(at)
		tree = append(tree, node{rel, nar.Regular, info.Mode()&0o100 != 0, string(content), ""})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(tree, func(a, b node) int { return nar.Compare(a.Path, b.Path) })
	return tree
}

// scratch is a directory that a test may fill with read-only trees.
func scratch(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scratch")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nar.RemoveAll(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

// str encodes strings as the format does; tests build hostile archives from it.
func str(all ...string) string {
	var b strings.Builder
	for _, s := range all {
		binary.Write(&b, binary.LittleEndian, uint64(len(s)))
		b.WriteString(s)
		b.WriteString("\x00\x00\x00\x00\x00\x00\x00"[:-len(s)&7])
	}
	return b.String()
}

// Parts of archives.
func regularNode(content string) string {
	return str("(", "type", "regular", "contents", content, ")")
}

func symlinkNode(target string) string {
	return str("(", "type", "symlink", "target", target, ")")
}

func directoryNode(entries ...string) string {
	return str("(", "type", "directory") + strings.Join(entries, "") + str(")")
}

func entry(name, node string) string {
	return str("entry", "(", "name", name, "node") + node + str(")")
}
func archive(root string) string { return str("nix-archive-1") + root }
