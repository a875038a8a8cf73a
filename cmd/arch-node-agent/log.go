package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

var logFormats = []string{"text", "json", "journal"}

// newLog returns a logger of a format.
func newLog(format string, w io.Writer) (*slog.Logger, error) {
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	case "journal":
		if !journal.Enabled() {
			return nil, usage("--log-format text writes to stderr", "--log-format: there is no journal here")
		}
		return slog.New(&journalHandler{send: journal.Send}), nil
	}
	return slog.New(slog.NewTextHandler(w, nil)), nil
}

// journalHandler writes records to the journal: the message as MESSAGE, each attribute as a field ARCH_…, so that
// journalctl ARCH_JOB=… finds them.
type journalHandler struct {
	send   func(message string, priority journal.Priority, fields map[string]string) error
	fields map[string]string
	group  string
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	fields := map[string]string{"SYSLOG_IDENTIFIER": "arch-node-agent"}
	maps.Copy(fields, h.fields)
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		h.add(fields, h.group, a)
		if !a.Equal(slog.Attr{}) {
			text += fmt.Sprintf(" %s=%q", a.Key, a.Value.Resolve().String())
		}
		return true
	})
	return h.send(text, priority(r.Level), fields)
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := &journalHandler{send: h.send, group: h.group, fields: map[string]string{}}
	maps.Copy(next.fields, h.fields)
	for _, a := range attrs {
		h.add(next.fields, h.group, a)
	}
	return next
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{send: h.send, fields: h.fields, group: h.group + name + "_"}
}

func (h *journalHandler) add(fields map[string]string, group string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "_"
		}
		for _, inner := range value.Group() {
			h.add(fields, group, inner)
		}
		return
	}
	if a.Key != "" {
		fields[fieldName(group+a.Key)] = value.String()
	}
}

// maxField is the most bytes of a field's name (systemd.journal-fields(7)).
const maxField = 64

// fieldName makes a name of the journal out of any text: capitals, digits and underscores.
func fieldName(key string) string {
	name := "ARCH_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return name[:min(len(name), maxField)]
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
