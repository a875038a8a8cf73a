package unpack

import (
	"fmt"
	"strings"
)

// maxLinks is how many symbolic links one path may lead through: MAXSYMLINKS of Linux (path_resolution(7)).
const maxLinks = 40

// place is a directory of the tree: its node and its path, which holds no symbolic link. The root's path is "".
type place struct {
	node *node
	path string
}

// names are the rules for the names of an archive.
type names struct {
	mode   Mode
	limits Limits
}

// split checks a name of an archive and returns its elements. "." and empty elements are dropped; ".." is refused
// everywhere, because no honest archiver writes it and every reader treats it differently.
func (t names) split(name string) ([]string, error) {
	if strings.ContainsRune(name, 0) {
		return nil, &EntryError{name, "NUL byte in the name"}
	}
	if len(name) > t.limits.Path {
		return nil, &LimitError{"bytes in a path", int64(t.limits.Path)}
	}
	if t.mode == Strict && strings.HasPrefix(name, "/") {
		return nil, &EntryError{name, "absolute name"}
	}
	var elems []string
	for e := range strings.SplitSeq(name, "/") {
		switch {
		case e == "" || e == ".":
			continue
		case e == "..":
			return nil, &EntryError{name, `".." in the name`}
		case len(e) > t.limits.Name:
			return nil, &LimitError{"bytes in a name", int64(t.limits.Name)}
		}
		elems = append(elems, e)
	}
	if len(elems) > t.limits.Depth {
		return nil, &LimitError{"path elements", int64(t.limits.Depth)}
	}
	return elems, nil
}

// place finds, and makes where it is missing, the parent directory of name. elems may be given if they are known.
func (t *Tree) place(name string, elems []string) (place, string, error) {
	if elems == nil {
		var err error
		if elems, err = t.split(name); err != nil {
			return place{}, "", err
		}
	}
	if len(elems) == 0 {
		return place{}, "", &EntryError{name, "names the root of the tree"}
	}
	at, err := t.walk(name, elems[:len(elems)-1], true)
	return at, elems[len(elems)-1], err
}

// walk resolves directories from the root as chroot(2) would: absolute links start at the tree's root, and ".." in a
// link's target stops there. With create, missing directories are made and a file in the way is replaced or refused
// as the mode says; without, the place's node is nil if there is no such directory.
func (t *Tree) walk(name string, elems []string, create bool) (place, error) {
	stack := []place{{t.model, ""}} // from the root to the current directory
	todo := append([]string(nil), elems...)
	links := 0
	for steps := 0; len(todo) > 0; steps++ {
		if steps > t.limits.Path {
			return place{}, &EntryError{name, "leads through too many path elements"}
		}
		e, at := todo[0], stack[len(stack)-1]
		todo = todo[1:]
		if e == "" || e == "." {
			continue
		}
		if e == ".." {
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		n := at.node.children[e]
		if n != nil && n.kind == link {
			if t.mode == Strict {
				return place{}, &EntryError{name, fmt.Sprintf("leads through the symbolic link %q", clip(join(at.path, e)))}
			}
			if links++; links > maxLinks {
				return place{}, &EntryError{name, "leads through too many symbolic links"}
			}
			if strings.HasPrefix(n.target, "/") {
				stack = stack[:1]
			}
			todo = append(strings.Split(n.target, "/"), todo...)
			continue
		}
		if n == nil || n.kind == file {
			if !create {
				return place{}, nil
			}
			var err error
			if n, err = t.makeParent(name, at, e); err != nil {
				return place{}, err
			}
		}
		stack = append(stack, place{n, join(at.path, e)})
		if len(stack) > t.limits.Depth+1 {
			return place{}, &LimitError{"path elements", int64(t.limits.Depth)}
		}
	}
	return stack[len(stack)-1], nil
}

// makeParent makes a directory that an archive implied without listing it.
func (t *Tree) makeParent(name string, at place, e string) (*node, error) {
	if len(e) > t.limits.Name {
		return nil, &LimitError{"bytes in a name", int64(t.limits.Name)}
	}
	if at.node.children[e] != nil {
		if err := t.replace(name, at, e, dir); err != nil {
			return nil, err
		}
	}
	if err := t.mkdir(at, e); err != nil {
		return nil, err
	}
	return at.node.children[e], nil
}

// checkTarget judges the target of the symbolic link name.
func (t names) checkTarget(name, target string) error {
	switch {
	case target == "":
		return &EntryError{name, "symbolic link without a target"}
	case strings.ContainsRune(target, 0):
		return &EntryError{name, "symbolic link with a NUL byte in its target"}
	case len(target) > t.limits.Path:
		return &LimitError{"bytes in a symbolic link's target", int64(t.limits.Path)}
	}
	return nil
}
