package cacheclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"

	"golang.org/x/sys/unix"
)

// directory is a cache in a directory, as `nix copy --to file://…` writes it.
type directory string

// open opens a regular file below the directory. No name leads out of it, not even through a symbolic link.
func (d directory) open(_ context.Context, name string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) { // a path that a cache lacks is not the same as a cache that is not there
			return nil, fmt.Errorf("open cache file://%s: there is no such directory", string(d))
		}
		return nil, fmt.Errorf("open cache: %w", err)
	}
	defer root.Close()
	u, err := url.Parse(name)
	if err != nil {
		return nil, fmt.Errorf("read cache file://%s: %w", string(d), err)
	}
	f, err := root.OpenFile(u.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read cache file://%s: %w", string(d), err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("read cache file://%s: %q is no file", string(d), name)
	}
	return f, nil
}
