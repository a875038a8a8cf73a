package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// The layout of archive directories.
const (
	blobDir   = "blobs/sha256"
	narDir    = "nars/sha256"
	pinDir    = "pins"
	narSuffix = ".nar.zst"
)

// blob makes sure that the store has the bytes named d, which ref asks for. origin gets them into the store from
// where ref says; nil means that ref says nothing that can be asked. What origin stores is checked by its name.
func (f *Fetcher) blob(ctx context.Context, ref string, d digest.SHA256, origin func() error) error {
	if _, ok := f.Store.BlobPath(d); ok {
		return nil
	}
	return f.lookup(ctx, ref, origin, func(c candidate) error {
		return c.read(blobDir+"/"+d.Hex(), d, func(r io.Reader) error {
			_, _, err := f.Store.AddBlob(ctx, r, d)
			return err
		})
	})
}

// tree makes sure that the store has the tree whose NAR hash ref gives.
func (f *Fetcher) tree(ctx context.Context, ref manifest.Ref, dep attest.ResourceDescriptor, origin func() error) (memory, error) {
	m := memory{NAR: ref.Digest, Dependencies: []attest.ResourceDescriptor{dep}}
	if _, ok := f.Store.TreePath(ref.Digest); ok {
		return m, nil
	}
	return m, f.lookup(ctx, ref.String(), origin, func(c candidate) error {
		return c.read(narDir+"/"+ref.Digest.Hex()+narSuffix, ref.Digest, func(r io.Reader) error {
			return f.addNAR(ctx, r, ref.Digest)
		})
	})
}

// addNAR stores a NAR, compressed with zstd or not.
func (f *Fetcher) addNAR(ctx context.Context, r io.Reader, d digest.SHA256) error {
	head := make([]byte, 4)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return err
	}
	r = io.MultiReader(bytes.NewReader(head[:n]), r)
	if bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return err
		}
		defer dec.Close()
		r = dec
	}
	_, err = f.Store.AddTree(ctx, r, d)
	return err
}

// candidate is a place that may have content by hash.
type candidate struct {
	name string
	// read hands the content of the file rel of an archive directory to use. d is what it must be the hash of; a
	// receipt's carried content has no other name. It is fs.ErrNotExist if the place does not have it.
	read func(rel string, d digest.SHA256, use func(io.Reader) error) error
}

// lookup asks one place after the other, then the origin. The error of one place does not stop the search.
func (f *Fetcher) lookup(ctx context.Context, ref string, origin func() error, try func(candidate) error) error {
	var tried triedError
	for _, c := range f.candidates(ctx) {
		err := try(c)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s, ok := errors.AsType[*statusError](err); ok && s.code == 404 || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		f.log(Event{Kind: EventSkip, What: ref, Detail: fmt.Sprintf("%s: %v", c.name, err)})
		tried = append(tried, fmt.Errorf("%s: %w", c.name, err))
	}
	if origin == nil {
		return &MissingError{Inputs: []string{ref}, Cause: tried.err(), Cure: "name a directory that holds it with --archive, or a mirror"}
	}
	err := origin()
	if err == nil {
		return nil
	}
	if missing, ok := errors.AsType[*MissingError](err); ok {
		if missing.Cause != nil {
			tried = append(tried, missing.Cause)
		}
		return &MissingError{Inputs: []string{ref}, Cause: tried.err(), Cure: missing.Cure}
	}
	return append(triedError{err}, tried...).err()
}

// candidates lists the places in the order of asking.
func (f *Fetcher) candidates(ctx context.Context) []candidate {
	list := []candidate{{"the receipt", f.readCarried}}
	for _, dir := range f.Archives {
		list = append(list, candidate{"archive " + dir, func(rel string, _ digest.SHA256, use func(io.Reader) error) error {
			return readFile(filepath.Join(dir, rel), use)
		}})
	}
	for _, base := range f.Mirrors {
		if path, ok := filePath(base); ok {
			list = append(list, candidate{"mirror " + base, func(rel string, _ digest.SHA256, use func(io.Reader) error) error {
				return readFile(filepath.Join(path, rel), use)
			}})
		} else if !f.Offline {
			list = append(list, candidate{"mirror " + base, func(rel string, _ digest.SHA256, use func(io.Reader) error) error {
				address := strings.TrimRight(base, "/") + "/" + rel
				if strings.HasPrefix(rel, pinDir+"/") {
					return f.readHint(ctx, address, use)
				}
				return f.readMirror(ctx, address, use)
			}})
		}
	}
	return list
}

func (f *Fetcher) readCarried(_ string, d digest.SHA256, use func(io.Reader) error) error {
	content, ok := f.Carried[d]
	if !ok {
		return fs.ErrNotExist
	}
	return use(bytes.NewReader(content))
}

func readFile(path string, use func(io.Reader) error) error {
	file, err := openRegular(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return use(file)
}

// readMirror downloads to the end before use sees anything, so that an interruption can be resumed.
func (f *Fetcher) readMirror(ctx context.Context, address string, use func(io.Reader) error) error {
	part, err := f.openPartial(ctx, digest.Of([]byte(address)).Hex())
	if err != nil {
		return err
	}
	defer closePartial(part)
	if _, err := f.receive(ctx, address, part); err != nil {
		return err
	}
	defer os.Remove(part.Name())
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return use(part)
}

// maxHint is the size of a hint: a SHA-256 in hexadecimal, and a newline.
const maxHint = 65

// readHint is readMirror for a hint, which is far too small to be resumed.
func (f *Fetcher) readHint(ctx context.Context, address string, use func(io.Reader) error) error {
	data, err := f.get(ctx, address, maxHint)
	if err != nil {
		return err
	}
	return use(bytes.NewReader(data))
}

// hint returns what an archive says of a reference that is not named by a SHA-256: the hash of the bytes that are
// said to satisfy it. The caller checks them.
func (f *Fetcher) hint(ctx context.Context, uri string) (digest.SHA256, bool) {
	for _, c := range f.candidates(ctx) {
		var d digest.SHA256
		err := c.read(pinPath(uri), digest.SHA256{}, func(r io.Reader) error {
			text, err := io.ReadAll(io.LimitReader(r, maxHint))
			if err != nil {
				return err
			}
			d, err = digest.ParseHex(strings.TrimSuffix(string(text), "\n"))
			return err
		})
		if err == nil {
			return d, true
		}
	}
	return digest.SHA256{}, false
}

func pinPath(uri string) string { return pinDir + "/" + digest.Of([]byte(uri)).Hex() }
