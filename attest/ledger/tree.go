package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/bits"
	"path"

	"golang.org/x/mod/sumdb/tlog"
)

// TreePath is where a log's writer keeps the state of the tree, which may be further than the newest checkpoint. It is not published.
const TreePath = ".state/treeState"

// ReadTree reads the state of the tree of the log in d: what of it is durable, signed or not. The error is fs.ErrNotExist if there is none.
func (d Dir) ReadTree(origin string) (Checkpoint, error) {
	data, err := d.read(TreePath, 1<<10)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("read state of the tree: %w", err)
	}
	var state struct {
		Size int64  `json:"size"`
		Root []byte `json:"root"`
	}
	err = json.Unmarshal(data, &state)
	again, _ := json.Marshal(state)
	if err != nil || state.Size < 0 || len(state.Root) != tlog.HashSize || !bytes.Equal(again, data) {
		return Checkpoint{}, fmt.Errorf("read state of the tree, %s: it is damaged", path.Join(string(d), TreePath))
	}
	return Checkpoint{Origin: origin, Size: state.Size, Root: tlog.Hash(state.Root)}, nil
}

// EmptyTree is the state of a log without entries.
func EmptyTree(origin string) Checkpoint { return Checkpoint{Origin: origin, Root: emptyRoot()} }

// growing is the right edge of a tree: the hashes of the complete subtrees that make it up, the largest first.
type growing struct {
	size  int64
	edges []tlog.Hash
}

// add appends a leaf.
func (g *growing) add(leaf tlog.Hash) {
	g.edges = append(g.edges, leaf)
	g.size++
	for range bits.TrailingZeros64(uint64(g.size)) {
		n := len(g.edges)
		g.edges = append(g.edges[:n-2], tlog.NodeHash(g.edges[n-2], g.edges[n-1]))
	}
}

// root returns the hash of the tree (RFC 6962 section 2.1).
func (g *growing) root() tlog.Hash {
	if g.size == 0 {
		return emptyRoot()
	}
	root := g.edges[len(g.edges)-1]
	for i := len(g.edges) - 2; i >= 0; i-- {
		root = tlog.NodeHash(g.edges[i], root)
	}
	return root
}
