package diff

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// explainer explains the difference of one pair of files.
type explainer struct {
	ctx   context.Context
	opts  Options
	store unpacker
	found []Difference
	notes []string

	explained map[string]bool // paths of blobs of an OCI layout that were compared with another one
}

// format is something that has an inside.
type format struct {
	name  string
	match func(head []byte) bool
	// explain adds the differences inside a and b, which differ. An error means that one of them could not be read as this format.
	explain func(e *explainer, at place, a, b content, depth int) error
}

// headSize is how much a format needs to see: tar's magic is at 257.
const headSize = 512

// formats are tried in this order.
func formats() []format {
	return []format{
		{"gzip", hasPrefix("\x1f\x8b\x08"), (*explainer).gzip},
		{"zstd", hasPrefix("\x28\xb5\x2f\xfd"), compressed("zstd", openZstd)},
		{"xz", hasPrefix("\xfd7zXZ\x00"), compressed("xz", openXZ)},
		{"bzip2", hasPrefix("BZh"), compressed("bzip2", openBzip2)},
		{"zip", hasPrefix("PK\x03\x04"), (*explainer).zip},
		{"ar", hasPrefix(arMagic), (*explainer).ar},
		{"NAR", hasPrefix("\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1"), (*explainer).nar},
		{"tar", isTar, (*explainer).tar},
		{"ELF", hasPrefix("\x7fELF"), (*explainer).elf},
		{"WebAssembly", hasPrefix(wasmMagic), (*explainer).wasm},
	}
}

func hasPrefix(magic string) func([]byte) bool {
	return func(head []byte) bool { return len(head) >= len(magic) && string(head[:len(magic)]) == magic }
}

func isTar(head []byte) bool { return len(head) >= 512 && string(head[257:262]) == "ustar" }

// contents adds what differs between a and b. It adds nothing only if they are equal.
func (e *explainer) contents(at place, a, b content, depth int) error {
	s, err := compareBytes(e.ctx, a, b)
	if err != nil {
		return fmt.Errorf("compare %q: %w", at.last(), err)
	}
	if s.first < 0 {
		return nil
	}
	f, ok, err := commonFormat(a, b)
	if err != nil {
		return fmt.Errorf("compare %q: %w", at.last(), err)
	}
	if ok && depth >= e.opts.Depth {
		e.note(at, fmt.Sprintf("not opened: it lies in %d archives already", depth))
	}
	if !ok || depth >= e.opts.Depth {
		return e.bytes(at, a, b, s)
	}
	return e.inside(f, at, a, b, s, depth)
}

// inside looks into a and b as a format, and at their bytes if that cannot be done.
func (e *explainer) inside(f format, at place, a, b content, s scan, depth int) error {
	before := len(e.found)
	err := f.explain(e, at, a, b, depth+1)
	if e.ctx.Err() != nil {
		return e.ctx.Err()
	}
	if err != nil {
		e.found = e.found[:before]
		e.note(at, fmt.Sprintf("not opened as %s: %s", f.name, oneLine(err)))
		return e.bytes(at, a, b, s)
	}
	if len(e.found) == before {
		e.add(at, a, b, s, Compressor, fmt.Sprintf("Everything in this %s is equal; it is only written in other bytes.", f.name))
	}
	return nil
}

// commonFormat returns the format that both have.
func commonFormat(a, b content) (format, bool, error) {
	headA, errA := a.head(headSize)
	headB, errB := b.head(headSize)
	if err := errors.Join(errA, errB); err != nil && !errors.Is(err, io.EOF) {
		return format{}, false, err
	}
	for _, f := range formats() {
		if f.match(headA) && f.match(headB) {
			return f, true, nil
		}
	}
	return format{}, false, nil
}

// add adds a difference of bytes with excerpts of both sides.
func (e *explainer) add(at place, a, b content, s scan, cause Cause, sentence string) {
	d := e.difference(at, cause, sentence)
	d.Offset, d.Count, d.SizeA, d.SizeB = s.first, s.count, a.size, b.size
	d.ExcerptA, d.ExcerptB = excerpt(a, s.first), excerpt(b, s.first)
	e.found = append(e.found, d)
}

// addValues adds a difference of two values that are not content.
func (e *explainer) addValues(at place, cause Cause, sentence, a, b string) {
	d := e.difference(at, cause, sentence)
	d.ValueA, d.ValueB = cutValue(a), cutValue(b)
	e.found = append(e.found, d)
}

func (e *explainer) difference(at place, cause Cause, sentence string) Difference {
	members := at.members
	if members == nil {
		members = []string{}
	}
	return Difference{Path: at.path, Members: members, Cause: cause, Sentence: sentence, Offset: -1, SizeA: -1, SizeB: -1}
}

func (e *explainer) note(at place, text string) {
	e.notes = append(e.notes, Name(at.path, at.members)+": "+text)
}

// excerpt returns the lines of 16 bytes around offset.
func excerpt(c content, offset int64) *Excerpt {
	start := max(offset-excerptSize/4, 0) &^ 15
	b, err := c.at(start, excerptSize)
	if err != nil {
		return nil // the difference stands without it
	}
	return &Excerpt{Offset: start, Bytes: b}
}

func cutValue(s string) string {
	if len(s) > maxValue {
		return s[:maxValue-3] + "..."
	}
	return s
}
