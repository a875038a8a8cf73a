package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"arch.network/builder/store"
	"arch.network/cmd/config"
)

// app is what every command shares: streams, global flags, and where things lie.
type app struct {
	in       io.Reader
	out      io.Writer // results and nothing else
	err      io.Writer // progress, notes, errors
	json     bool      // results are for a program, so errors and notes are JSON
	format   string    // of results, see formats; empty: JSON if json, else text
	printed  bool      // a result has been written as YAML
	quiet    bool
	color    string // auto, always, never
	storeDir string // of --store; empty: the default

	configFile string           // of --config; empty: the usual ones
	settings   []config.Setting // of the command that runs
}

func newApp(in io.Reader, out, errout io.Writer) *app {
	return &app{in: in, out: out, err: errout}
}

// validate checks the flags that all commands have.
func (a *app) validate() error {
	switch a.color {
	case "auto", "always", "never":
		return nil
	}
	return usage("--color: %q is not one of auto, always, never", a.color)
}

// dir returns a directory of ours: $ARCH_<name> if set, else the XDG base directory's subdirectory arch.
func (a *app) dir(own, xdg, fallback string) (string, error) {
	if d := os.Getenv(own); d != "" {
		return filepath.Abs(d)
	}
	if d := os.Getenv(xdg); filepath.IsAbs(d) { // the specification ignores relative ones
		return filepath.Join(d, "arch"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", hinted(fmt.Errorf("find a directory for our files: %w", err), "set HOME, or "+own)
	}
	return filepath.Join(home, fallback, "arch"), nil
}

// configDir holds the key and the trust root.
func (a *app) configDir() (string, error) {
	return a.dir("ARCH_CONFIG", "XDG_CONFIG_HOME", ".config")
}

// logDir holds the logs of builds.
func (a *app) logDir() (string, error) {
	d, err := a.dir("ARCH_STATE", "XDG_STATE_HOME", ".local/state")
	return filepath.Join(d, "log"), err
}

// openStore opens the store that the setting or XDG names.
func (a *app) openStore() (*store.Store, error) {
	d := a.storeDir
	if d == "" {
		data, err := a.dir("ARCH_DATA", "XDG_DATA_HOME", ".local/share")
		if err != nil {
			return nil, err
		}
		d = filepath.Join(data, "store")
	}
	return store.Open(d)
}

// print writes the result of a command: v as one line of JSON with --json, or in the form of --output, else what text writes.
func (a *app) print(v result, text func(s *screen)) error {
	var data []byte
	if a.json {
		var err error
		if data, err = a.encode(v); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	} else {
		s := &screen{color: a.colored(a.out)}
		text(s)
		data = s.bytes()
	}
	if _, err := a.out.Write(data); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// note tells a person something that is no result; with --json it is an object on stderr.
func (a *app) note(format string, args ...any) {
	if a.quiet {
		return
	}
	text := fmt.Sprintf(format, args...)
	if a.json {
		a.jsonLine(noteResult{text})
		return
	}
	fmt.Fprintf(a.err, "arch: %s\n", printable(text))
}

// noteResult is a note as --json shows it, on stderr.
type noteResult struct {
	Note string `json:"note"`
}

func (noteResult) kind() string { return "Note" }

// jsonLine writes v to stderr as a line of JSON.
func (a *app) jsonLine(v result) {
	if line, err := jsonLine(v); err == nil {
		_, _ = a.err.Write(line)
	}
}

// parseTime reads the value of a flag that names a time; empty: now.
func parseTime(flag, value string) (time.Time, error) {
	if value == "" {
		return time.Now(), nil
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return t, hinted(usage("%s: %q is not an RFC 3339 time", flag, value), "write it like 2026-01-31T12:00:00Z")
	}
	return t, nil
}

// hintedError adds a way out to an error.
type hintedError struct {
	error
	hint string
}

func hinted(err error, hint string) error { return &hintedError{err, hint} }

func (e *hintedError) Unwrap() error { return e.error }
func (e *hintedError) Hint() string  { return e.hint }

// hintOf returns the way out that err or what it wraps knows: the outermost that is not empty.
func hintOf(err error) string {
	for err != nil {
		h, ok := errors.AsType[interface {
			error
			Hint() string
		}](err)
		if !ok {
			return ""
		}
		if hint := h.Hint(); hint != "" {
			return hint
		}
		err = errors.Unwrap(h)
	}
	return ""
}

// interrupted reports whether the command was told to stop.
func interrupted(ctx context.Context) bool { return ctx.Err() != nil }
