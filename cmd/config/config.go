// Package config gives a program its settings: flags over environment variables over a configuration file over defaults, and tells where each
// comes from. A setting is a flag that may be given in all of these ways, under one name.
//
// It promises that a name that is no setting, a value that the flag refuses, and a file that others can write to are errors with their place,
// never passed over; and that a setting that comes from elsewhere does not count as a flag that the user gave. It writes nothing.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"arch.network/attest/docfile"
	"arch.network/attest/manifest"
)

// The origins of settings.
const (
	FromFlag        = "flag"
	FromEnvironment = "environment"
	FromFile        = "file"
	FromDefault     = "default"
)

// Setting is the value that a program goes by.
type Setting struct {
	Name   string   `json:"name"`
	Values []string `json:"values"` // several only of a flag that may be repeated; none: it has no value
	From   string   `json:"from"`   // FromFlag, FromEnvironment, FromFile or FromDefault
	At     string   `json:"at,omitempty"`
}

// File is a configuration file, read.
type File struct {
	Path     string // empty: there is none
	settings []manifest.Setting
}

// Error says what is wrong with a setting that is no flag.
type Error struct {
	At   string // FILE:LINE:COLUMN, or the environment variable
	Msg  string
	Cure string
}

func (e *Error) Error() string { return e.At + ": " + e.Msg }

// Hint tells the way out.
func (e *Error) Hint() string { return e.Cure }

// Read reads the file that was named; if none was, the first of the usual places, which are absolute, where there is one. In a usual place there may be
// none, or none that this process could see: a service may not enter home directories. One that is there and cannot be read is an error.
func Read(named string, usual ...string) (File, error) {
	if named != "" {
		return read(named)
	}
	for _, path := range usual {
		f, err := read(path)
		if !errors.Is(err, fs.ErrNotExist) && !outOfReach(err, path) {
			return f, err
		}
	}
	return File{}, nil
}

// outOfReach reports whether the way to path ends above the directory that it is in, since this process may not go on.
func outOfReach(err error, path string) bool {
	e, ok := errors.AsType[*fs.PathError](err)
	return ok && errors.Is(e.Err, fs.ErrPermission) && strings.HasPrefix(path, e.Path+"/")
}

func read(path string) (File, error) {
	data, err := docfile.Bytes(path)
	if err != nil {
		return File{}, fmt.Errorf("read configuration: %w", err)
	}
	if blank(data) {
		return File{Path: path}, nil
	}
	settings, err := manifest.ReadSettings(data)
	if err != nil {
		return File{}, manifest.InFile(err, path)
	}
	return File{Path: path, settings: settings}, nil
}

// blank reports whether there is nothing but comments in a file.
func blank(data []byte) bool {
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return false
		}
	}
	return true
}

// Known are the settings of a program, by name.
type Known struct {
	Names  []string
	Prefix string // of environment variables, such as ARCH_
}

// Variable is the environment variable of a setting. Of one that may be repeated the values are separated by blanks.
func (k Known) Variable(name string) string {
	return k.Prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Apply gives the flags that are settings and were not given their values from the environment and the file, and returns every setting that
// these flags have, in the order of Names. The file may set what only other commands have flags for, and nothing else.
func (k Known) Apply(flags *pflag.FlagSet, file File, getenv func(string) string) ([]Setting, error) {
	for _, s := range file.settings {
		if !slices.Contains(k.Names, s.Name) {
			return nil, &Error{file.at(s), fmt.Sprintf("there is no setting %q", s.Name), "the settings are " + strings.Join(k.Names, ", ")}
		}
	}
	var out []Setting
	for _, name := range k.Names {
		if f := flags.Lookup(name); f != nil {
			s, err := k.apply(f, file, getenv)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// Settle is Read and Apply for a program with one command.
func (k Known) Settle(flags *pflag.FlagSet, getenv func(string) string, named string, usual ...string) ([]Setting, error) {
	file, err := Read(named, usual...)
	if err != nil {
		return nil, err
	}
	return k.Apply(flags, file, getenv)
}

func (k Known) apply(f *pflag.Flag, file File, getenv func(string) string) (Setting, error) {
	_, many := f.Value.(pflag.SliceValue)
	variable := k.Variable(f.Name)
	s := Setting{Name: f.Name, From: FromDefault}
	text := getenv(variable)
	i := slices.IndexFunc(file.settings, func(s manifest.Setting) bool { return s.Name == f.Name })
	switch {
	case f.Changed:
		s.From, s.At = FromFlag, "--"+f.Name
	case text != "" && many:
		s.From, s.At, s.Values = FromEnvironment, variable, strings.Fields(text)
	case text != "":
		s.From, s.At, s.Values = FromEnvironment, variable, []string{text}
	case i >= 0:
		s.From, s.At, s.Values = FromFile, file.at(file.settings[i]), file.settings[i].Values
		if file.settings[i].List && !many {
			return s, &Error{s.At, fmt.Sprintf("setting %q takes one value, not a list", f.Name), "write " + f.Name + ": VALUE"}
		}
	}
	for _, v := range s.Values {
		if err := f.Value.Set(v); err != nil { // not through the set of flags: what the user did not give is not Changed
			return s, &Error{s.At, fmt.Sprintf("setting %q: %q: %v", f.Name, v, err), f.Usage}
		}
	}
	s.Values = values(f)
	return s, nil
}

func (f File) at(s manifest.Setting) string { return fmt.Sprintf("%s:%d:%d", f.Path, s.Line, s.Column) }

// values is what a flag holds.
func values(f *pflag.Flag) []string {
	if v, ok := f.Value.(pflag.SliceValue); ok {
		return append([]string{}, v.GetSlice()...)
	}
	if text := f.Value.String(); text != "" {
		return []string{text}
	}
	return []string{}
}

// Names are all flags of a program but those that are no settings.
func Names(flags *pflag.FlagSet, except ...string) []string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(except, f.Name) {
			names = append(names, f.Name)
		}
	})
	return names
}

// Table writes settings for people, one a line: name, values and, if origins are asked for, where it comes from.
func Table(w io.Writer, settings []Setting, origins bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := strings.NewReplacer("\n", `\n`, "\t", `\t`)
	for _, s := range settings {
		text := s.Name + "\t" + line.Replace(cmp.Or(strings.Join(s.Values, " "), "-"))
		if origins {
			text += "\t" + line.Replace(strings.TrimSpace(s.From+" "+s.At))
		}
		fmt.Fprintln(t, text)
	}
	return t.Flush()
}
