package ledger

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// TileReader returns the bytes that lie at path below a log's prefix. Where it gets them is its own matter, and whether they are
// right is the Prover's.
type TileReader interface {
	ReadTile(ctx context.Context, path string) ([]byte, error)
}

// Prover makes proofs for one checkpoint out of tiles. Every tile is checked against the checkpoint before anything of it is used, so a
// proof that comes out holds. It may be used by several goroutines at once.
type Prover struct {
	checkpoint Checkpoint
	tiles      TileReader
	most       int

	mu    sync.Mutex // guards known and order
	known map[Tile]*subtree
	order []Tile // as they came
}

// DefaultTiles is how many tiles a Prover keeps: 16 KiB each.
const DefaultTiles = 4096

// NewProver returns a Prover that keeps at most cache tiles in memory; zero: DefaultTiles.
func NewProver(c Checkpoint, tiles TileReader, cache int) *Prover {
	if cache <= 0 {
		cache = DefaultTiles
	}
	return &Prover{checkpoint: c, tiles: tiles, most: cache, known: map[Tile]*subtree{}}
}

// subtree is a tile with the hashes above it: level[0] are its own, level[8] is the hash of a full tile.
type subtree struct {
	level [tileHeight + 1][]tlog.Hash
}

func newSubtree(hashes []tlog.Hash) *subtree {
	s := &subtree{}
	s.level[0] = hashes
	for i := range tileHeight {
		below := s.level[i]
		for j := 0; j+1 < len(below); j += 2 {
			s.level[i+1] = append(s.level[i+1], tlog.NodeHash(below[j], below[j+1]))
		}
	}
	return s
}

// Inclusion returns the hashes that show entry index to be under the checkpoint.
func (p *Prover) Inclusion(ctx context.Context, index int64) ([]tlog.Hash, error) {
	c := p.checkpoint
	if index < 0 || index >= c.Size {
		return nil, fmt.Errorf("prove entry %d of %s: its checkpoint has %d entries", index, c.Origin, c.Size)
	}
	return tlog.ProveRecord(c.Size, index, p.hashes(ctx))
}

// Consistency returns the hashes that show the checkpoint to continue the log's state at size old.
func (p *Prover) Consistency(ctx context.Context, old int64) ([]tlog.Hash, error) {
	c := p.checkpoint
	if old < 0 || old > c.Size {
		return nil, fmt.Errorf("prove that %s continues size %d: its checkpoint has %d entries", c.Origin, old, c.Size)
	}
	if old == 0 || old == c.Size {
		return nil, nil
	}
	return tlog.ProveTree(c.Size, old, p.hashes(ctx))
}

// hashes reads stored hashes out of tiles that were checked.
func (p *Prover) hashes(ctx context.Context) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			h, err := p.node(ctx, level, n)
			if err != nil {
				return nil, err
			}
			out[i] = h
		}
		return out, nil
	})
}

// node returns the hash of the complete subtree n of height level.
func (p *Prover) node(ctx context.Context, level int, n int64) (tlog.Hash, error) {
	high, low := level/tileHeight, level%tileHeight
	t := p.tileAt(high, n<<low>>tileHeight)
	s, err := p.tile(ctx, t)
	if err != nil {
		return tlog.Hash{}, err
	}
	at := n - t.Number<<(tileHeight-low)
	if at >= int64(len(s.level[low])) {
		return tlog.Hash{}, fmt.Errorf("read %s: it has no node %d of height %d", t.Path(), at, low)
	}
	return s.level[low][at], nil
}

// tileAt returns tile n of a level, as wide as the checkpoint has it.
func (p *Prover) tileAt(level int, n int64) Tile {
	nodes := p.checkpoint.Size >> (level * tileHeight)
	return Tile{Level: level, Number: n, Width: int(min(nodes-n*tileWidth, tileWidth))}
}

// tile returns a tile that was checked against the checkpoint.
func (p *Prover) tile(ctx context.Context, t Tile) (*subtree, error) {
	p.mu.Lock()
	s := p.known[t]
	p.mu.Unlock()
	if s != nil {
		return s, nil
	}
	data, err := p.tiles.ReadTile(ctx, t.Path())
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", t.Path(), p.checkpoint.Origin, err)
	}
	hashes, err := parseTile(t, data)
	if err != nil {
		return nil, err
	}
	s = newSubtree(hashes)
	if err := p.check(ctx, t, s); err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", t.Path(), p.checkpoint.Origin, err)
	}
	p.keep(t, s)
	return s, nil
}

// check compares a tile with what is known to be right: a full tile has its hash in the tile above; the tiles at the right edge, of which
// one may be there for each level, together make up the root.
func (p *Prover) check(ctx context.Context, t Tile, s *subtree) error {
	if t.Width == tileWidth {
		above, err := p.node(ctx, (t.Level+1)*tileHeight, t.Number)
		if err != nil {
			return err
		}
		if above != s.level[tileHeight][0] {
			return errTile
		}
		return nil
	}
	return p.checkEdge(ctx, t, s)
}

// checkEdge computes the root from the partial tiles of all levels, with s for t.
func (p *Prover) checkEdge(ctx context.Context, t Tile, s *subtree) error {
	edge := map[Tile]*subtree{t: s}
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			high, low := level/tileHeight, level%tileHeight
			tile := p.tileAt(high, n<<low>>tileHeight)
			sub, err := p.edgeTile(ctx, edge, tile)
			if err != nil {
				return nil, err
			}
			out[i] = sub.level[low][n-tile.Number<<(tileHeight-low)]
		}
		return out, nil
	})
	root, err := tlog.TreeHash(p.checkpoint.Size, reader)
	if err != nil {
		return err
	}
	if root != p.checkpoint.Root {
		return errTile
	}
	for tile, sub := range edge { // they made up the root together, so each is right
		p.keep(tile, sub)
	}
	return nil
}

// edgeTile reads a tile of the right edge that is not checked yet.
func (p *Prover) edgeTile(ctx context.Context, edge map[Tile]*subtree, t Tile) (*subtree, error) {
	if s := edge[t]; s != nil {
		return s, nil
	}
	data, err := p.tiles.ReadTile(ctx, t.Path())
	if err != nil {
		return nil, err
	}
	hashes, err := parseTile(t, data)
	if err != nil {
		return nil, err
	}
	edge[t] = newSubtree(hashes)
	return edge[t], nil
}

// keep remembers a checked tile, and forgets the oldest if there are too many.
func (p *Prover) keep(t Tile, s *subtree) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[t] != nil {
		return
	}
	if len(p.order) >= p.most {
		delete(p.known, p.order[0])
		p.order = p.order[1:]
	}
	p.known[t] = s
	p.order = append(p.order, t)
}
