package diff

import (
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"io"
	"strings"
)

// elf compares two ELF files section by section, and the Go build information in them setting by setting.
func (e *explainer) elf(at place, a, b content, depth int) error {
	as, err := e.elfMembers(a)
	if err != nil {
		return fmt.Errorf("first: %w", err)
	}
	bs, err := e.elfMembers(b)
	if err != nil {
		return fmt.Errorf("second: %w", err)
	}
	e.buildInfo(at, a, b)
	before := len(e.found)
	if err := e.members(at, "section", as, bs, depth); err != nil {
		return err
	}
	if len(e.found) > before {
		return nil
	}
	// What differs lies outside of the sections.
	s, err := compareBytes(e.ctx, a, b)
	if err != nil {
		return err
	}
	e.add(at, a, b, s, Content, "All sections are equal; bytes outside of them differ (headers, padding or data behind them).")
	return nil
}

func (e *explainer) elfMembers(c content) ([]member, error) {
	f, err := elf.NewFile(c.r)
	if err != nil {
		return nil, err
	}
	header := member{name: "header", attributes: []attribute{
		{"machine", f.Machine.String(), Content},
		{"class", f.Class.String(), Content},
		{"type", f.Type.String(), Content},
		{"entry point", fmt.Sprintf("%#x", f.Entry), Content},
	}}
	list := []member{header}
	for _, s := range f.Sections {
		if s.Type == elf.SHT_NULL {
			continue
		}
		if err := e.room(len(list)); err != nil {
			return nil, err
		}
		m := member{name: s.Name, build: s.Name == ".note.gnu.build-id" || s.Name == ".note.go.buildid"}
		m.attributes = []attribute{
			{"section type", s.Type.String(), Content},
			{"section flags", s.Flags.String(), Content},
		}
		if s.Type != elf.SHT_NOBITS {
			if s.Offset > uint64(c.size) || s.FileSize > uint64(c.size)-s.Offset {
				return nil, io.ErrUnexpectedEOF
			}
			m.body = fixed(c.section(int64(s.Offset), int64(s.FileSize)))
		}
		list = append(list, m)
	}
	return list, nil
}

// buildInfo adds the differences of what the Go command noted in two programs. Programs without such notes have none.
func (e *explainer) buildInfo(at place, a, b content) {
	infoA, errA := buildinfo.Read(a.r)
	infoB, errB := buildinfo.Read(b.r)
	if errA != nil || errB != nil {
		return
	}
	at = at.in("Go build information")
	list := func(info *buildinfo.BuildInfo) map[string]string {
		values := map[string]string{"Go version": info.GoVersion, "package": info.Path, "main module": info.Main.Path + "@" + info.Main.Version + " " + info.Main.Sum}
		for _, m := range info.Deps {
			values["dependency "+m.Path] = m.Version + " " + m.Sum
		}
		for _, s := range info.Settings {
			values["setting "+s.Key] = s.Value
		}
		return values
	}
	valuesA, valuesB := list(infoA), list(infoB)
	for _, key := range sortedKeys(valuesA, valuesB) {
		x, y := valuesA[key], valuesB[key]
		if x == y {
			continue
		}
		cause := textCause(x, y)
		if key == "setting vcs.time" {
			cause = Timestamp
		}
		e.addValues(at, cause, fmt.Sprintf("The %s differs: %s and %s.", strings.TrimSpace(quoteIfOdd(key)), quote(x), quote(y)), x, y)
	}
}
