package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// exportMagic stands behind the NAR in what Guix exports: "NIXE".
const exportMagic = 0x4558494e

// NAR writes an object to w as a NAR, and returns what the store says of it. If what the store sent is no NAR, is over the limits, or is not
// what its database says, the error is not nil and what was written is worthless.
func (c *Client) NAR(ctx context.Context, path string, w io.Writer, limits nar.Limits) (PathInfo, error) {
	info, err := c.PathInfo(ctx, path)
	if err != nil {
		return PathInfo{}, err
	}
	var sum digest.Writer
	out := io.MultiWriter(&sum, w)
	r := request{act: "read " + path, op: opNarFromPath, args: func(e encoder) { e.text(path) }}
	if c.kind == Nix {
		r.reply = func() error { return nar.Copy(out, c.in.Reader, limits) }
	} else {
		r.op = opExportPath
		r.args = func(e encoder) { e.text(path); e.flag(false) } // no signature
		r.frames = func() error { return c.export(path, out, limits) }
		r.reply = c.done
	}
	if err := c.do(ctx, r); err != nil {
		return PathInfo{}, err
	}
	got := PathInfo{NAR: sum.Sum(), Size: sum.Size()}
	if got.NAR != info.NAR || info.Size != 0 && got.Size != info.Size {
		return PathInfo{}, &ChangedError{path, info.identity() + " by the store's database", got.identity()}
	}
	return info, nil
}

// export reads what Guix exports of an object: its NAR, and what package archive of Guix reads.
func (c *Client) export(path string, w io.Writer, limits nar.Limits) error {
	d := decoder{bufio.NewReaderSize(&tunnel{c: c}, bufferSize), c.in.dir}
	if err := nar.Copy(w, d.Reader, limits); err != nil {
		return err
	}
	magic, err := d.number()
	if err == nil && magic != exportMagic {
		err = &ProtocolError{Reason: "no export goes on like this behind a NAR"}
	}
	if err != nil {
		return err
	}
	exported, err := d.path()
	if err == nil && exported != path {
		err = &ProtocolError{Reason: fmt.Sprintf("asked for %s, it exports %s", path, exported)}
	}
	if err == nil {
		_, err = d.list(d.path)
	}
	if err == nil {
		_, err = d.optionalPath()
	}
	if err != nil {
		return err
	}
	if signed, err := d.flag(); err != nil || signed {
		return broken("an export is signed", err)
	}
	if _, err := d.ReadByte(); err != io.EOF {
		return broken("an export goes on behind its end", err)
	}
	return nil
}

// tunnel reads the data that comes in frames, up to the last.
type tunnel struct {
	c    *Client
	size int64 // of the text of a frame
	left int64 // of that
	end  error
}

func (t *tunnel) Read(p []byte) (n int, err error) {
	if t.end != nil {
		return 0, t.end
	}
	if n, err = t.read(p); err != nil {
		t.end = err
	}
	return n, err
}

func (t *tunnel) read(p []byte) (int, error) {
	in := &t.c.in
	for t.left == 0 {
		more, err := in.frames(t.c.kind, t.c.Log, true)
		if err != nil {
			return 0, err
		}
		if !more {
			return 0, io.EOF
		}
		if t.size, err = in.count(1<<63 - 8); err != nil {
			return 0, err
		}
		t.left = t.size
	}
	n, err := in.Reader.Read(p[:min(int64(len(p)), t.left)])
	if err != nil {
		return n, broken("read data", err)
	}
	if t.left -= int64(n); t.left == 0 {
		err = in.padding(t.size)
	}
	return n, err
}
