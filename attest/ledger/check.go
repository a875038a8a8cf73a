package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Fault is one thing that is wrong with a log's files.
type Fault struct {
	Path string `json:"path"` // below the log's prefix
	What string `json:"what"`
}

// Report is what a check found.
type Report struct {
	Signed *Signed    // the checkpoint; nil if it is not right
	Tree   Checkpoint // what was checked: for a Dir it may be further than the checkpoint
	Faults []Fault    // at most MaxFaults
	// Spare are files that no state of the log needs: partial ones that full ones have replaced, and what a killed writer left. Those that do not hold what
	// the log does say so.
	Spare []Fault
}

// MaxFaults is how many faults a check lists before it gives up.
const MaxFaults = 100

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Faults) == 0 }

// Check computes a log anew from its entries, and compares with every tile and with the signed checkpoint. For a Dir it also checks what
// is durable and not signed yet, and every other file there. Visit, if not nil, sees each entry in the order of the log; what it
// says against one is a fault of it. The error is for what keeps the check from going on, such as ctx, or a *QuorumError; faults are in the
// report.
func Check(ctx context.Context, policy *Policy, from Source, visit func(index int64, entry []byte) error) (*Report, error) {
	c := &checker{ctx: ctx, from: from, visit: visit, report: &Report{}}
	if err := c.states(policy); err != nil {
		return nil, err
	}
	if !c.report.OK() {
		return c.report, nil // without a state that is vouched for there is nothing to compare with
	}
	if err := c.entries(); err != nil {
		return nil, err
	}
	if dir, ok := from.(Dir); ok {
		return c.report, c.files(dir)
	}
	return c.report, nil
}

// checker computes the tree from the entries.
type checker struct {
	ctx    context.Context
	from   Source
	visit  func(int64, []byte) error
	report *Report
	size   int64
	roots  map[int64]state // by size
	tree   growing
	open   [][]tlog.Hash // of each level, the hashes of the tile that is not full
}

// state is a root that someone vouches for.
type state struct {
	path string
	root tlog.Hash
}

func (c *checker) fault(path, format string, args ...any) {
	if len(c.report.Faults) < MaxFaults {
		c.report.Faults = append(c.report.Faults, Fault{path, fmt.Sprintf(format, args...)})
	}
}

// states reads what the log is said to be.
func (c *checker) states(policy *Policy) error {
	data, err := c.from.ReadCheckpoint(c.ctx)
	if err != nil {
		return fmt.Errorf("check log: read checkpoint: %w", err)
	}
	signed, err := policy.Open(data)
	if quorum, ok := errors.AsType[*QuorumError](err); ok {
		return quorum // not the log's fault
	}
	if err == nil {
		err = oneForm(data)
	}
	if err != nil {
		c.fault(CheckpointPath, "%v", err)
		return nil
	}
	c.report.Signed, c.report.Tree, c.size = signed, signed.Checkpoint, signed.Size
	c.roots = map[int64]state{signed.Size: {CheckpointPath, signed.Root}}
	dir, ok := c.from.(Dir)
	if !ok {
		return nil
	}
	tree, err := dir.ReadTree(signed.Origin)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a copy of what is published
	case err != nil:
		c.fault(TreePath, "%v", err)
	case tree.Size < signed.Size:
		c.fault(TreePath, "it has %d entries, and the checkpoint %d", tree.Size, signed.Size)
	case tree.Size == signed.Size && tree.Root != signed.Root:
		c.fault(TreePath, "its root is not that of the checkpoint")
	default:
		c.report.Tree, c.size = tree, tree.Size
		c.roots[tree.Size] = state{TreePath, tree.Root}
		c.roots[signed.Size] = state{CheckpointPath, signed.Root}
	}
	return nil
}

// oneForm refuses the second spellings of base64 that verifying lets pass.
func oneForm(note []byte) error {
	_, sigs, _ := bytes.Cut(note, []byte("\n\n"))
	for line := range strings.Lines(string(sigs)) {
		text := strings.TrimSuffix(line, "\n")
		encoded := text[strings.LastIndexByte(text, ' ')+1:]
		if data, err := base64.StdEncoding.Strict().DecodeString(encoded); err != nil || base64.StdEncoding.EncodeToString(data) != encoded {
			return errors.New("a signature is not in its one form")
		}
	}
	return nil
}

// entries goes through all bundles.
func (c *checker) entries() error {
	c.compareRoot()
	for at := int64(0); at < c.size; {
		if err := c.ctx.Err(); err != nil {
			return fmt.Errorf("check log: %w", err)
		}
		b, _ := BundleOf(at, c.size)
		leaves, err := c.bundle(b)
		if err != nil {
			return err
		}
		if leaves == nil {
			return nil // neither the entries nor their hashes are there
		}
		for _, leaf := range leaves {
			c.tree.add(leaf)
			c.compareRoot()
		}
		c.grow(0, leaves)
		at += int64(b.Width)
	}
	for level := 0; level < len(c.open); level++ {
		if left := c.open[level]; len(left) > 0 {
			c.compareTile(level, left)
		}
	}
	return nil
}

