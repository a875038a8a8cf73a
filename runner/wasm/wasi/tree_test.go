package wasi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// FuzzTrees does the same things to both kinds of tree: they must answer the same, and hold the same afterwards.
func FuzzTrees(f *testing.F) {
	f.Add([]byte("\x00\x01\x01\x00\x02\x03\x02\x04\x05\x03\x06\x07\x04\x01\x02"))
	f.Add([]byte("\x00\x00\x00\x05\x01\x04\x06\x02\x03\x01\x04\x00\x03\x00\x04\x02\x05\x06"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 300 {
			return
		}
		host, err := OpenHost(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		memory := NewMemory(1 << 20)
		for ; len(script) >= 3; script = script[3:] {
			a, b := apply(host, script[:3]), apply(memory, script[:3])
			if a != b {
				t.Fatalf("%s: memory says %s", a, b)
			}
		}
		if a, b := walk(host, ""), walk(memory, ""); !slices.Equal(a, b) {
			t.Fatalf("host has %q, memory %q", a, b)
		}
	})
}

var fuzzPaths = []string{"a", "b", "a/b", "a/b/c", "c", "c/d", "a/../b", "b/", "c/./d", "./a"}

// apply does one thing and says what came of it. Error numbers that differ by the order in which a system looks at things are one.
func apply(t Tree, op []byte) string {
	p, q := fuzzPaths[int(op[1])%len(fuzzPaths)], fuzzPaths[int(op[2])%len(fuzzPaths)]
	var e errno
	var result any
	what := []string{"mkdir", "write", "rmdir", "unlink", "rename", "link", "symlink", "readlink", "stat", "list"}[int(op[0])%10]
	switch what {
	case "mkdir":
		e = t.mkdir(p)
	case "write":
		if strings.HasSuffix(p, "/") { // systems differ on files that are called directories
			return ""
		}
		var f file
		if f, _, e = t.open(p, opening{write: true, create: true, follow: op[2]&1 == 0}); e == success {
			_, e = f.writeAt([]byte(q), int64(op[2]))
			f.close()
		}
	case "rmdir":
		e = t.rmdir(p)
	case "unlink":
		e = t.unlink(strings.TrimRight(p, "/"))
	case "rename":
		e = t.rename(strings.TrimRight(p, "/"), strings.TrimRight(q, "/"))
	case "link":
		e = t.link(strings.TrimRight(p, "/"), strings.TrimRight(q, "/"))
	case "symlink":
		e = t.symlink(strings.TrimRight(q, "/"), strings.TrimRight(p, "/"))
	case "readlink":
		result, e = t.readlink(strings.TrimRight(p, "/"))
	case "stat":
		var s stat
		if s, e = t.stat(strings.TrimRight(p, "/"), op[2]&1 == 0); e == success && s.kind == typeRegular {
			result = []uint64{uint64(s.kind), s.size, s.links}
		}
	case "list":
		_, e = t.list(p)
	}
	if e != success {
		return fmt.Sprintf("%s %q %q: failed", what, p, q)
	}
	return fmt.Sprintf("%s %q %q: %v", what, p, q, result)
}

// walk lists all that is in a tree.
func walk(t Tree, dir string) []string {
	list, _ := t.list(dir)
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	var all []string
	for _, e := range list {
		path := join(dir, e.name)
		switch e.kind {
		case typeDirectory:
			all = append(append(all, path+"/"), walk(t, path)...)
		case typeLink:
			target, _ := t.readlink(path)
			all = append(all, path+" -> "+target)
		default:
			f, s, e := t.open(path, opening{read: true})
			b := make([]byte, s.size)
			if e == success {
				f.readAt(b, 0)
				f.close()
			}
			all = append(all, path+"="+string(b))
		}
	}
	return all
}
