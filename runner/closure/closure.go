package closure

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
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// Path is one path of a closure. Its content was compared with NAR.
type Path struct {
	StorePath  string // "/nix/store/HASH-NAME"
	NAR        digest.SHA256
	Size       int64    // bytes of the NAR
	References []string // sorted; a path may refer to itself
	Source     string   // where it is on the host
	Proof      string   // who vouches for NAR: "pin", "content-addressed", or what Options.Verify says
}

// Proof is what somebody says of a store path.
type Proof struct {
	NAR digest.SHA256
	// References are all store paths that the path refers to, itself included if it does. Nil: not known; an empty list
	// says that there are none.
	References []string
	Source     string // who says so, such as "nix database"
}

// ErrUnknown is what Options.Verify returns for a path that it knows nothing of.
var ErrUnknown = errors.New("not known")

// Options say how to find and check the paths of a closure.
type Options struct {
	Known map[string]digest.SHA256 // NAR hashes that are pinned, by store path
	// Verify says what the NAR hash of a path must be, on whose word; ErrUnknown: it cannot say. Nil: nobody can.
	Verify func(ctx context.Context, path string) (Proof, error)
	// Locate returns where a path is on the host; want is the NAR hash that it must have, zero if only its own name says. An error
	// that wraps fs.ErrNotExist says that it is nowhere. Nil: at its own name.
	Locate func(ctx context.Context, path string, want digest.SHA256) (string, error)
	// Dir is where the store's directory is on the host, whose names are looked for in contents. Empty: at its own name.
	// That there is none is no error.
	Dir   string
	Paths int   // the most that a closure may have; zero: 16,384
	Bytes int64 // of all NARs together; zero: 64 GiB
}

// Compute returns the closure of the store path top, whose NAR hash is pin, sorted by StorePath.
func Compute(ctx context.Context, top string, pin digest.SHA256, o Options) ([]Path, error) {
	store, ok := storeOf(top)
	if !ok {
		return nil, fmt.Errorf("compute closure: %q is no store path", top)
	}
	w := &walk{o: o, store: store, paths: map[string]Path{}, seen: map[string]bool{}}
	w.o.Paths = cmp.Or(o.Paths, 1<<14)
	w.o.Bytes = cmp.Or(o.Bytes, 64<<30)
	if err := w.candidates(top); err != nil {
		return nil, fmt.Errorf("compute closure of %s: %w", top, err)
	}
	w.scan = newScanner(store, w.known)
	w.add(top, "")
	for len(w.todo) > 0 {
		next := w.todo[0]
		w.todo = w.todo[1:]
		if err := w.visit(ctx, next, pin); err != nil {
			return nil, fmt.Errorf("compute closure of %s: %w", top, err)
		}
		pin = digest.SHA256{} // it is the first one's
	}
	return slices.SortedFunc(maps.Values(w.paths), func(a, b Path) int { return strings.Compare(a.StorePath, b.StorePath) }), nil
}

// walk is a closure being computed.
type walk struct {
	o     Options
	store string
	known *candidates
	scan  *scanner
	paths map[string]Path
	seen  map[string]bool
	todo  []pending
	bytes int64
}

// pending is a path to be visited.
type pending struct {
	path, referredBy string
}

func (w *walk) add(path, referredBy string) {
	if !w.seen[path] {
		w.seen[path] = true
		w.todo = append(w.todo, pending{path, referredBy})
	}
}

// candidates collects the names to look for.
func (w *walk) candidates(top string) error {
	paths := []string{top}
	for p := range w.o.Known {
		if store, ok := storeOf(p); !ok || store != w.store {
			return fmt.Errorf("%q is no path of the store %s", p, w.store)
		}
		paths = append(paths, p)
	}
	dir, err := os.Open(cmp.Or(w.o.Dir, w.store))
	if errors.Is(err, fs.ErrNotExist) {
		w.known = newCandidates(paths)
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		paths = append(paths, w.store+"/"+name)
	}
	w.known = newCandidates(paths)
	return nil
}

