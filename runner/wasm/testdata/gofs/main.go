// Command gofs uses a directory, named by its argument, in the ways that package os offers, and says what came of each: the same as a
// program of the host and as a module.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	dir := os.Args[1]
	at := func(name string) string { return filepath.Join(dir, name) }
	say := func(what string, err error, more ...any) {
		kind := "other error"
		for k, e := range map[string]error{
			"ok": nil, "not exist": fs.ErrNotExist, "exist": fs.ErrExist, "end": io.EOF, "closed": fs.ErrClosed, "permission": fs.ErrPermission,
		} {
			if errors.Is(err, e) {
				kind = k
			}
		}
		fmt.Println(append([]any{what, kind}, more...)...)
	}
	say("mkdir all", os.MkdirAll(at("a/b/c"), 0o755))
	say("mkdir", os.Mkdir(at("a"), 0o755))
	say("write", os.WriteFile(at("a/file"), []byte("hello"), 0o644))

	f, err := os.OpenFile(at("a/file"), os.O_RDWR, 0)
	say("open", err)
	n, err := f.WriteAt([]byte("EL"), 1)
	say("write at", err, n)
	b := make([]byte, 3)
	n, err = f.ReadAt(b, 2)
	say("read at", err, n, string(b))
	n, err = f.ReadAt(b, 4)
	say("read past the end", err, n)
	off, err := f.Seek(-2, io.SeekEnd)
	say("seek", err, off)
	rest, err := io.ReadAll(f)
	say("read", err, string(rest))
	say("truncate", f.Truncate(2))
	info, err := f.Stat()
	say("stat", err, info.Size(), info.Mode().IsRegular(), info.Name())
	say("sync", f.Sync())
	say("close", f.Close())
	say("close again", f.Close())

	f, err = os.OpenFile(at("a/file"), os.O_WRONLY|os.O_APPEND, 0)
	say("append", err)
	_, err = f.WriteString("-appended")
	say("write", err)
	_, err = f.Read(b)
	say("read what is open for writing", err)
	f.Close()
	text, err := os.ReadFile(at("a/file"))
	say("read file", err, string(text))
	f, err = os.Open(at("a/file"))
	say("open", err)
	_, err = f.WriteString("x")
	say("write what is open for reading", err)
	f.Close()
	_, err = os.OpenFile(at("a/file"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	say("create exclusively", err)
	_, err = os.Open(at("nothing"))
	say("open nothing", err)
	_, err = os.ReadFile(at("a"))
	say("read directory", err)

	say("rename", os.Rename(at("a/file"), at("a/b/moved")))
	say("rename nothing", os.Rename(at("a/file"), at("x")))
	say("rename directory", os.Rename(at("a/b/c"), at("d")))
	say("symlink", os.Symlink("a/b/moved", at("link")))
	target, err := os.Readlink(at("link"))
	say("readlink", err, target)
	text, err = os.ReadFile(at("link"))
	say("read through link", err, string(text))
	info, err = os.Lstat(at("link"))
	say("lstat", err, info.Mode().Type() == fs.ModeSymlink)
	say("link", os.Link(at("a/b/moved"), at("hard")))
	say("remove full", os.Remove(at("a")))
	say("chtimes", os.Chtimes(at("hard"), time.Unix(5, 0), time.Unix(6, 0)))
	for i := range 300 {
		if err := os.WriteFile(at(fmt.Sprintf("d/%03d", i)), nil, 0o644); err != nil {
			say("write many", err)
		}
	}
	entries, err := os.ReadDir(at("d"))
	say("read dir", err, len(entries), entries[0].Name(), entries[299].Name())
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if rel := strings.TrimPrefix(path, dir); err == nil && !strings.HasPrefix(rel, "/d/") {
			fmt.Println("walk", rel, e.Type())
		}
		return err
	})
	say("walk", err)
	temp, err := os.MkdirTemp(dir, "temp-*")
	say("temp", err)
	say("remove temp", os.Remove(temp))
	say("remove all", os.RemoveAll(at("d")))
	_, err = os.Stat(at("d"))
	say("stat removed", err)
	say("remove nothing", os.Remove(at("d")))

	root, err := os.OpenRoot(dir)
	say("root", err)
	if err == nil {
		_, err = root.Open("../x")
		say("root open above", err)
		text, err = root.ReadFile("a/b/moved")
		say("root read", err, string(text))
		root.Close()
	}
}
