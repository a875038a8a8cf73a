package powercut

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// kind is what a power cut leaves of what was not synced.
type kind int

const (
	lost      kind = iota // nothing
	kept                  // all: the process was killed, and the power stayed
	namesOnly             // names, not content
	zeros                 // names and lengths, not content
	dataOnly              // content, not names
	scattered             // some, by chance
	kinds
)

func (k kind) String() string {
	return [...]string{"nothing unsynced stays", "everything stays", "unsynced names stay without content", "unsynced content is zeros", "unsynced content stays without names", "some of the unsynced stays"}[k]
}

// sector is how much a disk writes at once, in bytes.
const sector = 512

// moment is a power cut.
type moment struct {
	at   int
	kind kind
	seed uint64
	what string
}

// Image is what a power cut leaves.
type Image struct {
	When string // the last thing that happened, and what is left of what was not synced
	Said string // what the process had written to its standard output

	root *file
}

// file is a file or directory of an image.
type file struct {
	n       *inode
	content []byte
	entries map[string]*file
}

// Some is how many images a test looks at, for Images; ARCH_POWER_CUTS=all in the environment has it look at all that there are.
func Some(some int) int {
	if os.Getenv("ARCH_POWER_CUTS") == "all" {
		return -1
	}
	return some
}

// Images returns at most so many images, no two alike, chosen by the seed: first what is left if nothing unsynced stays at each word
// that the process said, then others.
func (t *Trace) Images(seed uint64, most int) []Image {
	slices.SortFunc(t.marks, func(a, b mark) int { return a.at - b.at })
	var list []moment
	for _, m := range t.marks {
		for k := range kinds {
			list = append(list, moment{m.at, k, seed + uint64(m.at), m.what})
		}
	}
	r := rand.New(rand.NewPCG(seed, 1))
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	atWord := map[int]bool{}
	for _, s := range t.said {
		atWord[s.enter] = true
	}
	first := func(m moment) bool { return m.kind == lost && atWord[m.at] }
	sort.SliceStable(list, func(i, j int) bool { return first(list[i]) && !first(list[j]) })
	var out []Image
	seen := map[[sha256.Size]byte]bool{}
	for _, m := range list {
		if len(out) == most {
			break
		}
		im := t.image(m)
		h := sha256.New()
		fmt.Fprintln(h, im.Said)
		im.root.sum(h, ".")
		if sum := [sha256.Size]byte(h.Sum(nil)); !seen[sum] {
			seen[sum] = true
			out = append(out, im)
		}
	}
	return out
}

// image makes the image of a moment.
func (t *Trace) image(m moment) Image {
	r := rand.New(rand.NewPCG(m.seed, 2))
	im := Image{When: fmt.Sprintf("after %s (%d), %s", m.what, m.at, m.kind)}
	for _, s := range t.said {
		if s.enter <= m.at {
			im.Said += s.text
		}
	}
	dirs := map[*inode]map[string]*inode{}
	entries := func(n *inode) map[string]*inode {
		if dirs[n] == nil {
			dirs[n] = map[string]*inode{}
			maps.Copy(dirs[n], n.entries)
		}
		return dirs[n]
	}
	upTo := m.at
	if m.kind == scattered {
		upTo = r.IntN(m.at + 1)
	}
	for _, c := range t.names {
		if c.enter > m.at || c.durable > m.at && (m.kind == lost || m.kind == dataOnly || c.enter > upTo) {
			continue
		}
		for _, e := range c.edits {
			if e.to == nil {
				delete(entries(e.dir), e.name)
			} else {
				entries(e.dir)[e.name] = e.to
			}
		}
	}
	made := map[*inode]*file{}
	var build func(n *inode) *file
	build = func(n *inode) *file {
		if f := made[n]; f != nil {
			return f
		}
		f := &file{n: n}
		made[n] = f
		if !n.dir {
			f.content = n.content(m, r)
			return f
		}
		f.entries = map[string]*file{}
		list := entries(n)
		for _, name := range sortedKeys(list) {
			f.entries[name] = build(list[name])
		}
		return f
	}
	im.root = build(t.root)
	return im
}

