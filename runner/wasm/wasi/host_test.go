package wasi

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Without a fixed clock, times are the host's, and those of files can be set.
func TestHostClock(t *testing.T) {
	for name, make := range trees {
		t.Run(name, func(t *testing.T) {
			tree := make(t)
			c := newCaller(t, Config{Dirs: []Dir{{"/out", tree, true}}})
			before := time.Now().UnixNano()
			c.ok("clock_time_get", clockRealtime, 0, atResult)
			if got := int64(c.result64()); got < before || got > time.Now().UnixNano() {
				t.Errorf("clock says %d, it was %d", got, before)
			}
			fd := c.mustOpen(3, "new", openCreate, readRights|writeRights)
			c.ok("fd_filestat_set_times", fd, 5e9, 6e9, setAccess|setModify)
			p, n := c.put(atPath, "new")
			c.ok("path_filestat_set_times", 3, lookupFollow, p, n, 0, 7e9, setModify)
			c.ok("fd_filestat_get", fd, atData)
			times := c.bytes(atData+40, 16)
			got := []uint64{binary.LittleEndian.Uint64(times), binary.LittleEndian.Uint64(times[8:])}
			if diff := cmp.Diff([]uint64{5e9, 7e9}, got); diff != "" {
				t.Errorf("times (-want +got):\n%s", diff)
			}
			if e := c.call("fd_filestat_set_times", fd, 5e9, 6e9, setAccess|setAccessNow); e != errInvalid {
				t.Errorf("two times at once: %d", e)
			}
			c.ok("random_get", atData, 16)
			first := string(c.bytes(atData, 16))
			c.ok("random_get", atData, 16)
			if first == string(c.bytes(atData, 16)) {
				t.Error("random bytes come twice")
			}
		})
	}
}

// With a fixed clock files keep the one time that they have.
func TestFixedFileTimes(t *testing.T) {
	eachTree(t, func(t *testing.T, c *caller) {
		fd := c.mustOpen(out, "hello2.txt", openCreate, readRights|writeRights)
		c.ok("fd_filestat_set_times", fd, 5e9, 6e9, setAccess|setModify)
		c.ok("fd_filestat_get", fd, atData)
		if got := binary.LittleEndian.Uint64(c.bytes(atData+48, 8)); got != uint64(testClock.UnixNano()) {
			t.Errorf("modified at %d", got)
		}
	})
}

// What is neither a file nor a directory can be seen, and that is all.
func TestOddFiles(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for link, target := range map[string]string{"out": "/etc/passwd", "up": "../..", "null": "/dev/null"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := OpenHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := newCaller(t, Config{Dirs: []Dir{{"/out", tree, true}}})
	for path, want := range map[string]errno{
		"pipe": errNotSup, "socket": errNotSup, "out": errPerm, "null": errPerm, "up/etc/passwd": errPerm, "up": errPerm,
	} {
		for _, flags := range []uint64{0, openCreate, openTruncate} {
			if _, e := c.open(3, path, flags, readFileRights|writeFileRights); e != want {
				t.Errorf("open %q, flags %d: error %d, want %d", path, flags, e, want)
			}
		}
	}
	if diff := cmp.Diff([]string{".", "..", "null", "out", "pipe", "socket", "up"}, c.list(3, 4096)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if e := c.on("path_unlink_file", 3, "out"); e != success {
		t.Errorf("unlink a link out: %d", e)
	}
}
