package dashboard

import (
	"fmt"
	"html/template"
	"slices"
	"strings"

	"arch.network/agent"
)

// Where the states stand. Those that a job passes when it goes well are in one row, and below them those in which it ends otherwise.
const (
	boxWidth, boxHeight = 104, 34
	rowMain, rowEnds    = 90, 270
	column              = 140
)

type point struct{ x, y int }

func places() map[agent.State]point {
	at := map[agent.State]point{}
	for i, s := range []agent.State{agent.Proposed, agent.Verified, agent.Placed, agent.Running, agent.Validating, agent.Anchored, agent.Archived} {
		at[s] = point{66 + i*column, rowMain}
	}
	for i, s := range []agent.State{agent.Refused, agent.Cancelled, agent.Failed, agent.Quarantined, agent.Discarded} {
		at[s] = point{66 + column/2 + column + i*column, rowEnds}
	}
	return at
}

// Diagram draws agent.Life as SVG: an arrow for each step that there is, dashed if no decision goes with it. What a job has passed, and
// where it is, stands out.
func Diagram(steps []agent.Passed, now agent.State) template.HTML {
	at := places()
	taken := map[[2]agent.State]bool{}
	from := agent.State("")
	for _, s := range steps {
		taken[[2]agent.State{from, s.State}] = true
		from = s.State
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="life" viewBox="0 0 %d 320" role="img" aria-label="The states of a job and the steps between them">`, 66*2+6*column)
	b.WriteString(`<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M0 0 8 4 0 8z"/></marker></defs>`)
	lines := agent.Life()
	slices.SortStableFunc(lines, func(a, b agent.Transition) int { // what was taken is drawn above the rest
		return truth(taken[[2]agent.State{a.From, a.To}]) - truth(taken[[2]agent.State{b.From, b.To}])
	})
	for _, t := range lines {
		if t.From == "" {
			continue
		}
		class := "step"
		if t.Entry == "" {
			class += " quiet"
		}
		if taken[[2]agent.State{t.From, t.To}] {
			class += " taken"
		}
		fmt.Fprintf(&b, `<path class="%s" d="%s" marker-end="url(#tip)"><title>%s</title></path>`, class, curve(at[t.From], at[t.To]),
			template.HTMLEscapeString(fmt.Sprintf("%s to %s: %s", t.From, t.To, t.When)))
	}
	for _, s := range agent.States() {
		p, class := at[s], "state "+tone(s)
		if slices.ContainsFunc(steps, func(x agent.Passed) bool { return x.State == s }) {
			class += " passed"
		}
		if s == now {
			class += " now"
		}
		fmt.Fprintf(&b, `<g class="%s"><rect x="%d" y="%d" width="%d" height="%d" rx="8"/><text x="%d" y="%d">%s</text></g>`, class,
			p.x-boxWidth/2, p.y-boxHeight/2, boxWidth, boxHeight, p.x, p.y+5, s)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // every part is a constant, a number or escaped
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// curve is the way of an arrow between two boxes.
func curve(a, b point) string {
	w, h := boxWidth/2, boxHeight/2
	switch {
	case a.y == b.y && b.x > a.x && b.x-a.x <= column: // the next one
		return fmt.Sprintf("M%d %dH%d", a.x+w, a.y, b.x-w)
	case a.y == b.y: // back, over the row
		lift := 30 + (a.x-b.x)/8
		return fmt.Sprintf("M%d %dC%d %d %d %d %d %d", a.x, a.y-h, a.x, a.y-h-lift, b.x+14, b.y-h-lift, b.x+14, b.y-h)
	case a.y < b.y: // down
		mid := (a.y + b.y) / 2
		return fmt.Sprintf("M%d %dC%d %d %d %d %d %d", a.x, a.y+h, a.x, mid+20, b.x, mid-20, b.x, b.y-h)
	default: // up again
		mid := (a.y + b.y) / 2
		return fmt.Sprintf("M%d %dC%d %d %d %d %d %d", a.x+24, a.y-h, a.x+24, mid-20, b.x, mid+20, b.x, b.y+h)
	}
}