// bundle returns the hashes of a bundle's entries, or those in the tile above if the bundle is not right.
func (c *checker) bundle(b Bundle) ([]tlog.Hash, error) {
	data, err := c.from.ReadBundle(c.ctx, b.Path())
	var entries [][]byte
	if err == nil {
		entries, err = ParseEntries(b, data)
	}
	if c.ctx.Err() != nil {
		return nil, fmt.Errorf("check log: %w", c.ctx.Err())
	}
	if err != nil {
		c.fault(b.Path(), "%v", err)
		t := Tile{Level: 0, Number: b.Number, Width: b.Width}
		data, err := c.from.ReadTile(c.ctx, t.Path())
		if err != nil {
			return nil, nil // the tile is a fault of its own, found when it is compared
		}
		hashes, _ := parseTile(t, data)
		return hashes, nil
	}
	leaves := make([]tlog.Hash, len(entries))
	for i, e := range entries {
		leaves[i] = tlog.RecordHash(e)
		if c.visit == nil {
			continue
		}
		if err := c.visit(b.Number*tileWidth+int64(i), e); err != nil {
			c.fault(b.Path(), "entry %d: %v", b.Number*tileWidth+int64(i), err)
		}
	}
	return leaves, nil
}

// compareRoot compares the tree as far as it is computed with what someone vouches for.
func (c *checker) compareRoot() {
	if want, ok := c.roots[c.tree.size]; ok && want.root != c.tree.root() {
		c.fault(want.path, "its %d entries have another root than it says", c.tree.size)
	}
}

// grow adds hashes to a level's last tile; each full one is compared and becomes a hash of the level above.
func (c *checker) grow(level int, hashes []tlog.Hash) {
	if level == len(c.open) {
		c.open = append(c.open, nil)
	}
	c.open[level] = append(c.open[level], hashes...)
	if len(c.open[level]) < tileWidth {
		return
	}
	full := c.open[level]
	c.compareTile(level, full)
	c.open[level] = nil
	c.grow(level+1, []tlog.Hash{newSubtree(full).level[tileHeight][0]})
}

// compareTile compares the tile that comes next in its level with what was computed.
func (c *checker) compareTile(level int, want []tlog.Hash) {
	t := Tile{Level: level, Number: (c.size >> (level * tileHeight)) / tileWidth, Width: len(want)}
	if len(want) == tileWidth {
		t.Number = (c.tree.size>>(level*tileHeight) - 1) / tileWidth
	}
	data, err := c.from.ReadTile(c.ctx, t.Path())
	var got []tlog.Hash
	if err == nil {
		got, err = parseTile(t, data)
	}
	if err != nil {
		c.fault(t.Path(), "%v", err)
		return
	}
	for i := range want {
		if got[i] == want[i] {
			continue
		}
		if level == 0 {
			c.fault(t.Path(), "it does not have the hash of entry %d, or that entry is not right", t.Number*tileWidth+int64(i))
		} else {
			c.fault(t.Path(), "its hash %d is not that of the tiles below", i)
		}
	}
}

// files looks at every file of a log's directory.
func (c *checker) files(dir Dir) error {
	root := filepath.Join(string(dir), "tile")
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && name == root:
			return fs.SkipAll
		case err != nil:
			return err
		case entry.IsDir():
			return c.ctx.Err()
		}
		rel, err := filepath.Rel(string(dir), name)
		if err != nil {
			return err
		}
		c.file(dir, filepath.ToSlash(rel), name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("check log: %w", err)
	}
	return nil
}

// file looks at a file that may not be part of the log's present state.
func (c *checker) file(dir Dir, path, name string) {
	tile, bundle, err := ParsePath(path)
	switch {
	case err != nil:
		c.report.Spare = append(c.report.Spare, Fault{path, "it is no file of a log"})
		return
	case c.needs(tile, bundle):
		return // it was checked
	}
	have, err := os.ReadFile(name)
	if err != nil {
		c.fault(path, "%v", err)
		return
	}
	want, err := c.present(dir, tile, bundle)
	switch {
	case err != nil:
		c.report.Spare = append(c.report.Spare, Fault{path, "it is further than the log"})
	case !bytes.Equal(have, want):
		c.report.Spare = append(c.report.Spare, Fault{path, "it differs from the log: a write that did not finish, or damage"})
	default:
		c.report.Spare = append(c.report.Spare, Fault{path, "a fuller one has replaced it"})
	}
}

// needs reports whether a file belongs to the state that was checked.
func (c *checker) needs(tile *Tile, bundle *Bundle) bool {
	if bundle != nil {
		want, _ := BundleOf(bundle.Number*tileWidth, c.size)
		return bundle.Number*tileWidth < c.size && want == *bundle
	}
	nodes := c.size >> (tile.Level * tileHeight)
	return tile.Number*tileWidth < nodes && int64(tile.Width) == min(nodes-tile.Number*tileWidth, tileWidth)
}

// present returns what a partial tile or bundle should hold, by the wider one of the state that was checked.
func (c *checker) present(dir Dir, tile *Tile, bundle *Bundle) ([]byte, error) {
	beyond := errors.New("it is further than the log")
	if tile != nil {
		wide := *tile
		nodes := c.size >> (tile.Level * tileHeight)
		wide.Width = int(min(nodes-tile.Number*tileWidth, tileWidth))
		if wide.Width < tile.Width {
			return nil, beyond
		}
		data, err := dir.ReadTile(c.ctx, wide.Path())
		return data[:min(len(data), tile.Width*tlog.HashSize)], err
	}
	if bundle.Number*tileWidth >= c.size {
		return nil, beyond
	}
	wide, _ := BundleOf(bundle.Number*tileWidth, c.size)
	if wide.Width < bundle.Width {
		return nil, beyond
	}
	data, err := dir.ReadBundle(c.ctx, wide.Path())
	if err != nil {
		return nil, err
	}
	entries, err := ParseEntries(wide, data)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, e := range entries[:bundle.Width] {
		if out, err = AppendEntry(out, e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Damaged returns those of the spare files that do not hold what the log does.
func (r *Report) Damaged() []Fault {
	return slices.DeleteFunc(slices.Clone(r.Spare), func(f Fault) bool { return !strings.HasPrefix(f.What, "it differs") })
}
