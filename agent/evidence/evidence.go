// Package evidence finds the receipts that prove where something comes from that a job pins, and judges them.
//
// Receipts lie beside what they are about: in the directory of a file, in directories that the node's operator names, some of which may be
// binary caches with receipts (package binarycache), among an image's referrers in its registry, and in the node's own store, where what was found elsewhere is kept, so that a second job
// needs no network. Find believes nothing of what it finds. Check verifies it against the policy in force, and says what is missing
// of what that demands.
//
// It fetches no image and no input: their digests are in the job, and receipts are about digests.
package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/agent/admission"
	"arch.network/agent/policy"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/manifest"
	"arch.network/builder/binarycache"
	"arch.network/builder/source"
	"arch.network/builder/store"
)

// Finder knows where receipts may lie.
type Finder struct {
	Dirs    []string        // directories of *.receipt.jsonl and *.intoto.jsonl; a file is read whatever its name
	Store   *store.Store    // nil: nothing is kept
	Fetcher *source.Fetcher // asks registries; nil: nobody is asked
}

// recordKind is the kind of the store's records. Their key is the digest, their value a receipt.
const recordKind = "evidence"

// Limits of what is read for one reference.
const (
	maxFiles = 4096
	maxBytes = 2 * attest.MaxReceipt
)

// Find returns every receipt that may be about ref, as one. What registries cannot be asked now is left out if anything was found
// elsewhere; whether it is enough is Check's to say.
func (f *Finder) Find(ctx context.Context, ref manifest.Ref) (*attest.Receipt, error) {
	all := &attest.Receipt{}
	dirs := f.Dirs
	if beside, ok := besideFile(ref); ok {
		dirs = append([]string{beside}, dirs...)
	}
	left := int64(maxBytes)
	for _, dir := range dirs {
		for _, name := range append([]string{dir}, inCache(dir, ref)...) {
			if err := readDir(ctx, name, all, &left); err != nil {
				return nil, fmt.Errorf("find receipts of %s: %w", ref, err)
			}
		}
	}
	if f.Store != nil {
		if data, ok, err := f.Store.Recall(recordKind, ref.Digest.Hex()); err != nil {
			return nil, err
		} else if ok {
			if err := merge(all, data); err != nil {
				return nil, err
			}
		}
	}
	if ref.Scheme != manifest.RefOCI || f.Fetcher == nil {
		return all, nil
	}
	found, err := f.Fetcher.Receipts(ctx, ref)
	switch {
	case err != nil && (ctx.Err() != nil || all.Empty()):
		return nil, err
	case err == nil && !found.Empty():
		if err := f.Keep(ref.Digest, found); err != nil {
			return nil, err
		}
		all.Merge(found)
	}
	return all, nil
}

// Keep lets the store remember a receipt about a digest, in place of an earlier one. One that is too large for a record
// is not kept.
func (f *Finder) Keep(d digest.SHA256, r *attest.Receipt) error {
	if f.Store == nil {
		return nil
	}
	var buf bytes.Buffer
	if _, err := r.WriteTo(&buf); err != nil {
		return err
	}
	if buf.Len() > store.MaxValue {
		return nil
	}
	return f.Store.Remember(recordKind, d.Hex(), buf.Bytes())
}

// Check verifies a receipt for one demand, with the policy in force. Nothing: the demand is met. The error is for what keeps it from
// checking, never for what it finds.
func Check(ctx context.Context, d admission.Demand, r *attest.Receipt, active *policy.Active, at time.Time) ([]admission.Reason, error) {
	if r == nil || r.Empty() {
		return admission.Attested(d, nil), nil
	}
	report, err := attest.Verify(ctx, attest.VerifyInput{
		Artifact: pinned(d.Ref), Receipt: r, Trust: active.Trust(), At: at, Options: policy.QuorumOptions(),
		Policy: active.Policy(), Location: d.Ref.Location,
	})
	if err != nil {
		return nil, err
	}
	return admission.Attested(d, report), nil
}

// pinned is what a reference pins, as an artifact whose one digest is known.
func pinned(ref manifest.Ref) attest.Artifact {
	form := attest.FormFile
	switch ref.Scheme {
	case manifest.RefOCI:
		form = attest.FormOCI
	case manifest.RefStore, manifest.RefTree, manifest.RefGit:
		form = attest.FormNAR
	}
	return attest.Artifact{
		Name: path.Base(ref.Location),
		Hash: func(_ context.Context, f attest.Form) (digest.SHA256, error) {
			if f != form || ref.Scheme == manifest.RefGo { // whose hash is one of a list of hashes
				return digest.SHA256{}, attest.ErrNoForm
			}
			return ref.Digest, nil
		},
	}
}

// besideFile returns the directory of a file: URL.
func besideFile(ref manifest.Ref) (string, bool) {
	if ref.Scheme != manifest.RefURL {
		return "", false
	}
	u, err := url.Parse(ref.Location)
	if err != nil || u.Scheme != "file" {
		return "", false
	}
	return filepath.Dir(u.Path), true
}

// inCache returns the files in which a binary cache at dir has the receipts of a reference.
func inCache(dir string, ref manifest.Ref) (out []string) {
	if p, err := storepath.Parse(ref.Location); err == nil && ref.Scheme == manifest.RefStore {
		for _, name := range []string{binarycache.ReceiptPath(p), binarycache.ReceiptPathOfNAR(ref.Digest)} {
			out = append(out, filepath.Join(dir, filepath.FromSlash(name)))
		}
	}
	return out
}

// readDir merges the receipts of a directory, or of one file. A directory that is not there holds none.
func readDir(ctx context.Context, name string, into *attest.Receipt, left *int64) error {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return readFile(name, into, left)
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return err
	}
	files := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".receipt.jsonl") && !strings.HasSuffix(e.Name(), ".intoto.jsonl") || e.IsDir() {
			continue
		}
		if files++; files > maxFiles {
			return fmt.Errorf("%s holds more than %d receipts", name, maxFiles)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := readFile(filepath.Join(name, e.Name()), into, left); err != nil {
			return err
		}
	}
	return nil
}

func readFile(name string, into *attest.Receipt, left *int64) error {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // never waits for the other end of a FIFO
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return nil
	}
	if *left -= info.Size(); *left < 0 {
		return fmt.Errorf("the receipts are over the limit of %d bytes", int64(maxBytes))
	}
	one, err := attest.ReadReceipt(file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	into.Merge(one)
	return nil
}

func merge(into *attest.Receipt, data []byte) error {
	one, err := attest.ReadReceipt(bytes.NewReader(data))
	if err != nil {
		return err
	}
	into.Merge(one)
	return nil
}
