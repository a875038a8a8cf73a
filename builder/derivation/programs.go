package derivation

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"arch.network/attest/digest"
)

// programDirs are where a tree has its programs.
var programDirs = []string{"bin", "sbin"}

// maxPrograms bounds the programs of one output that a claim names: of more, it names none.
const maxPrograms = 1024

// programName is what a program must be called to be named in a claim. It is compiled when first needed.
var programName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`) })

// programs returns the hash of each program in a tree of our store, by its path in it: of regular files that are executable. Links are not
// followed: what they point to has a name of its own, or is in another tree.
func programs(tree string) (map[string]digest.SHA256, error) {
	found := map[string]digest.SHA256{}
	for _, dir := range programDirs {
		if info, err := os.Lstat(filepath.Join(tree, dir)); err != nil || !info.IsDir() {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(tree, dir))
		if err != nil {
			return nil, fmt.Errorf("look for programs: %w", err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				return nil, fmt.Errorf("look for programs: %w", err)
			}
			if !info.Mode().IsRegular() || info.Mode()&0o100 == 0 || !programName().MatchString(e.Name()) {
				continue
			}
			if len(found) == maxPrograms {
				return nil, nil
			}
			if found[dir+"/"+e.Name()], err = digest.OfFile(filepath.Join(tree, dir, e.Name())); err != nil {
				return nil, fmt.Errorf("look for programs: %w", err)
			}
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	return found, nil
}
