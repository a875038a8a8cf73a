// Package dashboard shows a node in a browser: how it is, its queue, each job's life, log and use of resources, its ledger with
// checked proofs, its policy, and what waits for review. It only shows: for whatever changes something it says the command to type.
//
// Pages are made here (html/template) and work without scripts; htmx and its SSE extension keep them fresh, uPlot draws. All of it is
// served from this package, and a strict Content-Security-Policy lets nothing else in: no inline script or style, no other host. What a
// page shows of jobs is data from strangers, and is escaped as such.
package dashboard

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"arch.network/agent"
	"arch.network/agent/control/logview"
	"arch.network/attest/digest"
)

//go:embed static page
var files embed.FS

// Options are what is shown.
type Options struct {
	Node   agent.Node
	Ledger *logview.Log                              // nil: the node shows none
	Policy func(ctx context.Context) ([]byte, error) // the envelope of the policy in force; nil: the node shows none
	Now    func() time.Time                          // nil: time.Now
}

// Dashboard is an http.Handler.
type Dashboard struct {
	o     Options
	mux   *http.ServeMux
	pages map[string]*template.Template
}

// New returns the dashboard of a node.
func New(o Options) *Dashboard {
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Dashboard{o: o, mux: http.NewServeMux(), pages: map[string]*template.Template{}}
	for _, p := range []struct {
		path, name string
		show       func(r *http.Request) (any, error)
	}{
		{"GET /{$}", "node", d.node},
		{"GET /jobs", "jobs", d.jobs},
		{"GET /jobs/{job}", "job", d.job},
		{"GET /ledger", "ledger", d.ledger},
		{"GET /ledger/{index}", "entry", d.entry},
		{"GET /policy", "policy", d.policy},
		{"GET /quarantine", "quarantine", d.quarantine},
		{"GET /life", "life", d.life},
	} {
		d.mux.HandleFunc(p.path, func(w http.ResponseWriter, r *http.Request) { d.serve(w, r, p.name, p.show) })
	}
	for _, name := range []string{"node", "jobs", "job", "ledger", "entry", "policy", "quarantine", "life", "problem"} {
		d.pages[name] = template.Must(template.New("layout.html").Funcs(d.functions()).ParseFS(files, "page/layout.html", "page/parts.html", "page/"+name+".html"))
	}
	static, err := fs.Sub(files, "static")
	if err != nil {
		panic("dashboard: " + err.Error())
	}
	d.mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(static)))
	d.mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		d.problem(w, r, http.StatusNotFound, "There is no such page.")
	})
	return d
}

// ServeHTTP implements http.Handler.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.mux.ServeHTTP(w, r) }

// page is what every page shows.
type page struct {
	Name   string // of the template
	Path   string // of this page, with its query
	Nonce  string
	Status agent.Status
	Body   any
	Live   bool // what is shown changes with the node's events
}

func (d *Dashboard) serve(w http.ResponseWriter, r *http.Request, name string, show func(*http.Request) (any, error)) {
	body, err := show(r)
	if err == nil {
		err = d.write(w, r, http.StatusOK, name, body)
	}
	if err == nil {
		return
	}
	if _, ok := errors.AsType[*agent.UnknownError](err); ok {
		d.problem(w, r, http.StatusNotFound, "The node knows no such job.")
		return
	}
	if e, ok := errors.AsType[*agent.ForgottenError](err); ok {
		d.problem(w, r, http.StatusGone, e.Error()+".")
		return
	}
	if e, ok := errors.AsType[*logview.RangeError](err); ok {
		d.problem(w, r, http.StatusNotFound, e.Error()+".")
		return
	}
	if e, ok := errors.AsType[*wrongError](err); ok {
		d.problem(w, r, http.StatusBadRequest, e.text)
		return
	}
	d.problem(w, r, http.StatusInternalServerError, "The node could not show this; its log says why.")
}

// wrongError says what is wrong with an address.
type wrongError struct{ text string }

func (e *wrongError) Error() string { return e.text }

func (d *Dashboard) problem(w http.ResponseWriter, r *http.Request, status int, text string) {
	if err := d.write(w, r, status, "problem", text); err != nil {
		http.Error(w, text, status)
	}
}

// write makes a page whole before any of it is sent.
func (d *Dashboard) write(w http.ResponseWriter, r *http.Request, status int, name string, body any) error {
	p := page{Name: name, Path: r.URL.RequestURI(), Nonce: rand.Text(), Body: body}
	p.Live = name == "node" || name == "jobs" || name == "job" || name == "quarantine"
	var err error
	if p.Status, err = d.o.Node.Status(r.Context()); err != nil && name != "problem" {
		return fmt.Errorf("read status: %w", err)
	}
	var b bytes.Buffer
	if err := d.pages[name].Execute(&b, p); err != nil {
		return fmt.Errorf("make page %s: %w", name, err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+p.Nonce+"'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
	return nil
}

func (d *Dashboard) functions() template.FuncMap {
	return template.FuncMap{
		"short":  func(id digest.SHA256) string { return id.Hex()[:12] },
		"zero":   func(id digest.SHA256) bool { return id.IsZero() },
		"ago":    func(t time.Time) string { return span(d.o.Now().Sub(t)) },
		"time":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"size":   size,
		"cores":  func(milli int64) string { return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64) },
		"micros": func(n int64) string { return span(time.Duration(n) * time.Microsecond) },
		"tone":   tone,
		"states": agent.States,
		"percent": func(part, whole int64) int64 {
			if whole <= 0 {
				return 0
			}
			return min(100, part*100/whole)
		},
		"held": func(s agent.Status) int { return s.Jobs[agent.Quarantined] },
		"line": visible,
	}
}

// tone is how a state looks.
func tone(s agent.State) string {
	switch s {
	case agent.Anchored, agent.Archived:
		return "good"
	case agent.Refused, agent.Failed, agent.Discarded:
		return "bad"
	case agent.Quarantined, agent.Cancelled:
		return "warn"
	case agent.Proposed, agent.Verified:
		return "wait"
	}
	return "run"
}

// span writes a time for people, in one unit.
func span(t time.Duration) string {
	switch {
	case t < 0:
		return "soon"
	case t < time.Millisecond:
		return fmt.Sprintf("%d µs", t.Microseconds())
	case t < time.Second:
		return fmt.Sprintf("%d ms", t.Milliseconds())
	case t < 2*time.Minute:
		return fmt.Sprintf("%d s", int(t.Seconds()))
	case t < 2*time.Hour:
		return fmt.Sprintf("%d min", int(t.Minutes()))
	case t < 48*time.Hour:
		return fmt.Sprintf("%d h", int(t.Hours()))
	}
	return fmt.Sprintf("%d days", int(t.Hours()/24))
}

func size(n int64) string {
	f, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + " " + units[i]
}

// visible shows characters that would change how the text around them reads, such as those that turn its direction.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0x061c || r >= 0x200e && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '␦'
		}
		return r
	}, text)
}
