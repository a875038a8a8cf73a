package derivation

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
)

// Object is a store object as it lies in a store.
type Object struct {
	Path   string
	at     string // where it lies on this machine
	NAR    digest.SHA256
	Flat   digest.SHA256 // of the bytes of a regular file that is not executable; zero otherwise
	File   digest.SHA256 // of the bytes of a regular file
	refs   []string      // of the candidates
	marked digest.SHA256 // NAR hash without the object's own name, as older versions of Nix compute it
	plain  digest.SHA256 // the same, as newer ones do
	self   bool          // it refers to itself
}

// Read hashes an object that lies at file, and looks in it for the names of candidates.
func Read(ctx context.Context, path, file string, candidates []storepath.Path) (Object, error) {
	at, err := storepath.Parse(path)
	if err != nil {
		return Object{}, err
	}
	var sum digest.Writer
	scan := storepath.NewScanner(append(slices.Clip(candidates), at), at)
	if err := nar.Dump(ctx, io.MultiWriter(&sum, scan), file, nar.Options{}); err != nil {
		return Object{}, fmt.Errorf("read %s: %w", path, err)
	}
	o := Object{Path: path, at: file, NAR: sum.Sum()}
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
	command := "nix-store --verify --check-contents"
	if strings.HasPrefix(e.Path, storepath.Guix) {
		command = "guix gc --verify=contents"
	}
	return "`" + command + "` finds such objects; do not use what was built with them"
}

// checked reads every path and compares it with what the store's database says.
func checked(ctx context.Context, s Backend, paths []string) (map[string]Object, error) {
	candidates := make([]storepath.Path, 0, len(paths))
	for _, path := range paths {
		at, err := storepath.Parse(path)
		if err != nil {
			return nil, err
		}
		candidates = append(candidates, at)
	}
	known, err := s.Hashes(ctx, paths)
	if err != nil {
		return nil, err
	}
	out := make(map[string]Object, len(paths))
	for _, path := range paths {
		o, err := Read(ctx, path, s.File(path), candidates)
		if err != nil {
			return nil, err
		}
		if o.NAR != known[path] {
			return nil, &ChangedError{path, known[path].String() + " by the store's database", o.NAR.String()}
		}
		out[path] = o
	}
	return out, nil
}
