package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"arch.network/builder"
	"arch.network/builder/source"
)

// frame is how often the changing line is drawn anew.
const frame = 100 * time.Millisecond

// progress shows what a build is doing: on a terminal one line that changes and a line for what is finished, elsewhere one
// line an event, with --json one object a line. It writes to stderr only, and nothing with --quiet.
type progress struct {
	app  *app
	live bool

	mu    sync.Mutex    // guards all below; events come from several goroutines
	text  string        // of the changing line; empty: there is none
	since time.Time     // when what it tells began
	stop  chan struct{} // ends the drawing; nil: nothing is drawn
	drawn sync.WaitGroup
}

func newProgress(a *app) *progress {
	return &progress{app: a, live: animated(a.err) && !a.json && !a.quiet}
}

// verbs say what goes on in a stage.
var verbs = map[builder.Stage]string{
	builder.StageFetch: "fetch", builder.StageBuild: "build", builder.StageVary: "build again, varying",
	builder.StageDeliver: "deliver",
}

// buildProgress is a stage of a build that begins or is done.
type buildProgress struct {
	Stage   builder.Stage `json:"stage"`
	Name    string        `json:"name"`
	Done    bool          `json:"done"`
	Detail  string        `json:"detail"`
	Seconds float64       `json:"seconds"`
}

func (buildProgress) kind() string { return "BuildProgress" }

// fetchProgress is a transfer that begins, is tried again or is done.
type fetchProgress struct {
	What   string           `json:"fetch"`
	Kind   source.EventKind `json:"event"`
	Detail string           `json:"detail"`
	Bytes  int64            `json:"bytes"`
	Total  int64            `json:"total"` // bytes; zero: unknown
}

func (fetchProgress) kind() string { return "FetchProgress" }

// stage is a builder's Events.
func (p *progress) stage(e builder.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.TrimSpace(verbs[e.Stage] + " " + e.Name)
	switch {
	case p.app.quiet:
	case p.app.json:
		p.app.jsonLine(buildProgress{e.Stage, e.Name, e.Done, e.Detail, e.Took.Seconds()})
	case e.Done:
		p.print(fmt.Sprintf("%s: %s (%s)", text, e.Detail, took(e.Took)))
	default:
		p.begin(text)
	}
}

// fetch is a source.Fetcher's Log.
func (p *progress) fetch(e source.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.app.quiet:
	case p.app.json:
		if e.Kind != source.EventProgress { // those are many
			p.app.jsonLine(fetchProgress{e.What, e.Kind, e.Detail, e.Bytes, e.Total})
		}
	case e.Kind == source.EventRetry:
		p.print(strings.TrimSpace("fetch " + e.What + " " + e.Detail))
	case e.Kind == source.EventStart:
		p.begin(strings.TrimSpace("fetch " + e.What + " " + e.Detail))
	case e.Kind == source.EventDone:
		p.text = ""
	case p.live && e.Kind == source.EventProgress:
		p.text = transferred(e)
	}
}

// transferred tells how far a transfer is.
func transferred(e source.Event) string {
	text := "fetch " + e.What
	if e.Bytes > 0 {
		text += " " + size(e.Bytes)
		if e.Total > 0 {
			text += " of " + size(e.Total)
		}
	}
	return text
}

// begin tells of something that goes on from now. Elsewhere than on a terminal it is a line that stays.
func (p *progress) begin(text string) {
	if !p.live {
		p.print(text)
		return
	}
	p.text, p.since = text, time.Now()
	p.draw()
	if p.stop == nil {
		stop := make(chan struct{})
		p.stop = stop
		p.drawn.Go(func() { p.redraw(stop) })
	}
}

// redraw draws the changing line until it is told to stop.
func (p *progress) redraw(stop <-chan struct{}) {
	ticker := time.NewTicker(frame)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// draw writes the changing line, with how long it has been true.
func (p *progress) draw() {
	if p.text == "" {
		return
	}
	clock := ""
	if d := time.Since(p.since); d >= time.Second {
		clock = " " + d.Truncate(time.Second).String()
	}
	text := clip("  "+printableLine(p.text), width(p.app.err)-1-len(clock))
	io.WriteString(p.app.err, "\r\x1b[K"+text+clock)
}

// print writes a line that stays.
func (p *progress) print(text string) {
	if p.live {
		io.WriteString(p.app.err, "\r\x1b[K")
		p.text = ""
	}
	fmt.Fprintf(p.app.err, "  %s\n", printableLine(text))
}

// end clears the changing line. Nothing is drawn afterwards, until the next event.
func (p *progress) end() {
	p.mu.Lock()
	if p.live && p.text != "" {
		io.WriteString(p.app.err, "\r\x1b[K")
	}
	p.text = ""
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
	p.mu.Unlock()
	p.drawn.Wait()
}

// clip shortens text to n characters.
func clip(text string, n int) string {
	if r := []rune(text); len(r) > n {
		return string(r[:max(n-1, 0)]) + "…"
	}
	return text
}

// took writes a duration for people.
func took(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// count writes a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
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
