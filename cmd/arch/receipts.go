package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/builder/artifact"
)

// receiptEndings are the names of files that hold receipts.
var receiptEndings = []string{".receipt.jsonl", ".intoto.jsonl"}

// maxReceiptFiles bounds how many files of one directory are read.
const maxReceiptFiles = 4096

// maxReceipts bounds, in bytes, all receipts of one verification together.
const maxReceipts = 2 * attest.MaxReceipt

// readReceipts merges every receipt found in the given files and directories; with none given, in the artifact's directory.
func (a *app) readReceipts(from []string, artifact string) (*attest.Receipt, error) {
	if len(from) == 0 {
		from = []string{filepath.Dir(filepath.Clean(artifact))}
	}
	all := &attest.Receipt{}
	total := int64(0)
	for _, name := range from {
		files, err := receiptFiles(name)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if info, err := os.Stat(file); err == nil {
				total += info.Size()
			}
			if total > maxReceipts {
				return nil, hinted(fmt.Errorf("read receipts: together they are over the limit of %d bytes", maxReceipts), "name the files that matter")
			}
			r, err := readReceipt(file)
			if err != nil {
				return nil, err
			}
			if r.Ignored > 0 {
				a.note("%s: %s malformed or too long: ignored", file, count(r.Ignored, "line is", "lines are"))
			}
			all.Merge(r)
		}
	}
	return all, nil
}

// receiptFiles returns name, or, if it is a directory, the files in it whose names say that they hold receipts.
func receiptFiles(name string) ([]string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, hinted(fmt.Errorf("read receipts: %w", err), "--receipts names files and directories with *"+strings.Join(receiptEndings, " and *"))
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		for _, ending := range receiptEndings {
			if strings.HasSuffix(e.Name(), ending) && !e.IsDir() && e.Type()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice) == 0 {
				files = append(files, filepath.Join(name, e.Name()))
			}
		}
	}
	if len(files) > maxReceiptFiles {
		return nil, hinted(fmt.Errorf("read receipts: %s holds %d, over the limit of %d", name, len(files), maxReceiptFiles), "name the files that matter")
	}
	return files, nil
}

func readReceipt(path string) (*attest.Receipt, error) {
	const hint = "a receipt is the file NAME.receipt.jsonl that arch build --attest wrote"
	f, err := openRegular(path)
	if err != nil {
		return nil, hinted(fmt.Errorf("read receipt: %w", err), hint)
	}
	defer f.Close()
	r, err := attest.ReadReceipt(f)
	if err != nil {
		return nil, hinted(fmt.Errorf("%s: %w", path, err), hint)
	}
	return r, nil
}

// openArtifact lets the verifier ask for the digests it needs. A symbolic link is what it is, never what it points to.
func openArtifact(path string) attest.Artifact {
	return attest.Artifact{
		Name: filepath.Base(path),
		Hash: func(ctx context.Context, form attest.Form) (digest.SHA256, error) {
			info, err := os.Lstat(path)
			if err != nil {
				return digest.SHA256{}, err
			}
			switch {
			case form == attest.FormNAR:
				sum, _, err := nar.Hash(ctx, path, nar.Options{})
				return sum, err
			case form == attest.FormFile && info.Mode().IsRegular():
				return hashFile(path)
			case form == attest.FormTar && info.IsDir():
				return digest.SHA256{}, attest.ErrNoForm // a tree is matched by its NAR: its tar depends on the claim's epoch
			case form == attest.FormOCI && info.IsDir():
				return layoutDigest(path)
			}
			return digest.SHA256{}, attest.ErrNoForm
		},
	}
}

// layoutDigest returns the image digest of an OCI layout; attest.ErrNoForm for a tree that is none.
func layoutDigest(path string) (digest.SHA256, error) {
	if _, err := os.Lstat(filepath.Join(path, "oci-layout")); errors.Is(err, fs.ErrNotExist) {
		return digest.SHA256{}, attest.ErrNoForm
	}
	return artifact.LayoutDigest(path)
}

func hashFile(path string) (digest.SHA256, error) {
	f, err := openRegular(path)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer f.Close()
	sum, _, err := digest.OfReader(f)
	return sum, err
}
