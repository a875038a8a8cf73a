package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"arch.network/attest/digest"
	"arch.network/builder/source/imagespec"
	"arch.network/builder/source/unpack"
)

const rootName = "root"

// mountPoints are empty directories that every root has, unless the image has something of that name: a runner that mounts something
// in a read-only directory which lacks the mount point has to put another in its place, for each run.
var mountPoints = []string{"dev", "inputs", "outputs", "proc", "tmp"}

// maxVolumes bounds an image's volumes; images have one or two.
const maxVolumes = 64

// Root returns the root file system of an image, which is made if the cache does not have it. It stays there until it is released, or the
// Cache closed, and somebody cleans.
func (c *Cache) Root(ctx context.Context, img Image) (Root, error) {
	docs, err := img.read()
	if err != nil {
		return Root{}, err
	}
	h, err := c.holdObject(ctx, c.rootObject(ctx, img, docs), false)
	if err != nil {
		return Root{}, err
	}
	root := Root{Dir: c.rootIn(h.dir), Manifest: docs.manifest, Chain: chainID(docs.config.RootFS.DiffIDs), Config: docs.config.Config}
	if err := root.look(); err != nil {
		c.letGo(h)
		return Root{}, img.fail("", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = append(c.held, h)
	return root, nil
}

// rootIn is where in the directory of its object a root lies.
func (c *Cache) rootIn(dir string) string { return filepath.Join(dir, rootName) }

// chainID names what layers make together: image-spec config.md, "Layer ChainID". That of no layers is the hash of nothing.
func chainID(diffIDs []digest.SHA256) digest.SHA256 {
	if len(diffIDs) == 0 {
		return digest.Of(nil)
	}
	chain := diffIDs[0]
	for _, d := range diffIDs[1:] {
		chain = digest.Of([]byte(chain.String() + " " + d.String()))
	}
	return chain
}

// rootObject returns the object of an image's root file system.
func (c *Cache) rootObject(ctx context.Context, img Image, docs documents) object {
	return object{
		kind: rootsDir, id: chainID(docs.config.RootFS.DiffIDs),
		make: func(dir string, suspect bool) ([]byte, error) {
			return c.merge(ctx, img, docs, dir, suspect)
		},
		check: func(dir string, index []byte) error { return checkRoot(ctx, filepath.Join(dir, rootName), index) },
	}
}

// merge applies the layers of an image on top of each other.
func (c *Cache) merge(ctx context.Context, img Image, docs documents, dir string, suspect bool) ([]byte, error) {
	path := filepath.Join(dir, rootName)
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	tree, err := unpack.New(path, unpack.RootFS, c.limits)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	for i, desc := range docs.layers {
		diffID := docs.config.RootFS.DiffIDs[i]
		layer, err := c.holdObject(ctx, c.layer(ctx, img, desc, diffID), suspect)
		if err != nil {
			return nil, err
		}
		err = applyLayer(ctx, tree, layer.dir)
		c.letGo(layer)
		if err != nil {
			return nil, img.fail("layer "+desc.Digest.String(), err)
		}
	}
	for _, name := range mountPoints {
		if !tree.Has(name) {
			if err := tree.Dir(name); err != nil {
				return nil, img.fail("", err)
			}
		}
	}
	index := newIndexWriter()
	err = tree.Walk(func(n unpack.Node) error { return index.add(nodeStep(n)) })
	return index.buf, err
}

// applyLayer takes the steps of a layer, with its files linked instead of written.
func applyLayer(ctx context.Context, tree *unpack.Tree, layer string) error {
	s, err := readSeal(layer)
	if err != nil {
		return err
	}
	index, err := readIndex(layer, s)
	if err != nil {
		return err
	}
	if err := tree.NextLayer(); err != nil {
		return err
	}
	n, files := 0, (*os.File)(nil)
	defer func() { files.Close() }() // of a nil file: an error that nobody misses
	return decodeIndex(index, func(s step) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.Kind != unpack.LayerFile {
			return tree.Apply(s.LayerEntry, nil)
		}
		if n%perDir == 0 {
			files.Close()
			if files, err = os.Open(filepath.Join(layer, filesDir, strconv.Itoa(n/perDir))); err != nil {
				return err
			}
		}
		n++
		return tree.Adopt(s.Name, s.Executable, s.Size, s.Sum, files, strconv.Itoa((n-1)%perDir))
	})
}

// nodeStep is an entry of a root's index.
func nodeStep(n unpack.Node) step {
	s := step{LayerEntry: unpack.LayerEntry{Kind: unpack.LayerFile, Name: n.Path, Executable: n.Executable, Size: n.Size}, Sum: n.Sum}
	switch {
	case n.Dir:
		s.Kind = unpack.LayerDir
	case n.Target != "":
		s.Kind, s.Target = unpack.LayerSymlink, n.Target
	}
	return s
}

// checkRoot compares a root file system with its index: nothing may be missing, changed or added.
func checkRoot(ctx context.Context, dir string, index []byte) error {
	entries := map[string]int{".": 0} // how many, by directory
	err := decodeIndex(index, func(s step) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries[path.Dir(s.Name)]++
		at := filepath.Join(dir, s.Name)
		switch s.Kind {
		case unpack.LayerDir:
			entries[s.Name] += 0
			return nil // counted below
		case unpack.LayerSymlink:
			target, err := os.Readlink(at)
			if err == nil && target != s.Target {
				err = fmt.Errorf("%s leads elsewhere than it was made to", at)
			}
			return err
		}
		return checkFile(at, s)
	})
	if err != nil {
		return err
	}
	for name, want := range entries {
		if err := checkDir(filepath.Join(dir, name), want); err != nil {
			return err
		}
	}
	return nil
}

