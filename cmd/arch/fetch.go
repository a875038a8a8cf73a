package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/builder/source"
	"arch.network/builder/store"
)

// newFetcher returns a fetcher with this machine's settings: GOPROXY, GOSUMDB and GOMODCACHE as Go knows them, and the
// Go installations that may save a download.
func (a *app) newFetcher(s *store.Store, f fetchFlags, p *progress) *source.Fetcher {
	return &source.Fetcher{
		Store: s, Offline: f.offline, Archives: f.archives, Mirrors: mirrorURLs(f.mirrors),
		GoProxy: os.Getenv("GOPROXY"), GoSumDB: os.Getenv("GOSUMDB") != "off", GoModCache: goModCache(),
		Toolchains: toolchains(), DockerAuth: true, Log: p.fetch,
	}
}

// mirrorURLs lets directories be named as such.
func mirrorURLs(names []string) []string {
	var urls []string
	for _, name := range names {
		if !strings.Contains(name, "://") {
			if abs, err := filepath.Abs(name); err == nil {
				name = "file://" + abs
			}
		}
		urls = append(urls, name)
	}
	return urls
}

func goModCache() string {
	if dir := os.Getenv("GOMODCACHE"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	if path := os.Getenv("GOPATH"); path != "" {
		return filepath.Join(filepath.SplitList(path)[0], "pkg", "mod")
	}
	return filepath.Join(home, "go", "pkg", "mod")
}

// toolchains lists directories where a Go installation may be. Whether one is used is decided by its hash.
func toolchains() []string {
	candidates := []string{os.Getenv("GOROOT"), "/usr/local/go", "/usr/lib/go"}
	if path, err := exec.LookPath("go"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			candidates = append(candidates, filepath.Dir(filepath.Dir(real)))
		}
	}
	var found []string
	for _, dir := range candidates {
		if _, err := os.Stat(filepath.Join(dir, "VERSION")); dir != "" && err == nil && !slices.Contains(found, dir) {
			found = append(found, dir)
		}
	}
	return found
}
