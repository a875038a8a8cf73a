// Package powercut shows what a process may leave on the disk if the power goes while it writes. It follows the real process with strace,
// so that no library can write past it; what it saw, played back whole, must be the directory as it is, or Record fails.
//
// A power cut leaves what was synced, and any part of what was not: writes in any order and torn at sectors, names in the order in which
// they were given, each directory as far as it was synced or further. A file that was synced has its name only if the directory was synced, too. Content that was
// not on the disk when a sync failed is not made durable by a later sync: the kernel has dropped it. Names it keeps, or no sync works any more.
//
// It does not know processes that fork, writable shared mappings, and copies that the kernel makes; Record fails on them.
package powercut

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Trace is what a process did to a directory and told its standard output.
type Trace struct {
	root  *inode
	nodes []*inode
	names []*nameChange
	said  []said
	marks []mark // in time; a line of strace's is one instant
}

// inode is a file or a directory, whatever its names.
type inode struct {
	dir     bool
	link    string // of a symbolic link
	mode    os.FileMode
	first   []byte            // content of a file before
	entries map[string]*inode // of a directory before
	now     map[string]*inode // of a directory, while the trace is read
	size    int64             // of a file, while the trace is read
	changes []*change
	syncs   []sync
}

// life is when something happened, and from when on it is durable: never, unless a sync says so.
type life struct {
	enter, exit int
	durable     int
	doubtful    bool // a sync has failed on it
}

// change is one of a file's content.
type change struct {
	life
	at   int64
	data []byte
	cut  bool // to the length at, instead of data
}

// nameChange is one of names in directories.
type nameChange struct {
	life
	edits []edit
}

type edit struct {
	dir  *inode
	name string
	to   *inode // nil: the name is removed
}

type sync struct {
	enter, exit int
	failed      bool
	path        string // below the directory
}

type said struct {
	enter int
	text  string
}

type mark struct {
	at   int
	what string
	said bool
}

const never = math.MaxInt

// ErrNoTracer says that there is no strace.
var ErrNoTracer = errors.New("strace is not installed")

// Record runs a command, which alone writes to the directory meanwhile, and returns what it did. Its standard output is recorded; that it ends with another status than zero
// is no error. Inject, if any, are strace's expressions for faults, such as "fsync:error=EIO:when=3".
func Record(dir string, cmd *exec.Cmd, inject ...string) (*Trace, error) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil, ErrNoTracer
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	before, err := readTree(dir)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp("", "powercut-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	args := []string{strace, "-f", "-qqq", "-y", "-xx", "-s", "100000000", "--seccomp-bpf", "-e", "signal=none", "-e", "trace=" + strings.Join(traced, ","), "-o", file.Name()}
	for _, i := range inject {
		args = append(args, "-e", "inject="+i)
	}
	cmd.Args = append(args, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	cmd.Path = strace
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			return nil, err
		}
	}
	calls, err := readCalls(bufio.NewReader(file))
	if err != nil {
		return nil, err
	}
	t, err := replay(dir, before, calls)
	if err != nil {
		return nil, err
	}
	whole := t.image(moment{at: never - 1, kind: kept})
	if diff := whole.differs(dir); diff != "" {
		return nil, fmt.Errorf("what strace saw is not what is there: %s", diff)
	}
	return t, nil
}

// Failed reports whether a sync has failed.
func (t *Trace) Failed() bool {
	for _, n := range t.nodes {
		for _, s := range n.syncs {
			if s.failed {
				return true
			}
		}
	}
	return false
}

// readTree reads a directory as it is on the disk.
func readTree(dir string) (*inode, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	n := &inode{dir: info.IsDir(), mode: info.Mode().Perm()}
	switch {
	case info.IsDir():
		n.entries, n.now = map[string]*inode{}, map[string]*inode{}
		list, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if n.entries[e.Name()], err = readTree(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
			n.now[e.Name()] = n.entries[e.Name()]
		}
	case info.Mode()&os.ModeSymlink != 0:
		n.link, err = os.Readlink(dir)
	case info.Mode().IsRegular():
		n.first, err = os.ReadFile(dir)
		n.size = int64(len(n.first))
	}
	return n, err
}

// Without returns the same life without the syncs of the files and directories that match, given by their paths below the directory: what
// a program would leave that had forgotten them. False: there was none.
func (t *Trace) Without(match func(path string) bool) (*Trace, bool) {
	out, found := *t, false
	saved := map[*inode][]sync{}
	for _, n := range t.nodes {
		saved[n] = n.syncs
		var left []sync
		for _, s := range n.syncs {
			if match(s.path) {
				found = true
				continue
			}
			left = append(left, s)
		}
		n.syncs = left
	}
	copies := map[*inode]*inode{}
	out.root = t.root.copy(copies)
	out.nodes = nil
	for _, n := range t.nodes {
		out.nodes = append(out.nodes, n.copy(copies))
		n.syncs = saved[n]
	}
	out.names = nil
	for _, c := range t.names {
		c2 := &nameChange{life: c.life}
		for _, e := range c.edits {
			c2.edits = append(c2.edits, edit{e.dir.copy(copies), e.name, e.to.copy(copies)})
		}
		out.names = append(out.names, c2)
	}
	out.settle()
	return &out, found
}

// copy copies an inode with all that it leads to, once.
func (n *inode) copy(done map[*inode]*inode) *inode {
	if n == nil {
		return nil
	}
	if c := done[n]; c != nil {
		return c
	}
	c := *n
	done[n] = &c
	c.changes, c.entries, c.now = nil, map[string]*inode{}, nil
	for _, ch := range n.changes {
		dup := *ch
		c.changes = append(c.changes, &dup)
	}
	for name, e := range n.entries {
		c.entries[name] = e.copy(done)
	}
	return &c
}

// settle says from when on each change is durable.
func (t *Trace) settle() {
	t.marks = nil
	for _, s := range t.said {
		t.marks = append(t.marks, mark{s.enter, "it said " + strings.TrimSpace(s.text), true})
	}
	ofDir := map[*inode][]*life{}
	for _, c := range t.names {
		c.durable, c.doubtful = never, false
		t.marks = append(t.marks, mark{c.enter, "the name " + c.edits[0].name, false})
		for _, e := range c.edits {
			ofDir[e.dir] = append(ofDir[e.dir], &c.life)
		}
	}
	for _, n := range t.nodes {
		lives := ofDir[n]
		for _, c := range n.changes {
			c.durable, c.doubtful = never, false
			lives = append(lives, &c.life)
			t.marks = append(t.marks, mark{c.enter, fmt.Sprintf("the write of %d bytes at %d", len(c.data), c.at), false})
		}
		for _, s := range n.syncs {
			t.marks = append(t.marks, mark{s.exit, "the sync of " + s.path, false})
			for _, l := range lives {
				switch {
				case l.exit >= s.enter:
				case s.failed && l.durable > s.enter:
					l.doubtful = !n.dir
				case s.failed:
				case !s.failed && !l.doubtful:
					l.durable = min(l.durable, s.exit)
				}
			}
		}
	}
}
