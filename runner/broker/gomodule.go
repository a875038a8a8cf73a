package broker

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/dirhash"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// moduleSum returns the hash that a go.sum line has of the Go module of ref, whose files are in dir: go.dev/ref/mod#go-sum-files.
//
// That hash covers names and contents. What it says nothing of must not be there: links, programs, empty directories. So nobody can
// add to a module what its pin does not show, and a module is the same tree wherever it came from.
func moduleSum(dir string, ref manifest.Ref) (digest.SHA256, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return digest.SHA256{}, err
	}
	if !info.IsDir() {
		return digest.SHA256{}, refuse(CodeDigest, "", "a module is a directory")
	}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return plainEntry(dir, path, d)
	}); err != nil {
		return digest.SHA256{}, err
	}
	sum, err := dirhash.HashDir(dir, ref.Location+"@"+ref.Version, dirhash.Hash1)
	if err != nil {
		return digest.SHA256{}, err
	}
	text, ok := strings.CutPrefix(sum, "h1:")
	raw, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) != len(digest.SHA256{}) {
		return digest.SHA256{}, fmt.Errorf("hash %q of a module is of an unknown kind", sum)
	}
	return digest.SHA256(raw), nil
}

// plainEntry refuses what a module's hash does not cover.
func plainEntry(dir, path string, d fs.DirEntry) error {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	if d.IsDir() {
		list, err := os.ReadDir(path)
		if err == nil && len(list) == 0 {
			err = refuse(CodeDigest, "", "the module has the empty directory %q, which its hash does not cover", rel)
		}
		return err
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 != 0 {
		return refuse(CodeDigest, "", "in the module, %q is a link or a program, which its hash does not cover", rel)
	}
	return nil
}
