package diff

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"

	"arch.network/attest/digest/nar"
)

// nar compares two Nix archives.
func (e *explainer) nar(at place, a, b content, depth int) error {
	as, err := e.narMembers(a)
	if err != nil {
		return fmt.Errorf("first: %w", err)
	}
	bs, err := e.narMembers(b)
	if err != nil {
		return fmt.Errorf("second: %w", err)
	}
	return e.members(at, "member", as, bs, depth)
}

func (e *explainer) narMembers(c content) ([]member, error) {
	r := nar.NewReader(bufio.NewReaderSize(contextReader{e.ctx, c.reader()}, blockSize), nar.Limits{Entries: e.opts.Members, Size: c.size})
	var list []member
	for {
		entry, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		m := member{name: entry.Path, attributes: []attribute{
			{"type", string(entry.Type), Type},
			{"executable bit", strconv.FormatBool(entry.Executable), Mode},
			{"link target", entry.Target, Target},
		}}
		if entry.Path == "" {
			m.name = "root"
		}
		if entry.Type == nar.Regular {
			m.body = fixed(c.section(entry.Offset, entry.Size))
		}
		list = append(list, m)
	}
}