// visit checks one path and finds what it refers to.
func (w *walk) visit(ctx context.Context, at pending, pin digest.SHA256) error {
	if len(w.paths) >= w.o.Paths {
		return &LimitError{"paths", int64(w.o.Paths)}
	}
	proof, err := w.proof(ctx, at, pin)
	if err != nil {
		return err
	}
	p := Path{StorePath: at.path, Source: at.path, Proof: proof.Source}
	if w.o.Locate != nil {
		p.Source, err = w.o.Locate(ctx, at.path, proof.NAR)
	}
	var dangling []string
	if err == nil {
		dangling, err = w.read(ctx, &p)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &MissingError{Path: at.path, ReferredBy: at.referredBy, Cause: err}
	}
	if err != nil {
		return err
	}
	told, err := w.judge(&p, at, proof)
	if err != nil {
		return err
	}
	if !told && len(dangling) > 0 {
		return &MissingError{Path: dangling[0], ReferredBy: at.path}
	}
	w.paths[at.path] = p
	for _, ref := range p.References {
		if store, ok := storeOf(ref); !ok || store != w.store {
			return fmt.Errorf("%s says that %s refers to %q, which is no path of the same store", p.Proof, at.path, ref)
		}
		w.add(ref, at.path)
	}
	return nil
}

// proof finds out what the NAR hash of a path must be. It is zero if only the path's own name can say.
func (w *walk) proof(ctx context.Context, at pending, pin digest.SHA256) (Proof, error) {
	want := Proof{NAR: pin, Source: "pin"}
	if known, ok := w.o.Known[at.path]; ok {
		if !pin.IsZero() && pin != known {
			return Proof{}, fmt.Errorf("store path %s is pinned twice, as %s and as %s", at.path, pin.SRI(), known.SRI())
		}
		want.NAR = known
	}
	if w.o.Verify == nil {
		return want, nil
	}
	said, err := w.o.Verify(ctx, at.path)
	switch {
	case errors.Is(err, ErrUnknown):
		return want, nil
	case err != nil && want.NAR.IsZero():
		return Proof{}, &UnpinnedError{Path: at.path, ReferredBy: at.referredBy, Cause: err}
	case err != nil:
		return want, nil // what is pinned needs nobody else's word
	case want.NAR.IsZero():
		return said, nil
	case want.NAR == said.NAR:
		want.References = said.References // they are of the very same content
	}
	return want, nil
}

// read hashes a path and searches it.
func (w *walk) read(ctx context.Context, p *Path) (dangling []string, err error) {
	w.scan.reset()
	var sum digest.Writer
	limit := nar.Limits{Size: w.o.Bytes - w.bytes}
	if limit.Size <= 0 {
		return nil, &LimitError{"bytes", w.o.Bytes}
	}
	if err := nar.Dump(ctx, io.MultiWriter(&sum, w.scan), p.Source, nar.Options{Limits: limit}); err != nil {
		if tooMuch, ok := errors.AsType[*nar.LimitError](err); ok && tooMuch.What == "size" {
			return nil, &LimitError{"bytes", w.o.Bytes}
		}
		return nil, err
	}
	p.NAR, p.Size = sum.Sum(), sum.Size()
	w.bytes += p.Size
	p.References, dangling = w.scan.finish()
	return dangling, nil
}

// judge compares what was read with what it must be. It reports whether whoever vouches for the content has told the references, too, which
// are then those.
func (w *walk) judge(p *Path, at pending, proof Proof) (told bool, err error) {
	if !proof.NAR.IsZero() {
		if p.NAR != proof.NAR {
			return false, &HashError{Path: at.path, Want: proof.NAR, Got: p.NAR, Proof: "the " + proof.Source}
		}
		if proof.References == nil {
			return false, nil
		}
		p.References = slices.Compact(slices.Sorted(slices.Values(proof.References)))
		return true, nil
	}
	flat, err := flatHash(p.Source)
	if err != nil {
		return false, err
	}
	// What is only copied into a store is not searched for references by Nix: it may hold the text of a path and have none.
	for _, refs := range [][]string{p.References, {}} {
		if selfCertified(at.path, p.NAR, flat, refs) {
			p.References, p.Proof = refs, "content-addressed"
			return true, nil
		}
	}
	return false, &UnpinnedError{Path: at.path, ReferredBy: at.referredBy}
}

// flatHash returns the hash of a file's bytes; zero if path is none, or is executable.
func flatHash(path string) (digest.SHA256, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return digest.SHA256{}, nil
	}
	if err != nil {
		return digest.SHA256{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o100 != 0 {
		return digest.SHA256{}, err
	}
	sum, _, err := digest.OfReader(f)
	return sum, err
}

// inside reports whether p is top, or lies below it.
func inside(p, top string) bool {
	return p == top || strings.HasPrefix(p, top+"/") && path.Clean(p) == p
}