func sortedKeys[T any](m map[string]T) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// content is what a power cut leaves of a file's content.
func (n *inode) content(m moment, r *rand.Rand) []byte {
	data, stuck := bytes.Clone(n.first), false
	for _, c := range n.changes {
		if c.enter > m.at {
			break
		}
		write := c.data
		if c.durable > m.at {
			switch m.kind {
			case lost, namesOnly:
				continue
			case zeros:
				if end := c.at + int64(len(write)); !c.cut && end > int64(len(data)) {
					data = resize(data, end)
				}
				continue
			case scattered:
				if stuck || r.IntN(3) == 0 {
					stuck = stuck || c.cut // what comes after belongs to the file as it was cut
					continue
				}
				if len(write) > sector && r.IntN(2) == 0 {
					for at := 0; at < len(write); { // a sector is one of the file's, wherever the write begins
						end := min(at+sector-int(c.at+int64(at))%sector, len(write))
						if r.IntN(2) == 0 {
							data = put(data, c.at+int64(at), write[at:end])
						}
						at = end
					}
					continue
				}
				if len(write) <= sector && len(write) > 1 && r.IntN(4) == 0 {
					write = write[:r.IntN(len(write))] // the length of a file need not be at a sector
				}
			}
		}
		if c.cut {
			data = resize(data, c.at)
		} else {
			data = put(data, c.at, write)
		}
	}
	return data
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		return data[:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

func put(data []byte, at int64, write []byte) []byte {
	if end := at + int64(len(write)); end > int64(len(data)) {
		data = resize(data, end)
	}
	copy(data[at:], write)
	return data
}

func (f *file) sum(h hash.Hash, path string) {
	fmt.Fprintf(h, "%q %v %q %d\n", path, f.n.dir, f.n.link, len(f.content))
	h.Write(f.content)
	for _, name := range sortedKeys(f.entries) {
		f.entries[name].sum(h, path+"/"+name)
	}
}

// Restore makes a directory, which it empties first, the image.
func (im Image) Restore(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return im.root.restore(dir, map[*inode]string{})
}

func (f *file) restore(path string, made map[*inode]string) error {
	if first := made[f.n]; first != "" {
		return os.Link(first, path)
	}
	made[f.n] = path
	switch {
	case f.n.link != "":
		return os.Symlink(f.n.link, path)
	case !f.n.dir:
		return os.WriteFile(path, f.content, f.n.mode)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for name, e := range f.entries {
		if err := e.restore(filepath.Join(path, name), made); err != nil {
			return err
		}
	}
	return os.Chmod(path, f.n.mode)
}

// differs says what is not in a directory as in the image; empty: all is.
func (im Image) differs(dir string) string {
	have, err := readTree(dir)
	if err != nil {
		return err.Error()
	}
	return im.root.compare(have, ".")
}

func (f *file) compare(have *inode, path string) string {
	switch {
	case have == nil:
		return path + " is not there"
	case f.n.dir != have.dir || f.n.link != have.link:
		return path + " is of another kind"
	case !bytes.Equal(f.content, have.first):
		return fmt.Sprintf("%s has other content: %d bytes, and %d were written", path, len(have.first), len(f.content))
	}
	for name := range have.entries {
		if f.entries[name] == nil {
			return strings.TrimPrefix(path+"/"+name, "./") + " was made without being seen"
		}
	}
	for name, e := range f.entries {
		if diff := e.compare(have.entries[name], strings.TrimPrefix(path+"/"+name, "./")); diff != "" {
			return diff
		}
	}
	return ""
}

// Check restores each image in the directory where it was recorded, and returns what check says of the first that it does not like.
func Check(dir string, images []Image, check func(Image) error) error {
	for _, im := range images {
		if err := im.Restore(dir); err != nil {
			return err
		}
		if err := check(im); err != nil {
			return fmt.Errorf("power cut %s: %w", im.When, err)
		}
	}
	return nil
}
