package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// kernelPackage is Debian's User-Mode Linux.
const kernelPackage = "user-mode-linux"

// kernelModules are what a guest needs beyond the kernel, in the order of loading; the others are not kept.
var kernelModules = []string{"overlay", "autofs4", "loop", "squashfs", "erofs"}

// kernel is a User-Mode Linux on disk.
type kernel struct {
	path    string
	modules []string
}

// findKernel returns the cached kernel, or fetches it.
func findKernel(ctx context.Context) (kernel, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return kernel{}, err
	}
	dir := filepath.Join(cache, "arch-guest")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return kernel{}, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return kernel{}, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // one fetches, others wait
		return kernel{}, err
	}
	installed := filepath.Join(dir, "uml")
	if k, err := openKernel(installed); err == nil {
		return k, nil
	}
	if err := fetchKernel(ctx, dir, installed); err != nil {
		return kernel{}, &unableError{fmt.Sprintf("fetch User-Mode Linux: %v", err)}
	}
	return openKernel(installed)
}

// openKernel finds the parts in an unpacked package.
func openKernel(dir string) (kernel, error) {
	k := kernel{path: filepath.Join(dir, "usr/bin/linux.uml"), modules: make([]string, len(kernelModules))}
	if _, err := os.Stat(k.path); err != nil {
		return kernel{}, err
	}
	err := filepath.WalkDir(filepath.Join(dir, "usr/lib/uml"), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if i := slices.Index(kernelModules, strings.TrimSuffix(d.Name(), ".ko")); i >= 0 && !d.IsDir() {
			k.modules[i] = p
		}
		return nil
	})
	if err != nil {
		return kernel{}, err
	}
	if i := slices.Index(k.modules, ""); i >= 0 {
		return kernel{}, fmt.Errorf("%s has no module %s", dir, kernelModules[i])
	}
	return k, nil
}

// fetchKernel lets apt download and check the package, and keeps the parts that a guest needs.
func fetchKernel(ctx context.Context, dir, installed string) error {
	scratch, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := command(ctx, scratch, "apt-get", "download", "-qq", kernelPackage); err != nil {
		if command(ctx, scratch, "apt-get", "update", "-qq") != nil {
			return err
		}
		if err := command(ctx, scratch, "apt-get", "download", "-qq", kernelPackage); err != nil {
			return err
		}
	}
	packages, err := filepath.Glob(filepath.Join(scratch, kernelPackage+"_*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("apt-get download left %q", packages)
	}
	tree := filepath.Join(scratch, "tree")
	if err := command(ctx, scratch, "dpkg", "-x", packages[0], tree); err != nil {
		return err
	}
	if err := prune(tree); err != nil {
		return err
	}
	if err := os.RemoveAll(installed); err != nil {
		return err
	}
	return os.Rename(tree, installed)
}

// prune removes all files but the kernel and kernelModules: 12 of 150 MB stay.
func prune(tree string) error {
	return filepath.WalkDir(tree, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "linux.uml" {
			return err
		}
		if name, ok := strings.CutSuffix(d.Name(), ".ko"); ok && slices.Contains(kernelModules, name) {
			return nil
		}
		return os.Remove(p)
	})
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, args[0], err, out)
	}
	return nil
}
