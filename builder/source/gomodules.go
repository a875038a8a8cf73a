package source

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	modzip "golang.org/x/mod/zip"
	"golang.org/x/sync/errgroup"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

const (
	maxGoSum      = 16 << 20 // bytes of a go.sum file; Kubernetes' has 70 KiB
	maxGoModules  = 20000    // lines of it
	moduleFetches = 8        // files fetched at a time
)

// goModules gets everything that a go.sum pins and a build can need, as a module cache: a directory for GOMODCACHE with
// which the go command builds and tests offline (GOPROXY=off, -mod=readonly) although it cannot write there.
//
// Such a directory needs, of each module, the extracted files with cache/download/…/@v/VERSION.ziphash, and of each
// module in the graph VERSION.mod; VERSION.info makes `go list -m all` work, too. Found by trying go1.26.8 on a read-only mount.
func (f *Fetcher) goModules(ctx context.Context, in manifest.BuildInput, others map[string]Tree) (Tree, error) {
	of, ok := others[in.GoModules.Of]
	if !ok {
		return Tree{}, fmt.Errorf("goModules: there is no input %q", in.GoModules.Of)
	}
	pins, err := readGoPins(of.Path, in.GoModules.Dir)
	if err != nil {
		return Tree{}, fmt.Errorf("read the Go modules of input %q: %w", in.GoModules.Of, err)
	}
	t := Tree{Pinned: in}
	var list strings.Builder
	for _, p := range pins {
		t.Dependencies = append(t.Dependencies, goDependency(p.uri(), p.hash))
		list.WriteString(p.uri() + "\n")
	}
	m, err := f.remembered("go-modules "+digest.Of([]byte(list.String())).Hex(), func() (memory, error) {
		nar, err := f.moduleCache(ctx, pins)
		return memory{NAR: nar}, err
	})
	t.NAR = m.NAR
	return t, err
}

// readGoPins reads go.mod and go.sum below a tree, following no link out of it.
func readGoPins(tree, dir string) ([]goPin, error) {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	mod, err := readIn(root, path.Join(dir, "go.mod"))
	if err != nil {
		return nil, err
	}
	sum, err := readIn(root, path.Join(dir, "go.sum"))
	if os.IsNotExist(err) {
		if parsed, err := modfile.Parse("go.mod", mod, nil); err == nil && len(parsed.Require) == 0 {
			return nil, nil
		}
		return nil, &sourceError{"there is no go.sum beside go.mod", "run `go mod tidy`: without go.sum the modules are not pinned"}
	}
	if err != nil {
		return nil, err
	}
	pins, err := parseGoSum(sum)
	if err != nil {
		return nil, err
	}
	return neededPins(mod, pins), nil
}

func readIn(root *os.Root, name string) ([]byte, error) {
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxGoSum+1))
	if err == nil && len(data) > maxGoSum {
		err = tooLarge(name, maxGoSum)
	}
	return data, err
}

// parseGoSum reads a go.sum file strictly: go.dev/ref/mod#go-sum-files. The result is sorted and holds each entry once.
func parseGoSum(data []byte) ([]goPin, error) {
	var pins []goPin
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		p, err := parseGoSumLine(fields)
		if err != nil {
			return nil, fmt.Errorf("go.sum line %d: %w", n, err)
		}
		pins = append(pins, p)
		if len(pins) > maxGoModules {
			return nil, fmt.Errorf("go.sum has more than %d entries", maxGoModules)
		}
	}
	slices.SortFunc(pins, func(a, b goPin) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Version.Version, b.Version.Version), boolCompare(a.mod, b.mod), bytes.Compare(a.hash[:], b.hash[:]))
	})
	pins = slices.Compact(pins)
	for i := 1; i < len(pins); i++ {
		if a, b := pins[i-1], pins[i]; a.Version == b.Version && a.mod == b.mod {
			return nil, &sourceError{fmt.Sprintf("go.sum has two hashes for %s", a.Version), "delete go.sum and run `go mod tidy`, then look at what changed"}
		}
	}
	return pins, nil
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func parseGoSumLine(fields []string) (goPin, error) {
	if len(fields) != 3 {
		return goPin{}, fmt.Errorf("%d fields, want 3", len(fields))
	}
	version, mod := strings.CutSuffix(fields[1], "/go.mod")
	p := goPin{Version: module.Version{Path: fields[0], Version: version}, mod: mod}
	if err := module.Check(p.Path, version); err != nil {
		return goPin{}, err
	}
	var err error
	p.hash, err = parseH1(fields[2])
	return p, err
}

