package source

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// goModule gets one Go module as the tree of its files. The toolchain module becomes a GOROOT that can be run.
func (f *Fetcher) goModule(ctx context.Context, ref manifest.Ref) (memory, error) {
	p := goPin{Version: module.Version{Path: ref.Location, Version: ref.Version}, hash: ref.Digest}
	m := memory{Dependencies: []attest.ResourceDescriptor{goDependency(ref.String(), ref.Digest)}}
	finish := func(string) error { return nil }
	if ref.Location == toolchainModule {
		finish = finishToolchain
		if _, ok := f.recallGo(p); !ok {
			if d, ok := f.installedToolchain(ctx, p); ok {
				m.NAR = d
				return m, nil
			}
		}
	}
	zip, err := f.goBlob(ctx, p)
	if err != nil {
		return memory{}, err
	}
	path, ok := f.Store.BlobPath(zip)
	if !ok {
		return memory{}, fmt.Errorf("zip %s of %s is no longer in the store", zip, ref)
	}
	m.NAR, err = f.Store.AddTreeFunc(ctx, func(dir string) error {
		if err := modzip.Unzip(dir, p.Version, path); err != nil {
			return err
		}
		return finish(dir)
	}, digest.SHA256{})
	return m, err
}

// goVersion is the version of the module in a file's spelling.
func goVersion(m module.Version) (path, version string, err error) {
	if path, err = module.EscapePath(m.Path); err != nil {
		return "", "", err
	}
	version, err = module.EscapeVersion(m.Version)
	return path, version, err
}

// writeFile makes a file that was not there.
func writeFile(path string, data []byte) error {
	return os.WriteFile(path, data, 0o644)
}
