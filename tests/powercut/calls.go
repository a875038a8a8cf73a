package powercut

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// traced are the calls that change what is on a disk, or say that it is there. Those that play does not know fail it if they touch the directory.
var traced = []string{
	"open", "openat", "openat2", "creat", "write", "writev", "pwrite64", "pwritev", "pwritev2", "fsync", "fdatasync", "sync_file_range", "syncfs",
	"sync", "msync", "ftruncate", "truncate", "fallocate", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "mkdir",
	"mkdirat", "rmdir", "mknodat", "copy_file_range", "sendfile", "splice", "io_uring_setup", "mmap", "dup", "dup2", "dup3", "fcntl", "lseek",
	"chmod", "fchmod", "fchmodat", "ioctl", "clone", "clone3", "fork", "vfork", "execve",
}

// call is one that has returned.
type call struct {
	enter, exit int
	name        string
	args        []string
	result      int64
	resultPath  string
	failed      bool
}

// readCalls reads what strace wrote, in the order in which the calls were made.
func readCalls(r *bufio.Reader) (calls []call, err error) {
	type open struct {
		at   int
		text string
	}
	unfinished := map[string]open{}
	for at := 1; ; at++ {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		pid, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		text = strings.TrimLeft(text, " ")
		if head, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
			unfinished[pid] = open{at, head}
			continue
		}
		enter := at
		if strings.HasPrefix(text, "<... ") {
			_, rest, _ := strings.Cut(text, " resumed>")
			o := unfinished[pid]
			delete(unfinished, pid)
			enter, text = o.at, o.text+rest
		}
		c, ok := parseCall(text)
		if !ok {
			continue // it was killed in it, or it is the end of a process
		}
		c.enter, c.exit = enter, at
		calls = append(calls, c)
	}
	slices.SortStableFunc(calls, func(a, b call) int { return a.enter - b.enter })
	return calls, nil
}

// parseCall reads name(args) = result.
func parseCall(text string) (c call, ok bool) {
	name, rest, ok := strings.Cut(text, "(")
	end := strings.LastIndex(rest, " = ")
	if !ok || end < 0 || strings.HasPrefix(text, "+++") {
		return c, false
	}
	args := strings.TrimSuffix(strings.TrimRight(rest[:end], " "), ")")
	result, _, _ := strings.Cut(rest[end+3:], " ")
	number, path, _ := strings.Cut(result, "<")
	c = call{name: name, args: strings.Split(args, ", "), resultPath: text16(strings.TrimSuffix(path, ">"))}
	var err error
	if c.result, err = strconv.ParseInt(number, 0, 64); err != nil {
		return c, number == "?"
	}
	c.failed = c.result == -1
	return c, true
}

// text16 reads what strace writes for bytes.
func text16(s string) string {
	var out []byte
	for s = strings.Trim(s, `"`); len(s) >= 4 && strings.HasPrefix(s, `\x`); s = s[4:] {
		n, err := strconv.ParseUint(s[2:4], 16, 8)
		if err != nil {
			break
		}
		out = append(out, byte(n))
	}
	return string(out)
}

// descriptor reads 5<path>; the number of AT_FDCWD is -100.
func descriptor(arg string) (number int, path string) {
	text, path, _ := strings.Cut(arg, "<")
	number, err := strconv.Atoi(text)
	if err != nil {
		number = -100
	}
	path, _, _ = strings.Cut(path, ">")
	return number, text16(path)
}

func number(arg string) int64 {
	n, err := strconv.ParseInt(arg, 0, 64)
	if err != nil {
		return -1
	}
	return n
}

// player follows calls.
type player struct {
	*Trace
	dir string // absolute
	fds map[int]*openFile
	due []binding // of calls that had not returned
}

// binding is what a descriptor means from when the call that made it has returned: another thread may use the one of that number until then.
type binding struct {
	exit, fd int
	file     *openFile // nil: a file elsewhere
}

// bind does what is due before a call at an instant is made.
func (p *player) bind(at int) {
	p.due = slices.DeleteFunc(p.due, func(b binding) bool {
		if b.exit >= at {
			return false
		}
		p.fds[b.fd] = b.file
		return true
	})
}

type openFile struct {
	n      *inode
	at     int64
	append bool
	sync   bool // each write is durable when it returns
}

func replay(dir string, before *inode, calls []call) (*Trace, error) {
	p := &player{&Trace{root: before}, dir, map[int]*openFile{}, nil}
	p.know(before)
	for _, c := range calls {
		p.bind(c.enter)
		if err := p.play(c); err != nil {
			return nil, fmt.Errorf("line %d of strace, %s: %w", c.enter, c.name, err)
		}
	}
	p.settle()
	return p.Trace, nil
}

func (p *player) know(n *inode) {
	p.nodes = append(p.nodes, n)
	for _, e := range n.entries {
		p.know(e)
	}
}

