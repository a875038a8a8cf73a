package nix

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/nix/drv"
)

// Store is a Nix store on this machine. The zero Store is the machine's own, through its daemon if there is one.
type Store struct {
	// Dir is the directory that is / of a store of its own ("chroot store"): its objects are in Dir/nix/store, and are named /nix/store.
	Dir string
}

// Machine is the name of the machine's own store, as Nix calls it.
const Machine = "auto"

// OpenStore returns the store that a text names: "auto", or a directory, which need not exist.
func OpenStore(name string) (Store, error) {
	if name == Machine {
		return Store{}, nil
	}
	if strings.Contains(name, "://") || name == "" {
		return Store{}, fmt.Errorf("open Nix store: %q is neither a directory nor %q", name, Machine)
	}
	dir, err := filepath.Abs(name)
	return Store{Dir: dir}, err
}

func (s Store) url() string {
	if s.Dir == "" {
		return Machine
	}
	return s.Dir
}

// own reports whether Nix works in the store as ourselves, so that the settings that we give are the ones that hold.
func (s Store) own() bool { return s.Dir != "" }

// file returns where a store path is on this machine.
func (s Store) file(path string) string { return filepath.Join("/", s.Dir, path) }

// readDerivation returns the content of a .drv file.
func (s Store) readDerivation(path string) ([]byte, error) {
	f, err := os.Open(s.file(path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > drv.MaxSize:
		return nil, fmt.Errorf("it is no regular file of at most %d bytes", drv.MaxSize)
	}
	return io.ReadAll(io.LimitReader(f, drv.MaxSize+1))
}

// Object is a store object as it lies in a store.
type Object struct {
	Path   string
	NAR    digest.SHA256
	Flat   digest.SHA256 // of the bytes of a regular file that is not executable; zero otherwise
	File   digest.SHA256 // of the bytes of a regular file
	refs   []string      // of the candidates
	marked digest.SHA256 // NAR hash without the object's own name, as older versions of Nix compute it
	plain  digest.SHA256 // the same, as newer ones do
	self   bool          // it refers to itself
}

// read hashes an object and looks in it for the names of candidates.
func (s Store) read(ctx context.Context, path string, candidates []storepath.Path) (Object, error) {
	return readAt(ctx, path, s.file(path), candidates)
}

// readAt is read of an object that lies at file.
func readAt(ctx context.Context, path, file string, candidates []storepath.Path) (Object, error) {
	at, err := storepath.Parse(path)
	if err != nil {
		return Object{}, err
	}
	var sum digest.Writer
	scan := storepath.NewScanner(append(slices.Clip(candidates), at), at)
	if err := nar.Dump(ctx, io.MultiWriter(&sum, scan), file, nar.Options{}); err != nil {
		return Object{}, fmt.Errorf("read %s: %w", path, err)
	}
	o := Object{Path: path, NAR: sum.Sum()}
	o.marked, o.plain, o.self = scan.Modulo()
	for _, ref := range scan.References() {
		if ref != path {
			o.refs = append(o.refs, ref)
		}
	}
	info, err := os.Lstat(file)
	if err != nil || !info.Mode().IsRegular() {
		return o, err
	}
	f, err := os.Open(file)
	if err != nil {
		return o, err
	}
	defer f.Close()
	if o.File, _, err = digest.OfReader(f); err == nil && info.Mode()&0o100 == 0 {
		o.Flat = o.File
	}
	return o, err
}

// isContentAddressed reports whether the path is the hash of what lies there. refs are what the object refers to besides itself.
func (o Object) isContentAddressed(refs []string) bool {
	at, err := storepath.Parse(o.Path)
	if err != nil {
		return false
	}
	is := func(p storepath.Path, err error) bool { return err == nil && p == at }
	if o.self {
		return is(storepath.Source(at.Dir, at.Name, o.marked, refs, true)) || is(storepath.Source(at.Dir, at.Name, o.plain, refs, true))
	}
	return is(storepath.Source(at.Dir, at.Name, o.NAR, refs, false)) ||
		is(storepath.Source(at.Dir, at.Name, o.NAR, nil, false)) ||
		!o.Flat.IsZero() && (is(storepath.Text(at.Dir, at.Name, o.Flat, refs)) || is(storepath.Text(at.Dir, at.Name, o.Flat, nil)) ||
			is(storepath.Fixed(at.Dir, at.Name, storepath.Flat, "sha256", o.Flat.Hex())))
}

// ChangedError says that an object is not what it must be.
type ChangedError struct {
	Path string
	Want string // a digest, and who says so
	Got  string
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("store object %s was changed or is not genuine: it has the hash %s, but must have %s", e.Path, e.Got, e.Want)
}

// Hint tells the way out.
func (e *ChangedError) Hint() string {
	return "`nix-store --verify --check-contents` finds such objects; do not use what was built with them"
}

// registered returns what Nix's database says of the NAR hash of each path.
func (n *Nix) registered(ctx context.Context, s Store, paths []string) (map[string]digest.SHA256, error) {
	out := map[string]digest.SHA256{}
	for len(paths) > 0 {
		some := paths[:min(len(paths), maxArgs)]
		paths = paths[len(some):]
		text, err := n.run(ctx, s, call{act: "look up hashes", program: "nix-store", args: append([]string{"--query", "--hash"}, some...)})
		if err != nil {
			return nil, err
		}
		lines := strings.Fields(string(text))
		if len(lines) != len(some) {
			return nil, fmt.Errorf("look up hashes: %d answers for %d paths", len(lines), len(some))
		}
		for i, path := range some {
			if out[path], err = digest.Parse(lines[i]); err != nil {
				return nil, fmt.Errorf("look up hash of %s: %w", path, err)
			}
		}
	}
	return out, nil
}

// maxArgs is how many paths one program is given: a path has at most 250 bytes, and Linux allows 2 MiB of arguments at least where it
// allows less than that for all.
const maxArgs = 1000

// checked reads every path and compares it with what Nix's database says.
func (n *Nix) checked(ctx context.Context, s Store, paths []string) (map[string]Object, error) {
	candidates := make([]storepath.Path, 0, len(paths))
	for _, path := range paths {
		at, err := storepath.Parse(path)
		if err != nil {
			return nil, err
		}
		candidates = append(candidates, at)
	}
	known, err := n.registered(ctx, s, paths)
	if err != nil {
		return nil, err
	}
	out := make(map[string]Object, len(paths))
	for _, path := range paths {
		o, err := s.read(ctx, path, candidates)
		if err != nil {
			return nil, err
		}
		if o.NAR != known[path] {
			return nil, &ChangedError{path, known[path].String() + " by Nix's database", o.NAR.String()}
		}
		out[path] = o
	}
	return out, nil
}

// invalid returns those paths that a store does not have, as Nix sees it.
func (n *Nix) invalid(ctx context.Context, s Store, paths []string) (map[string]bool, error) {
	out := map[string]bool{}
	for some := range slices.Chunk(paths, maxArgs) {
		text, err := n.run(ctx, s, call{
			act: "look up " + some[0], program: "nix-store", args: append([]string{"--check-validity", "--print-invalid"}, some...),
		})
		if err != nil {
			return nil, err
		}
		for path := range strings.FieldsSeq(string(text)) {
			out[path] = true
		}
	}
	return out, nil
}

// isValid reports whether a store has an object.
func (n *Nix) isValid(ctx context.Context, s Store, path string) (bool, error) {
	missing, err := n.invalid(ctx, s, []string{path})
	return err == nil && !missing[path], err
}
