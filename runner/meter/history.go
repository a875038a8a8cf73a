package meter

import "time"

// The history reaches back as far as the slowest detector looks, and its step bounds its size: some 2300 samples, 350 KB.
const (
	historySpan = 90 * time.Second
	historyStep = 50 * time.Millisecond
)

// history is the recent samples, oldest first.
type history struct {
	samples []Sample
}

// add takes a sample. One that follows too closely replaces the last, except right after the start, where short
// executions need every one.
func (h *history) add(s Sample) {
	n := len(h.samples)
	if n >= 2 && s.At > time.Second && s.At-h.samples[n-2].At < historyStep {
		h.samples[n-1] = s
		return
	}
	h.samples = append(h.samples, s)
	old := 0
	for old < n && s.At-h.samples[old].At > historySpan {
		old++
	}
	// Moved down only when a good part is old, so that each sample moves about once.
	if old > 256 {
		h.samples = append(h.samples[:0], h.samples[old:]...)
	}
}