// below returns a path relative to the directory. False: it does not lie in it.
func (p *player) below(path string) (string, bool) {
	if path == p.dir {
		return ".", true
	}
	return strings.CutPrefix(path, p.dir+"/")
}

// find returns the directory that has the last name of a path.
func (p *player) find(path string) (dir *inode, name string, err error) {
	rel, ok := p.below(path)
	if !ok {
		return nil, "", nil
	}
	dir = p.root
	above, name := filepath.Split(rel)
	for part := range strings.SplitSeq(strings.Trim(above, "/"), "/") {
		if part == "" {
			continue
		}
		if dir = dir.now[part]; dir == nil {
			return nil, "", fmt.Errorf("there is no directory of %s", rel)
		}
	}
	return dir, name, nil
}

func (p *player) node(path string) *inode {
	if path == p.dir {
		return p.root
	}
	dir, name, err := p.find(path)
	if dir == nil || err != nil {
		return nil
	}
	return dir.now[name]
}

// at joins a directory's descriptor and a path.
func at(fd, path string) string {
	_, base := descriptor(fd)
	if name := text16(path); !strings.HasPrefix(name, "/") {
		return filepath.Join(base, name)
	} else {
		return filepath.Clean(name)
	}
}

var errUnknown = errors.New("the recorder does not know this call")

// play does what a call did.
func (p *player) play(c call) error {
	if c.failed {
		if c.name == "fsync" || c.name == "fdatasync" {
			p.sync(c)
		}
		return nil
	}
	switch c.name {
	case "open", "creat", "openat", "openat2":
		return p.open(c)
	case "write", "pwrite64":
		return p.write(c)
	case "fsync", "fdatasync":
		p.sync(c)
	case "sync", "syncfs":
		for _, n := range p.nodes {
			n.syncs = append(n.syncs, sync{c.enter, c.exit, false, c.name})
		}
	case "ftruncate":
		if f := p.file(c.args[0]); f != nil {
			p.cut(c, f.n, number(c.args[1]))
		}
	case "truncate":
		if n := p.node(text16(c.args[0])); n != nil {
			p.cut(c, n, number(c.args[1]))
		}
	case "fallocate":
		if f := p.file(c.args[0]); f != nil {
			if c.args[1] != "0" {
				return errUnknown
			}
			p.cut(c, f.n, max(f.n.size, number(c.args[2])+number(c.args[3])))
		}
	case "lseek":
		if f := p.file(c.args[0]); f != nil {
			f.at = c.result
		}
	case "dup", "dup2", "dup3":
		p.dup(c)
	case "fcntl":
		if strings.HasPrefix(c.args[1], "F_DUPFD") {
			p.dup(c)
		}
	case "clone", "clone3", "fork", "vfork":
		if !strings.Contains(strings.Join(c.args, " "), "CLONE_THREAD") {
			return errors.New("the process forks, which the recorder does not follow")
		}
	case "execve":
	case "mmap":
		if len(c.args) > 4 && strings.Contains(c.args[2], "PROT_WRITE") && strings.Contains(c.args[3], "MAP_SHARED") {
			return p.unknown(c)
		}
	case "io_uring_setup":
		return errUnknown
	case "ioctl":
		if strings.Contains(c.args[1], "FICLONE") {
			return p.unknown(c)
		}
	case "chmod", "fchmod", "fchmodat":
		p.chmod(c)
	case "sync_file_range":
	default:
		return p.names1(c)
	}
	return nil
}

// unknown fails if a call touches the directory.
func (p *player) unknown(c call) error {
	for _, a := range c.args {
		_, path := descriptor(a)
		if _, ok := p.below(path); ok && path != "" {
			return errUnknown
		}
		if _, ok := p.below(text16(a)); ok {
			return errUnknown
		}
	}
	return nil
}

// names1 plays the calls that change names.
func (p *player) names1(c call) error {
	a := c.args
	switch c.name {
	case "mkdir", "mkdirat":
		path, mode := text16(a[0]), a[len(a)-1]
		if c.name == "mkdirat" {
			path = at(a[0], a[1])
		}
		return p.add(c, path, &inode{dir: true, mode: os.FileMode(number(mode)) &^ 0o22, entries: map[string]*inode{}, now: map[string]*inode{}})
	case "symlink":
		return p.add(c, text16(a[1]), &inode{link: text16(a[0])})
	case "symlinkat":
		return p.add(c, at(a[1], a[2]), &inode{link: text16(a[0])})
	case "unlink", "rmdir":
		return p.rename(c, text16(a[0]), "", false)
	case "unlinkat":
		return p.rename(c, at(a[0], a[1]), "", false)
	case "rename":
		return p.rename(c, text16(a[0]), text16(a[1]), false)
	case "renameat", "renameat2":
		if len(a) > 4 && strings.Contains(a[4], "RENAME_EXCHANGE") {
			return p.unknown(c)
		}
		return p.rename(c, at(a[0], a[1]), at(a[2], a[3]), false)
	case "link":
		return p.rename(c, text16(a[0]), text16(a[1]), true)
	case "linkat":
		return p.rename(c, at(a[0], a[1]), at(a[2], a[3]), true)
	}
	return p.unknown(c)
}