// neededPins leaves out the zips that no build of the main module can need. From Go 1.17 on, go.mod itself lists every
// module that provides a package to it or to its tests (go.dev/ref/mod#graph-pruning); before, all are kept.
// The go.mod files are kept: the go command reads them to know the graph.
func neededPins(mod []byte, pins []goPin) []goPin {
	parsed, err := modfile.Parse("go.mod", mod, nil)
	if err != nil || parsed.Go == nil || semver.Compare("v"+parsed.Go.Version, "v1.17") < 0 {
		return pins
	}
	needed := map[module.Version]bool{}
	for _, r := range parsed.Require {
		needed[replaced(parsed, r.Mod)] = true
	}
	return slices.DeleteFunc(pins, func(p goPin) bool { return !p.mod && !needed[p.Version] })
}

// replaced follows a replace directive; one for the exact version wins.
func replaced(mod *modfile.File, m module.Version) module.Version {
	to := m
	for _, r := range mod.Replace {
		if r.Old.Path == m.Path && (r.Old.Version == m.Version || r.Old.Version == "" && to == m) {
			to = r.New
		}
	}
	return to
}

// moduleCache fetches all pins and makes the directory.
func (f *Fetcher) moduleCache(ctx context.Context, pins []goPin) (digest.SHA256, error) {
	files, err := f.goBlobs(ctx, pins)
	if err != nil {
		return digest.SHA256{}, err
	}
	return f.Store.AddTreeFunc(ctx, func(dir string) error {
		for i, p := range pins {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := placeModule(dir, p, files[i]); err != nil {
				return fmt.Errorf("%s: %w", p.uri(), err)
			}
		}
		return nil
	}, digest.SHA256{})
}

// goBlobs fetches the files of all pins and returns their paths in the store. Zips go first: most hold the go.mod file
// that is pinned beside them, which need not be fetched then.
func (f *Fetcher) goBlobs(ctx context.Context, pins []goPin) ([]string, error) {
	paths := make([]string, len(pins))
	zips := map[module.Version]string{}
	var mu sync.Mutex
	var missing missingList
	round := func(mod bool) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(moduleFetches)
		for i, p := range pins {
			if p.mod != mod {
				continue
			}
			mu.Lock()
			zip := zips[p.Version]
			mu.Unlock()
			g.Go(func() error {
				d, err := f.goBlobOf(ctx, p, zip)
				mu.Lock()
				defer mu.Unlock()
				if missing.add("", err) {
					return nil
				}
				paths[i], _ = f.Store.BlobPath(d)
				if !p.mod {
					zips[p.Version] = paths[i]
				}
				return err
			})
		}
		return g.Wait()
	}
	for _, mod := range []bool{false, true} {
		if err := round(mod); err != nil {
			return nil, err
		}
	}
	slices.Sort(missing.inputs) // they came in the order of the answers
	if err := missing.err(); err != nil {
		return nil, err
	}
	return paths, nil
}

// goBlobOf is goBlob that looks into the module's zip for its go.mod first.
func (f *Fetcher) goBlobOf(ctx context.Context, p goPin, zipPath string) (digest.SHA256, error) {
	if d, ok := f.recallGo(p); ok || !p.mod || zipPath == "" {
		if ok {
			return d, nil
		}
		return f.goBlob(ctx, p)
	}
	data, err := goModOf(zipPath, p.Version)
	if err == nil {
		if sum, err := sumGoMod(bytes.NewReader(data)); err == nil && sum == h1(p.hash) {
			d, _, err := f.Store.AddBlob(ctx, bytes.NewReader(data), digest.SHA256{})
			if err != nil {
				return d, err
			}
			return d, f.Store.Remember(zipKind, p.uri(), []byte(d.Hex()))
		}
	}
	return f.goBlob(ctx, p)
}

// goModOf returns the go.mod file in a checked module zip.
func goModOf(zipPath string, m module.Version) ([]byte, error) {
	z, err := zip.OpenReader(zipPath)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	r, err := z.Open(m.Path + "@" + m.Version + "/go.mod")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxGoFile))
}

// placeModule puts one pinned file into a module cache: golang.org/ref/mod#module-cache.
func placeModule(dir string, p goPin, file string) error {
	escaped, version, err := goVersion(p.Version)
	if err != nil {
		return err
	}
	at := filepath.Join(dir, "cache", "download", filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	info := fmt.Appendf(nil, `{"Version":%q}`, p.Version.Version)
	if err := writeFile(filepath.Join(at, version+".info"), info); err != nil {
		return err
	}
	if p.mod {
		data, err := readSmall(file, maxGoFile)
		if err != nil {
			return err
		}
		return writeFile(filepath.Join(at, version+".mod"), data)
	}
	if err := writeFile(filepath.Join(at, version+".ziphash"), []byte(h1(p.hash))); err != nil {
		return err
	}
	return modzip.Unzip(filepath.Join(dir, filepath.FromSlash(escaped)+"@"+version), p.Version, file)
}
