package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"arch.network/builder/store"
)

// app is what every command shares: streams, global flags, and where things lie.
type app struct {
	in       io.Reader
	out      io.Writer // results and nothing else
	err      io.Writer // progress, warnings, errors
	json     bool
	quiet    bool
	color    string // auto, always, never
	storeDir string // of --store; empty: the default
}

func newApp(in io.Reader, out, errout io.Writer) *app {
	return &app{in: in, out: out, err: errout}
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

// openStore opens the store that --store, $ARCH_STORE or XDG names.
func (a *app) openStore() (*store.Store, error) {
	d := a.storeDir
	if d == "" {
		d = os.Getenv("ARCH_STORE")
	}
	if d == "" {
		data, err := a.dir("ARCH_DATA", "XDG_DATA_HOME", ".local/share")
		if err != nil {
			return nil, err
		}
		d = filepath.Join(data, "store")
	}
	return store.Open(d)
}

// print writes the result of a command: v as one line of JSON with --json, else what text writes.
func (a *app) print(v any, text func(w io.Writer)) error {
	var buf bytes.Buffer
	if a.json {
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	} else {
		text(&buf)
	}
	_, err := a.out.Write(buf.Bytes())
	return err
}

// note tells a person something that is no result.
func (a *app) note(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.err, "arch: "+format+"\n", args...)
	}
}

// terminal reports whether w is a terminal that understands escape sequences.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

// colored reports whether w may be written to in color (no-color.org).
func (a *app) colored(w io.Writer) bool {
	switch a.color {
	case "always":
		return true
	case "never":
		return false
	}
	return os.Getenv("NO_COLOR") == "" && terminal(w)
}

// paint wraps text in an SGR sequence if w may be colored.
func (a *app) paint(w io.Writer, code, text string) string {
	if !a.colored(w) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// printable makes text that came from elsewhere safe for a terminal: control characters but newline and tab are escaped.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r < 0x20 || r >= 0x7f && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return '\ufffd'
		}
		return r
	}, text)
}

// hintedError adds a way out to an error.
type hintedError struct {
	error
	hint string
}

func hinted(err error, hint string) error { return &hintedError{err, hint} }

func (e *hintedError) Unwrap() error { return e.error }
func (e *hintedError) Hint() string  { return e.hint }

// hintOf returns the way out that err or what it wraps knows.
func hintOf(err error) string {
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		return h.Hint()
	}
	return ""
}