func (p *player) file(arg string) *openFile {
	n, _ := descriptor(arg)
	return p.fds[n]
}

func (p *player) dup(c call) {
	p.due = append(p.due, binding{c.exit, int(c.result), p.file(c.args[0])})
}

func (p *player) chmod(c call) {
	var n *inode
	mode := c.args[1]
	switch c.name {
	case "fchmod":
		if f := p.file(c.args[0]); f != nil {
			n = f.n
		}
	case "chmod":
		n = p.node(text16(c.args[0]))
	default:
		n, mode = p.node(at(c.args[0], c.args[1])), c.args[2]
	}
	if n != nil {
		n.mode = os.FileMode(number(mode))
	}
}

// open plays an open, by the path that the kernel says was opened.
func (p *player) open(c call) error {
	flags := strings.Join(c.args, " ")
	if _, ok := p.below(c.resultPath); !ok {
		p.due = append(p.due, binding{c.exit, int(c.result), nil})
		return nil
	}
	if strings.Contains(flags, "O_TMPFILE") {
		return errUnknown
	}
	n := p.node(c.resultPath)
	if n == nil {
		if !strings.Contains(flags, "O_CREAT") && c.name != "creat" {
			return fmt.Errorf("%s was opened and never made", c.resultPath)
		}
		n = &inode{mode: os.FileMode(number(c.args[len(c.args)-1])) &^ 0o22}
		if err := p.add(c, c.resultPath, n); err != nil {
			return err
		}
	} else if (strings.Contains(flags, "O_TRUNC") || c.name == "creat") && n.size > 0 {
		p.cut(c, n, 0)
	}
	file := &openFile{n: n, append: strings.Contains(flags, "O_APPEND"), sync: strings.Contains(flags, "O_SYNC") || strings.Contains(flags, "O_DSYNC")}
	p.due = append(p.due, binding{c.exit, int(c.result), file})
	return nil
}

func (p *player) write(c call) error {
	fd, path := descriptor(c.args[0])
	if c.result <= 0 {
		return nil
	}
	f := p.fds[fd]
	if f == nil {
		if _, ok := p.below(path); ok {
			return fmt.Errorf("%s was written and never opened", path)
		}
		if fd == 1 {
			p.said = append(p.said, said{c.enter, text16(c.args[1])[:c.result]})
		}
		return nil
	}
	data := []byte(text16(c.args[1]))[:c.result]
	place := f.at
	switch {
	case c.name == "pwrite64":
		place = number(c.args[3])
	case f.append:
		place = f.n.size
		f.at = place + c.result
	default:
		f.at += c.result
	}
	f.n.changes = append(f.n.changes, &change{life: life{enter: c.enter, exit: c.exit}, at: place, data: data})
	f.n.size = max(f.n.size, place+c.result)
	if f.sync {
		rel, _ := p.below(path)
		f.n.syncs = append(f.n.syncs, sync{c.exit + 1, c.exit + 1, false, rel})
	}
	return nil
}

func (p *player) cut(c call, n *inode, size int64) {
	n.changes = append(n.changes, &change{life: life{enter: c.enter, exit: c.exit}, at: size, cut: true})
	n.size = size
}

func (p *player) sync(c call) {
	fd, path := descriptor(c.args[0])
	if f := p.fds[fd]; f != nil {
		rel, _ := p.below(path)
		f.n.syncs = append(f.n.syncs, sync{c.enter, c.exit, c.failed, rel})
	}
}

func (p *player) add(c call, path string, n *inode) error {
	dir, name, err := p.find(path)
	if dir == nil || err != nil {
		return err
	}
	p.nodes = append(p.nodes, n)
	dir.now[name] = n
	p.names = append(p.names, &nameChange{life{enter: c.enter, exit: c.exit}, []edit{{dir, name, n}}})
	return nil
}

// rename plays a rename, a link, or, with nowhere to go, a removal.
func (p *player) rename(c call, from, to string, keep bool) error {
	source, name, err := p.find(from)
	if err != nil {
		return err
	}
	target, newName, err := p.find(to)
	if err != nil {
		return err
	}
	if source == nil && target == nil {
		return nil
	}
	if source == nil || to != "" && target == nil {
		return errors.New("something is moved into the directory, or out of it")
	}
	n := source.now[name]
	if n == nil {
		return fmt.Errorf("there is no %s", from)
	}
	change := &nameChange{life: life{enter: c.enter, exit: c.exit}}
	if target != nil {
		target.now[newName] = n
		change.edits = append(change.edits, edit{target, newName, n})
	}
	if !keep {
		delete(source.now, name)
		change.edits = append(change.edits, edit{source, name, nil})
	}
	p.names = append(p.names, change)
	return nil
}
