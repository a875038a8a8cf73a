package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"

	"github.com/nix-community/go-nix/pkg/wire"
)

// AddSource adds a tree, the NAR in r, under a name, and returns its path: that of its content. r is read to its end, and must return for
// AddSource to return.
func (c *Client) AddSource(ctx context.Context, name string, r io.Reader, limits nar.Limits) (string, error) {
	if err := storepath.CheckName(name); err != nil {
		return "", fmt.Errorf("add %.300q to the store: %w", name, err)
	}
	var sum digest.Writer
	var info PathInfo
	add := request{act: "add " + name + " to the store", op: opAddToStore}
	if c.kind == Nix {
		add.args = func(e encoder) {
			e.text(name)
			e.text("fixed:r:sha256")
			e.list(nil)   // references
			e.flag(false) // no repairing
		}
		add.data = func() error { return c.frameNAR(r, &sum, limits, nil) }
		add.reply = func() error {
			path, err := c.in.path()
			if err == nil {
				info, err = c.in.pathInfo(c.kind, path)
			}
			if err == nil && info.NAR != sum.Sum() {
				err = &ChangedError{path, sum.Sum().String(), info.NAR.String()}
			}
			return err
		}
	} else {
		add.args = func(e encoder) {
			e.text(name)
			e.flag(true) // what it is named by is said: as a NAR, by SHA-256
			e.flag(true)
			e.text("sha256")
		}
		add.data = func() error { return copyNAR(c.out, r, &sum, limits) }
		add.reply = func() (err error) { info.Path, err = c.in.path(); return err }
	}
	if err := c.do(ctx, add); err != nil {
		return "", err
	}
	want, err := storepath.Source(c.in.dir, name, sum.Sum(), nil, false)
	return c.named(add.act, info.Path, want, err)
}

// AddFile adds a file that is not executable and has size bytes, which are read from r, under a name, and returns its path: that of these bytes.
// Nix has no such request: the error is an *UnsupportedError.
func (c *Client) AddFile(ctx context.Context, name string, r io.Reader, size int64) (string, error) {
	if err := storepath.CheckName(name); err != nil {
		return "", fmt.Errorf("add %.300q to the store: %w", name, err)
	}
	act := "add " + name + " to the store"
	if c.kind != Guix {
		return "", &UnsupportedError{act, c.kind}
	}
	var path string
	var sum digest.Writer
	err := c.do(ctx, request{
		act: act, op: opAddToStore,
		args: func(e encoder) {
			e.text(name)
			e.flag(true)  // what it is named by is said:
			e.flag(false) // as a file,
			e.text("sha256")
		},
		data: func() error {
			w := nar.NewWriter(c.out, nar.Limits{})
			if err := w.WriteEntry(nar.Entry{Type: nar.Regular, Size: size}); err != nil {
				return err
			}
			if _, err := io.CopyN(io.MultiWriter(w, &sum), r, size); err != nil {
				return err
			}
			return w.Close()
		},
		reply: func() (err error) { path, err = c.in.path(); return err },
	})
	if err != nil {
		return "", err
	}
	want, err := storepath.Fixed(c.in.dir, name, storepath.Flat, "sha256", sum.Sum().Hex())
	return c.named(act, path, want, err)
}

// AddText adds a file, such as a derivation, that refers to other objects, and returns its path: that of its content. Nothing else in the store
// than references may be mentioned in the text of a derivation.
func (c *Client) AddText(ctx context.Context, name string, text []byte, references []string) (string, error) {
	if err := storepath.CheckName(name); err != nil {
		return "", fmt.Errorf("add %.300q to the store: %w", name, err)
	}
	references = slices.Sorted(slices.Values(references))
	for _, ref := range references {
		if err := checkPath(ref, c.in.dir); err != nil {
			return "", err
		}
	}
	var path string
	act := "add " + name + " to the store"
	err := c.do(ctx, request{
		act: act, op: opAddTextToStore,
		args: func(e encoder) {
			e.text(name)
			e.text(string(text))
			e.list(references)
		},
		reply: func() (err error) { path, err = c.in.path(); return err },
	})
	if err != nil {
		return "", err
	}
	want, err := storepath.Text(c.in.dir, name, digest.Of(text), references)
	return c.named(act, path, want, err)
}

