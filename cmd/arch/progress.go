package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"arch.network/builder"
	"arch.network/builder/source"
)

// progress shows what a build is doing: on a terminal one line that changes, elsewhere one line an event, with --json one
// object a line. It writes to stderr only, and nothing with --quiet.
type progress struct {
	app  *app
	live bool

	mu    sync.Mutex // events come from several goroutines
	shown time.Time  // when the changing line was last drawn
}

func newProgress(a *app) *progress {
	return &progress{app: a, live: terminal(a.err) && !a.json && !a.quiet}
}

// verbs say what goes on in a stage.
var verbs = map[builder.Stage]string{
	builder.StageFetch: "fetch", builder.StageBuild: "build", builder.StageVary: "build again, varying",
	builder.StageDeliver: "deliver",
}

// stage is a builder's Events.
func (p *progress) stage(e builder.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.app.quiet {
		return
	}
	if p.app.json {
		p.event(map[string]any{"stage": e.Stage, "name": e.Name, "done": e.Done, "detail": e.Detail, "seconds": e.Took.Seconds()})
		return
	}
	text := verbs[e.Stage] + " " + e.Name
	switch {
	case !e.Done:
		p.set(text)
		p.print("  " + text)
	default:
		p.print(fmt.Sprintf("  %s: %s (%s)", text, e.Detail, took(e.Took)))
	}
}

// fetch is a source.Fetcher's Log.
func (p *progress) fetch(e source.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.app.quiet || p.app.json {
		return
	}
	if e.Kind == source.EventStart || e.Kind == source.EventRetry {
		p.print("  fetch " + strings.TrimSpace(e.What+" "+e.Detail))
		return
	}
	text := "fetch " + e.What
	if e.Bytes > 0 {
		text += " " + size(e.Bytes)
		if e.Total > 0 {
			text += " of " + size(e.Total)
		}
	}
	p.set(text)
}

func (p *progress) event(v any) {
	line, err := json.Marshal(v)
	if err == nil {
		fmt.Fprintf(p.app.err, "%s\n", line)
	}
}

// set changes the changing line, at most ten times a second.
func (p *progress) set(text string) {
	if !p.live || time.Since(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = time.Now()
	fmt.Fprintf(p.app.err, "\r\x1b[K%s", clip(printable(strings.ReplaceAll(text, "\n", " ")), 100))
}

// print writes a line that stays.
func (p *progress) print(text string) {
	if p.live {
		io.WriteString(p.app.err, "\r\x1b[K")
	}
	fmt.Fprintln(p.app.err, printable(text))
}

// end clears the changing line.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live {
		io.WriteString(p.app.err, "\r\x1b[K")
	}
}

func clip(text string, n int) string {
	if r := []rune(text); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return text
}

func took(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// size writes a number of bytes for people, in binary units.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
