package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// openPaths says for each path whether it can be read.
func openPaths(args []string) {
	for _, p := range args {
		f, err := os.Open(p)
		say(p, err)
		f.Close()
	}
}

// writePaths tries to make a file in each directory, to append to each file, and to remove and change both.
func writePaths(args []string) {
	for _, p := range args {
		info, err := os.Stat(p)
		if err != nil {
			say(p, err)
			continue
		}
		target := p
		if info.IsDir() {
			target = filepath.Join(p, "made-by-probe")
		}
		f, err := os.OpenFile(target, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		say(p+" write", err)
		if err == nil {
			fmt.Fprintln(f, "probe")
			f.Close()
		}
		say(p+" chmod", os.Chmod(p, info.Mode().Perm()))
		say(p+" rename", os.Rename(p, p+".moved"))
		os.Rename(p+".moved", p)
	}
}

// listEntries prints the entries of a directory in the order in which the kernel gives them.
func listEntries(args []string) {
	dir, err := os.Open(args[0])
	if err != nil {
		fail(err)
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		fail(err)
	}
	for _, name := range names {
		fmt.Println(name)
	}
}

// sizeOf prints how many bytes a file holds.
func sizeOf(args []string) {
	data, err := os.ReadFile(args[0])
	if err != nil {
		fail(err)
	}
	fmt.Println(len(data))
}

// dumpFiles prints what is below a path: type, permissions, modification time, and content or target.
func dumpFiles(args []string) {
	for _, root := range args {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				fmt.Println(p, word(err))
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			detail := ""
			switch {
			case info.Mode().IsRegular():
				data, err := os.ReadFile(p)
				detail = fmt.Sprintf(" %q", data)
				if err != nil {
					detail = " " + word(err)
				}
			case info.Mode()&fs.ModeSymlink != 0:
				target, _ := os.Readlink(p)
				detail = " -> " + target
			}
			fmt.Printf("%s %v %d%s\n", p, info.Mode(), info.ModTime().Unix(), detail)
			return nil
		})
		if err != nil {
			fail(err)
		}
	}
}

// makeTree makes what its arguments name: "dir/", "file=content", "file*=content" (executable), "link->target".
func makeTree(args []string) {
	for _, a := range args {
		if err := makeEntry(a); err != nil {
			fail(err)
		}
	}
}

func makeEntry(a string) error {
	if name, target, ok := strings.Cut(a, "->"); ok {
		return os.Symlink(target, name)
	}
	if name, content, ok := strings.Cut(a, "*="); ok {
		return os.WriteFile(name, []byte(content), 0o755)
	}
	if name, content, ok := strings.Cut(a, "="); ok {
		return os.WriteFile(name, []byte(content), 0o644)
	}
	return os.MkdirAll(a, 0o755)
}
