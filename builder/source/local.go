package source

import (
	"context"
	"fmt"
	"path"
	"path/filepath"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
)

// local takes a file or tree of this machine as it is now. Its NAR hash becomes its pin.
func (f *Fetcher) local(ctx context.Context, in manifest.BuildInput, base string) (Tree, error) {
	if filepath.IsAbs(in.Path) {
		return Tree{}, &sourceError{fmt.Sprintf("path %q is absolute", in.Path), "write it relative to the manifest, so that it means the same on every machine"}
	}
	// The author named this place, through whatever links lead there. Below it no link is followed.
	dir, err := filepath.EvalSymlinks(filepath.Join(base, in.Path))
	if err != nil {
		return Tree{}, err
	}
	patterns, err := ParseIgnore(in.Ignore)
	if err != nil {
		return Tree{}, err
	}
	f.log(Event{Kind: EventStart, What: in.Path})
	d, err := f.localTree(ctx, dir, in, patterns)
	if err != nil {
		return Tree{}, err
	}
	f.log(Event{Kind: EventDone, What: in.Path})
	pinned := in
	pinned.Ref = manifest.Ref{Scheme: manifest.RefTree, Location: in.Name, Digest: d}
	pinned.Path, pinned.Ignore, pinned.Unpack, pinned.Strip = "", nil, "", 0
	dep := treeDependency(pinned.Ref)
	dep.Name = in.Name
	return Tree{NAR: d, Pinned: pinned, Dependencies: []attest.ResourceDescriptor{dep}}, nil
}

func (f *Fetcher) localTree(ctx context.Context, dir string, in manifest.BuildInput, patterns Ignore) (digest.SHA256, error) {
	if in.Unpack == "" {
		return f.Store.AddTreeFrom(ctx, dir, nar.Options{Filter: patterns.Match})
	}
	file, err := openRegular(dir)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer file.Close()
	d, err := f.unpack(ctx, file, in.Unpack, in.Strip)
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("unpack %s: %w", path.Base(in.Path), err)
	}
	return d, nil
}