// named compares the path that a daemon says with the one that the content has.
func (c *Client) named(act, path string, want storepath.Path, err error) (string, error) {
	if err == nil && path != want.String() {
		err = fmt.Errorf("the daemon says that it is %s, but its content's name is %s", path, want)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", act, err)
	}
	return path, nil
}

// ImportOptions says how an object is imported. The zero value is for everyone.
type ImportOptions struct {
	Unsigned bool       // ask not to check signatures; the daemon does so only for its trusted users
	Limits   nar.Limits // of the object
}

// Import adds an object that was built elsewhere, the NAR in r, to a store of Nix; what it refers to must be there. It ends with an error before
// the store has it if the NAR is not that of info. r is read to its end, and must return for Import to return. Guix imports only archives
// that an authorised key signed: the error is an *UnsupportedError.
func (c *Client) Import(ctx context.Context, info PathInfo, r io.Reader, o ImportOptions) error {
	act := "import " + info.Path
	if c.kind != Nix {
		return &UnsupportedError{act, c.kind}
	}
	paths := append([]string{info.Path}, info.References...)
	if info.Deriver != "" {
		paths = append(paths, info.Deriver)
	}
	for _, path := range paths {
		if err := checkPath(path, c.in.dir); err != nil {
			return err
		}
	}
	if info.Size <= 0 || info.NAR.IsZero() || info.Registered < 0 {
		return fmt.Errorf("%s: its hash and size must be given", act)
	}
	var sum digest.Writer
	check := func() error {
		got := PathInfo{NAR: sum.Sum(), Size: sum.Size()}
		if got.NAR != info.NAR || got.Size != info.Size {
			return &ChangedError{info.Path, info.identity(), got.identity()}
		}
		return nil
	}
	return c.do(ctx, request{
		act: act, op: opAddToStoreNar,
		args: func(e encoder) {
			e.text(info.Path)
			e.text(info.Deriver)
			e.text(info.NAR.Hex())
			e.list(info.References)
			e.number(uint64(info.Registered))
			e.number(uint64(info.Size))
			e.flag(false) // not built here, whatever was said there
			e.list(info.Signatures)
			e.text(info.CA)
			e.flag(false) // no repairing
			e.flag(o.Unsigned)
		},
		data: func() error { return c.frameNAR(r, &sum, o.Limits, check) },
	})
}

// copyNAR copies the NAR in r to w and sum, and reads r to its end.
func copyNAR(w io.Writer, r io.Reader, sum *digest.Writer, limits nar.Limits) error {
	in := bufio.NewReaderSize(r, bufferSize)
	if err := nar.Copy(io.MultiWriter(w, sum), in, limits); err != nil {
		return err
	}
	if _, err := in.ReadByte(); err == nil {
		return errors.New("there is more behind the NAR")
	} else if err != io.EOF {
		return err
	}
	return nil
}

// frameNAR sends the NAR in r in pieces, each behind its length, none of them padded, and a zero. Before the zero it calls check; nil: it does
// not.
func (c *Client) frameNAR(r io.Reader, sum *digest.Writer, limits nar.Limits, check func() error) error {
	pieces := bufio.NewWriterSize(framer{c.out}, bufferSize)
	err := copyNAR(pieces, r, sum, limits)
	if err == nil {
		err = pieces.Flush()
	}
	if err == nil && check != nil {
		err = check()
	}
	if err != nil {
		return err
	}
	return wire.WriteUint64(c.out, 0)
}

type framer struct{ w io.Writer }

func (f framer) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := wire.WriteUint64(f.w, uint64(len(p))); err != nil {
		return 0, err
	}
	return f.w.Write(p)
}
