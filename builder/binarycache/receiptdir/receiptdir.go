// Package receiptdir keeps the receipts that lie beside a binary cache in a directory, findable by store path and by NAR hash (binarycache.ReceiptPath).
//
// It promises that several may publish at the same time and nobody's statement replaces another's, and that readers see a file before or after a change,
// never between. It verifies nothing: a receipt proves what its signatures do, wherever it lies.
package receiptdir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/dsse"
	"arch.network/attest/ledger/durable"
	"arch.network/builder/binarycache"
)

// Add puts each statement of r whose subject is a store path to the receipts in the cache at dir, and returns the files that they are in, sorted. A statement is
// of a path if it has a subject with the path as its URI and the media type of a NAR.
func Add(dir string, r *attest.Receipt) ([]string, error) {
	files, err := byFile(r)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, binarycache.ReceiptDir), 0o755); err != nil {
		return nil, fmt.Errorf("publish receipts: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, binarycache.ReceiptDir))
	if err != nil {
		return nil, fmt.Errorf("publish receipts: %w", err)
	}
	defer unlock()
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := merge(filepath.Join(dir, filepath.FromSlash(name)), files[name]); err != nil {
			return changed, fmt.Errorf("publish receipts: %w", err)
		}
		changed = append(changed, name)
	}
	return changed, nil
}

// Files returns the files that Add would put the statements of r into, sorted. It reads and writes nothing.
func Files(r *attest.Receipt) ([]string, error) {
	files, err := byFile(r)
	return slices.Sorted(maps.Keys(files)), err
}

// byFile sorts the statements of r by the files that they belong into; there is at least one.
func byFile(r *attest.Receipt) (map[string]*attest.Receipt, error) {
	files := map[string]*attest.Receipt{}
	for _, list := range [][]*dsse.Envelope{r.Claims, r.Provenances, r.Negatives, r.Summaries} {
		for _, env := range list {
			for _, name := range places(env) {
				if files[name] == nil {
					files[name] = &attest.Receipt{}
				}
				files[name].Add(env)
			}
		}
	}
	if len(files) == 0 {
		return nil, errors.New("publish receipts: no statement has a store path as its subject")
	}
	return files, nil
}

// Read returns the receipts on a store path, those that are filed under the NAR hash with them. That there are none is no error.
func Read(dir string, p storepath.Path, nar digest.SHA256) (*attest.Receipt, error) {
	all := &attest.Receipt{}
	for _, name := range []string{binarycache.ReceiptPath(p), binarycache.ReceiptPathOfNAR(nar)} {
		r, err := read(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		all.Merge(r)
	}
	return all, nil
}

// places returns the files that a statement belongs into.
func places(env *dsse.Envelope) []string {
	s, err := attest.ParseStatement(env.Payload)
	if err != nil {
		return nil
	}
	var out []string
	for _, d := range s.Subject {
		if p, sum, ok := binarycache.SubjectOf(d); ok {
			out = append(out, binarycache.ReceiptPath(p), binarycache.ReceiptPathOfNAR(sum))
		}
	}
	return out
}

func merge(path string, more *attest.Receipt) error {
	r, err := read(path)
	if err != nil {
		return err
	}
	r.Merge(more)
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		return err
	}
	return durable.WriteFile(path, b.Bytes(), 0o644)
}

func read(path string) (*attest.Receipt, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return &attest.Receipt{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := attest.ReadReceipt(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// lock keeps other publishers out until unlock is called or the process ends.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
