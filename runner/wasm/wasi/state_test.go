package wasi

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A System goes on elsewhere as if nothing had happened.
func TestRestore(t *testing.T) {
	for _, kinds := range [][2]string{{"host", "host"}, {"host", "memory"}, {"memory", "host"}} {
		t.Run(kinds[0]+" to "+kinds[1], func(t *testing.T) {
			empty := map[string]func() Tree{
				"host": func() Tree {
					tree, err := OpenHost(t.TempDir())
					if err != nil {
						t.Fatal(err)
					}
					return tree
				},
				"memory": func() Tree { return NewMemory(1 << 20) },
			}
			config := func(kind string, stdout *bytes.Buffer) Config {
				return Config{
					Stdout: stdout, Clock: &testClock, Seed: &testSeed,
					Dirs: []Dir{{"/in", trees[kind](t), false}, {"/out", empty[kind](), true}},
				}
			}
			first := func(c *caller) (file, sub uint64) {
				c.write(1, "before ")
				c.ok("clock_time_get", clockRealtime, 0, atResult)
				c.ok("random_get", atData, 5)
				c.on("path_create_directory", out, "d")
				file = c.mustOpen(out, "d/f", openCreate, readRights|writeRights)
				c.write(file, "one ")
				sub = c.mustOpen(in, "sub", openDirectory, readRights)
				c.two("path_rename", out, "d/f", out, "d/g")
				c.symlink("d/g", "link")
				return file, sub
			}
			second := func(c *caller, file, sub uint64) []string {
				var seen []string
				c.write(1, "after")
				c.write(file, "two")
				c.ok("fd_seek", file, 0, 0, atResult)
				content, _ := c.read(file)
				linked, _ := c.read(c.mustOpen(out, "link", 0, readRights))
				seen = append(append(seen, content, linked), c.list(sub, 4096)...)
				c.ok("clock_time_get", clockMonotonic, 0, atResult)
				seen = append(seen, string(c.bytes(atResult, 8)))
				c.ok("random_get", atData, 9)
				return append(seen, string(c.bytes(atData, 9)))
			}

			var whole bytes.Buffer
			c := newCaller(t, config(kinds[0], &whole))
			file, sub := first(c)
			want := second(c, file, sub)

			var part bytes.Buffer
			c = newCaller(t, config(kinds[0], &part))
			file, sub = first(c)
			state, err := c.system.State()
			if err != nil {
				t.Fatal(err)
			}
			var tree bytes.Buffer
			if err := c.system.Archive(t.Context(), "/out", &tree); err != nil {
				t.Fatal(err)
			}
			data, err := state.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if state, err = ParseState(data); err != nil {
				t.Fatal(err)
			}

			again := config(kinds[1], &part)
			fresh, err := New(again)
			if err != nil {
				t.Fatal(err)
			}
			if err := fresh.Unpack(t.Context(), "/out", &tree); err != nil {
				t.Fatal(err)
			}
			restored, err := Restore(again, state)
			if err != nil {
				t.Fatal(err)
			}
			c = callerOf(t, restored)
			if diff := cmp.Diff(want, second(c, file, sub)); diff != "" {
				t.Errorf("(-uninterrupted +restored):\n%s", diff)
			}
			if part.String() != whole.String() {
				t.Errorf("stdout %q, uninterrupted %q", &part, &whole)
			}
			if n, _ := restored.Written(); n != uint64(whole.Len()) {
				t.Errorf("counted %d bytes", n)
			}
		})
	}
}

func TestStateOfRemoved(t *testing.T) {
	c := newCaller(t, Config{Dirs: []Dir{{"/out", trees["memory"](t), true}}})
	fd := c.mustOpen(3, "hello.txt", 0, readRights)
	if e := c.on("path_unlink_file", 3, "hello.txt"); e != success {
		t.Fatal(e)
	}
	if got, e := c.read(fd); got != "hello" || e != success {
		t.Errorf("read %q of a removed file: %d", got, e)
	}
	if _, err := c.system.State(); err == nil {
		t.Error("took the state of a file that nobody can open again")
	}
}

// A State cannot give what the Config does not.
func TestRestoreRefuses(t *testing.T) {
	config := func() Config { return Config{Dirs: []Dir{{"/in", trees["memory"](t), false}}} }
	base := Descriptor{Number: 0, Kind: "preopen", Dir: "/in", Rights: uint64(readDirRights), Inheriting: uint64(readDirRights | readFileRights)}
	file := Descriptor{Number: 3, Kind: "file", Dir: "/in", Path: "hello.txt", Rights: uint64(rightRead)}
	with := func(d Descriptor, change func(*Descriptor)) State {
		change(&d)
		return State{Version: 1, Descriptors: []Descriptor{d}}
	}
	for name, st := range map[string]State{
		"version":           {Version: 2},
		"more rights":       with(base, func(d *Descriptor) { d.Rights |= uint64(rightUnlink) }),
		"more inherited":    with(base, func(d *Descriptor) { d.Inheriting |= uint64(rightWrite) }),
		"other directory":   with(base, func(d *Descriptor) { d.Dir = "/out" }),
		"writable file":     with(file, func(d *Descriptor) { d.Rights |= uint64(rightWrite) }),
		"no such file":      with(file, func(d *Descriptor) { d.Path = "nothing" }),
		"path out":          with(file, func(d *Descriptor) { d.Path = "../x" }),
		"directory as file": with(file, func(d *Descriptor) { d.Path = "sub" }),
		"negative offset":   with(file, func(d *Descriptor) { d.Offset = -1 }),
		"unknown kind":      with(file, func(d *Descriptor) { d.Kind = "socket" }),
		"high number":       with(file, func(d *Descriptor) { d.Number = maxDescriptors }),
		"seed":              {Version: 1, Random: []byte("chacha8:")},
		"clock":             {Version: 1, Clock: -1},
	} {
		if s, err := Restore(config(), st); err == nil {
			s.Close()
			t.Errorf("%s: restored", name)
		}
	}
	if s, err := Restore(config(), with(file, func(*Descriptor) {})); err != nil {
		t.Errorf("the one that is right: %v", err)
	} else {
		s.Close()
	}
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"version":1,"descriptors":[{"number":0,"kind":"stdin","rights":2}],"clock":5,"stdout":1,"stderr":0}`))
	f.Add([]byte(`{"version":1,"descriptors":[{"number":4,"kind":"file","dir":"/in","path":"hello.txt","offset":3,"rights":2}],"clock":0,"random":"Y2hhY2hhODo=","stdout":0,"stderr":0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := ParseState(data)
		if err != nil {
			return
		}
		again, err := st.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if second, err := ParseState(again); err != nil || cmp.Diff(st, second) != "" {
			if !strings.Contains(cmp.Diff(st, second), "Random") && !strings.Contains(cmp.Diff(st, second), "Descriptors") { // empty or absent
				t.Errorf("%v\n%s", err, cmp.Diff(st, second))
			}
		}
		m := NewMemory(1 << 10)
		m.Put("hello.txt", nopCloser{strings.NewReader("hello")}, 5)
		if s, err := Restore(Config{Dirs: []Dir{{"/in", m, true}}, Seed: &testSeed}, st); err == nil {
			s.Close()
		}
	})
}