// checkDir compares how many entries a directory has. All that should be there is.
func checkDir(path string, want int) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode() != fs.ModeDir|0o755 {
		return fmt.Errorf("%s has another mode than it was made with", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(want + 1)
	if err != nil && err != io.EOF {
		return err
	}
	if len(names) != want {
		return fmt.Errorf("%s has other entries than it was made with", path)
	}
	return nil
}

// look finds out what Spec needs to know of the root file system.
func (r *Root) look() error {
	root, err := os.OpenRoot(r.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if r.User, err = lookUser(root, r.Config.User); err != nil {
		return err
	}
	if r.WorkDir, r.WorkDirMissing, err = directory(root, cmp.Or(r.Config.WorkingDir, "/")); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	r.Volumes, err = volumes(root, r.Config)
	return err
}

// directory finds a directory of the image, which may be missing.
func directory(root *os.Root, name string) (at string, missing bool, err error) {
	if !path.IsAbs(name) || strings.ContainsRune(name, 0) {
		return "", false, fmt.Errorf("%.200q is no absolute path", name)
	}
	at, info, err := resolve(root, path.Clean(name))
	at = path.Join("/", at)
	switch {
	case errors.Is(err, fs.ErrNotExist) && clean(at):
		return at, true, nil
	case err != nil:
		return "", false, fmt.Errorf("find %.200q: %w", name, err)
	case !info.IsDir():
		return "", false, fmt.Errorf("%.200q is no directory", name)
	}
	return at, false, nil
}

// volumes resolves an image's volumes. Those at places that are the runner's are left out: everybody's are there anyway.
func volumes(root *os.Root, config imagespec.Execution) ([]string, error) {
	if len(config.Volumes) > maxVolumes {
		return nil, fmt.Errorf("it has %d volumes, more than %d", len(config.Volumes), maxVolumes)
	}
	var list []string
	for _, volume := range slices.Sorted(maps.Keys(config.Volumes)) {
		at, _, err := directory(root, volume)
		if err != nil {
			return nil, fmt.Errorf("volume: %w", err)
		}
		if mayWrite(at) == nil {
			list = append(list, at)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
