package wasi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero/sys"
)

// trees are the two kinds of Tree, each made of the same content: every test of files runs on both.
var trees = map[string]func(t *testing.T) Tree{
	"host": func(t *testing.T) Tree {
		dir := t.TempDir()
		for name, content := range testFiles {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tree, err := OpenHost(dir)
		if err != nil {
			t.Fatal(err)
		}
		return tree
	},
	"memory": func(t *testing.T) Tree {
		m := NewMemory(1 << 20)
		for name, content := range testFiles {
			if err := m.Put(name, nopCloser{strings.NewReader(content)}, int64(len(content))); err != nil {
				t.Fatal(err)
			}
		}
		return m
	},
}

var testFiles = map[string]string{"hello.txt": "hello", "sub/deep/x": "xx", "sub/b": "b", "sub/a": "a"}

type nopCloser struct{ *strings.Reader }

func (nopCloser) Close() error { return nil }

func eachTree(t *testing.T, run func(t *testing.T, c *caller)) {
	for name, make := range trees {
		t.Run(name, func(t *testing.T) {
			run(t, newCaller(t, Config{
				Dirs: []Dir{{"/in", make(t), false}, {"/out", make(t), true}}, Clock: &testClock, Seed: &testSeed,
			}))
		})
	}
}

const in, out = 3, 4 // descriptors of the two directories

func TestFiles(t *testing.T) {
	eachTree(t, func(t *testing.T, c *caller) {
		fd := c.mustOpen(in, "hello.txt", 0, readRights)
		if got, e := c.read(fd); got != "hello" || e != success {
			t.Errorf("read %q, error %d", got, e)
		}
		c.ok("fd_seek", fd, 1, 0, atResult)
		if got, _ := c.read(fd); got != "ello" {
			t.Errorf("read %q after a seek", got)
		}
		if e := c.write(fd, "x"); e != errBadFD {
			t.Errorf("write to a file open for reading: %d", e)
		}
		c.ok("fd_close", fd)
		if e := c.call("fd_close", fd); e != errBadFD {
			t.Errorf("closed twice: %d", e)
		}

		fd = c.mustOpen(in, "hello.txt", 0, readRights|rightSetSize|rightAllocate) // as Go does to read
		if got, e := c.read(fd); got != "hello" || e != success {
			t.Errorf("read %q, error %d", got, e)
		}
		for _, size := range []uint64{0, 100} {
			if e := c.call("fd_filestat_set_size", fd, size); e != errNotCap {
				t.Errorf("cut a file open for reading: %d", e)
			}
		}
		c.ok("fd_close", fd)

		fd = c.mustOpen(out, "sub/new", openCreate|openExclusive, readRights|writeRights)
		if e := c.write(fd, "one "); e != success {
			t.Errorf("write: %d", e)
		}
		c.ok("fd_fdstat_set_flags", fd, flagAppend)
		c.ok("fd_seek", fd, 0, 0, atResult)
		if e := c.write(fd, "two"); e != success {
			t.Errorf("append: %d", e)
		}
		c.ok("fd_seek", fd, 0, 0, atResult)
		if got, _ := c.read(fd); got != "one two" {
			t.Errorf("read back %q", got)
		}
		c.ok("fd_filestat_set_size", fd, 3)
		c.ok("fd_allocate", fd, 4, 2)
		c.ok("fd_seek", fd, 0, 0, atResult)
		if got, _ := c.read(fd); got != "one\x00\x00\x00" {
			t.Errorf("cut and grown: %q", got)
		}
	})
}

func TestPaths(t *testing.T) {
	eachTree(t, func(t *testing.T, c *caller) {
		for _, test := range []struct {
			what string
			do   func() errno
			want errno
		}{
			{"no such file", func() errno { _, e := c.open(in, "nothing", 0, readRights); return e }, errNoEntry},
			{"absolute", func() errno { _, e := c.open(in, "/etc/passwd", 0, readRights); return e }, errPerm},
			{"above", func() errno { _, e := c.open(in, "../x", 0, readRights); return e }, errPerm},
			{"above after below", func() errno { _, e := c.open(in, "sub/../../x", 0, readRights); return e }, errPerm},
			{"below and back", func() errno { _, e := c.open(in, "sub/../hello.txt", 0, readRights); return e }, success},
			{"empty", func() errno { _, e := c.open(in, "", 0, readRights); return e }, errNoEntry},
			{"NUL", func() errno { _, e := c.open(in, "a\x00b", 0, readRights); return e }, errSequence},
			{"long", func() errno { _, e := c.open(in, strings.Repeat("a/", 2100), 0, readRights); return e }, errNameLong},
			{"file as directory", func() errno { _, e := c.open(in, "hello.txt/x", 0, readRights); return e }, errNotDir},
			{"directory wanted", func() errno { _, e := c.open(in, "hello.txt", openDirectory, readRights); return e }, errNotDir},
			{"write to a directory", func() errno { _, e := c.open(out, "sub", 0, readRights|writeRights); return e }, errIsDir},
			{"exclusive", func() errno { _, e := c.open(out, "hello.txt", openCreate|openExclusive, writeRights); return e }, errExist},
			{"create in read-only", func() errno { _, e := c.open(in, "new", openCreate, writeRights); return e }, errReadOnly},
			{"write in read-only", func() errno { _, e := c.open(in, "hello.txt", 0, writeRights); return e }, errReadOnly},
			{"mkdir in read-only", func() errno { return c.on("path_create_directory", in, "new") }, errReadOnly},
			{"unlink in read-only", func() errno { return c.on("path_unlink_file", in, "hello.txt") }, errReadOnly},
			{"mkdir", func() errno { return c.on("path_create_directory", out, "d") }, success},
			{"mkdir again", func() errno { return c.on("path_create_directory", out, "d") }, errExist},
			{"unlink a directory", func() errno { return c.on("path_unlink_file", out, "d") }, errIsDir},
			{"rmdir a file", func() errno { return c.on("path_remove_directory", out, "hello.txt") }, errNotDir},
			{"rmdir not empty", func() errno { return c.on("path_remove_directory", out, "sub") }, errNotEmpty},
			{"rmdir", func() errno { return c.on("path_remove_directory", out, "d") }, success},
			{"unlink", func() errno { return c.on("path_unlink_file", out, "sub/a") }, success},
			{"link", func() errno { return c.two("path_link", out, "sub/b", out, "linked") }, success},
			{"rename", func() errno { return c.two("path_rename", out, "linked", out, "sub/moved") }, success},
			{"rename to elsewhere", func() errno { return c.two("path_rename", out, "sub/moved", in, "x") }, errReadOnly},
			{"symlink", func() errno { return c.symlink("sub/moved", "way") }, success},
			{"absolute symlink", func() errno { return c.symlink("/etc/passwd", "bad") }, errPerm},
			{"symlink out", func() errno { return c.symlink("../../../etc/passwd", "out") }, success},
			{"follow out", func() errno { _, e := c.open(out, "out", 0, readRights); return e }, errPerm},
			{"loop", func() errno { return c.symlink("loop", "loop") }, success},
			{"follow loop", func() errno { _, e := c.open(out, "loop", 0, readRights); return e }, errLoop},
		} {
			if got := test.do(); got != test.want {
				t.Errorf("%s: error %d, want %d", test.what, got, test.want)
			}
		}
		if got, _ := c.read(c.mustOpen(out, "way", 0, readRights)); got != "b" {
			t.Errorf("read %q through a link", got)
		}
		p, n := c.put(atPath, "way")
		c.ok("path_readlink", out, p, n, atData, 6, atResult)
		if got := string(c.bytes(atData, c.result32())); got != "sub/mo" {
			t.Errorf("link says %q", got)
		}
	})
}

func (c *caller) two(name string, from uint64, source string, to uint64, target string) errno {
	p, n := c.put(atPath, source)
	q, m := c.put(atTarget, target)
	if name == "path_link" {
		return c.call(name, from, 0, p, n, to, q, m)
	}
	return c.call(name, from, p, n, to, q, m)
}

func (c *caller) symlink(target, path string) errno {
	p, n := c.put(atPath, path)
	q, m := c.put(atTarget, target)
	return c.call("path_symlink", q, m, out, p, n)
}

func TestList(t *testing.T) {
	eachTree(t, func(t *testing.T, c *caller) {
		sub := c.mustOpen(in, "sub", openDirectory, readRights)
		for _, buffer := range []uint32{25, 40, 64, 4096} {
			want := []string{".", "..", "a", "b", "deep"}
			if buffer < 28 { // too small for the longest name: nothing after it can be read
				continue
			}
			if diff := cmp.Diff(want, c.list(sub, buffer)); diff != "" {
				t.Errorf("buffer of %d bytes (-want +got):\n%s", buffer, diff)
			}
		}
	})
}

// A file looks the same however and wherever it is stored.
func TestStatIsFixed(t *testing.T) {
	var seen [][]byte
	eachTree(t, func(t *testing.T, c *caller) {
		p, n := c.put(atPath, "sub")
		c.ok("path_filestat_get", in, lookupFollow, p, n, atData)
		c.ok("fd_filestat_get", c.mustOpen(in, "./hello.txt", 0, readRights), atData+sizeFileStat)
		seen = append(seen, c.bytes(atData, 2*sizeFileStat))
	})
	if diff := cmp.Diff(seen[0], seen[1]); diff != "" {
		t.Errorf("(-host +memory, or the other way):\n%s", diff)
	}
	if got := binary.LittleEndian.Uint64(seen[0][48:]); got != uint64(testClock.UnixNano()) {
		t.Errorf("modified at %d", got)
	}
}

func TestRights(t *testing.T) {
	c := newCaller(t, Config{Dirs: []Dir{{"/out", trees["memory"](t), true}}})
	const root = 3
	c.ok("fd_fdstat_set_rights", root, uint64(readDirRights), uint64(readFileRights))
	if e := c.on("path_create_directory", root, "d"); e != errNotCap {
		t.Errorf("made a directory without the right: %d", e)
	}
	if _, e := c.open(root, "sub/a", 0, writeRights); e != errNotCap {
		t.Errorf("opened for writing without the right: %d", e)
	}
	if e := c.call("fd_fdstat_set_rights", root, uint64(readDirRights|writeDirRights), 0); e != errNotCap {
		t.Errorf("took rights back: %d", e)
	}
	fd := c.mustOpen(root, "hello.txt", 0, rightRead)
	if e := c.call("fd_seek", fd, 1, 0, atResult); e != errNotCap {
		t.Errorf("seek without the right: %d", e)
	}
}

func TestClockAndRandom(t *testing.T) {
	c := newCaller(t, Config{Clock: &testClock, Seed: &testSeed})
	var got []int64
	for _, id := range []uint64{clockRealtime, clockRealtime, clockMonotonic} {
		c.ok("clock_time_get", id, 1, atResult)
		got = append(got, int64(c.result64()))
	}
	start := testClock.UnixNano()
	// poll_oneoff with one relative clock of an hour
	subscription := make([]byte, sizeSubscription)
	copy(subscription, "userdata")
	binary.LittleEndian.PutUint64(subscription[24:], 3600e9)
	c.put(atData, string(subscription))
	c.ok("poll_oneoff", atData, atTarget, 1, atResult)
	event := c.bytes(atTarget, sizeEvent)
	if c.result32() != 1 || string(event[:8]) != "userdata" || binary.LittleEndian.Uint16(event[8:]) != 0 {
		t.Errorf("poll gave %d events: %q", c.result32(), event)
	}
	c.ok("clock_time_get", clockRealtime, 1, atResult)
	got = append(got, int64(c.result64()))
	want := []int64{start, start + 1000, 2000, start + 3000 + 3600e9}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
	if e := c.call("clock_time_get", 2, 1, atResult); e != errInvalid {
		t.Errorf("processor time: %d", e)
	}

	var random [40]byte
	rand.NewChaCha8(testSeed).Read(random[:])
	c.ok("random_get", atData, 13)
	c.ok("random_get", atData+13, 27)
	if diff := cmp.Diff(random[:], c.bytes(atData, 40)); diff != "" {
		t.Errorf("random bytes (-want +got):\n%s", diff)
	}
}

func TestStdio(t *testing.T) {
	var stdout, stderr bytes.Buffer
	c := newCaller(t, Config{Stdout: &stdout, Stderr: &stderr})
	c.write(1, "to out")
	c.write(2, "to err")
	if got, e := c.read(0); got != "" || e != success {
		t.Errorf("stdin: %q, %d", got, e)
	}
	if e := c.write(0, "x"); e != errBadFD {
		t.Errorf("write to stdin: %d", e)
	}
	if e := c.call("fd_seek", 1, 0, 0, atResult); e != errSeekPipe {
		t.Errorf("seek in stdout: %d", e)
	}
	c.ok("fd_renumber", 2, 1)
	c.write(1, "!")
	if stdout.String() != "to out" || stderr.String() != "to err!" {
		t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
	}
	if a, b := c.system.Written(); a != 6 || b != 7 {
		t.Errorf("counted %d and %d", a, b)
	}
}

func TestRefused(t *testing.T) {
	c := newCaller(t, Config{})
	for name, params := range map[string][]uint64{
		"sock_accept": {0, 0, 0}, "sock_recv": {0, 0, 0, 0, 0, 0}, "sock_send": {0, 0, 0, 0, 0}, "sock_shutdown": {0, 0},
	} {
		if e := c.call(name, params...); e != errNotSocket {
			t.Errorf("%s: %d", name, e)
		}
		params[0] = 9
		if e := c.call(name, params...); e != errBadFD {
			t.Errorf("%s of no descriptor: %d", name, e)
		}
	}
	if e := c.call("proc_raise", 6); e != errNoSystem {
		t.Errorf("proc_raise: %d", e)
	}
	_, err := c.mod.ExportedFunction("proc_exit").Call(c.ctx, 7)
	if exit, ok := errors.AsType[*sys.ExitError](err); !ok || exit.ExitCode() != 7 {
		t.Errorf("proc_exit: %v", err)
	}
}

func TestManyDescriptors(t *testing.T) {
	c := newCaller(t, Config{Dirs: []Dir{{"/in", trees["memory"](t), false}}})
	for {
		fd, e := c.open(3, "hello.txt", 0, readRights)
		if e == success && fd < maxDescriptors {
			continue
		}
		if e != errManyFiles || fd > maxDescriptors {
			t.Errorf("descriptor %d: error %d", fd, e)
		}
		return
	}
}

// What a memory tree may hold is bounded, whatever a module does with names of open files.
func TestMemoryIsBounded(t *testing.T) {
	m := NewMemory(64 << 10)
	c := newCaller(t, Config{Dirs: []Dir{{"/out", m, true}}})
	block := strings.Repeat("x", 8<<10)
	total := 0
	for i := range 100 {
		fd, e := c.open(3, "file", openCreate, writeRights)
		if e == success {
			if e = c.write(fd, block); e == success {
				total += len(block)
			}
			c.on("path_unlink_file", 3, "file") // its descriptor stays open
		}
		if e != success && e != errNoSpace {
			t.Fatalf("round %d: %d", i, e)
		}
	}
	if total > 64<<10 || total < 48<<10 {
		t.Errorf("held %d bytes", total)
	}
	for fd := uint64(4); fd < 200; fd++ {
		c.call("fd_close", fd)
	}
	if m.room != 64<<10 {
		t.Errorf("room is %d after all was closed", m.room)
	}
}

// Pointers that lie outside of memory are EFAULT in every call, and numbers that are too large end nothing.
func TestWildPointers(t *testing.T) {
	c := newCaller(t, Config{Args: []string{"a"}, Env: []string{"b=c"}, Dirs: []Dir{{"/out", trees["memory"](t), true}}})
	for name, f := range functions() {
		if name == "proc_exit" || name == "fd_close" || name == "fd_renumber" {
			continue
		}
		for _, first := range []uint64{0, 1, 3, 1<<32 - 1} {
			for _, value := range []uint64{1<<32 - 1, 1 << 31, 65535, 1<<64 - 1} {
				params := make([]uint64, len(f.params))
				for i := range params {
					params[i] = value
				}
				if len(params) > 0 {
					params[0] = first
				}
				c.call(name, params...)
			}
		}
	}
}
