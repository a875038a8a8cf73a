package systemd

import (
	"time"

	"arch.network/runner"
)

func duration(nanoseconds uint64) time.Duration { return time.Duration(nanoseconds) }

// Report is what the effect probes found.
type Report struct {
	Effects []Effect
}

// Effect is one.
type Effect struct{ Name string }

func (r Report) enforced() []string { return nil }

func (r Report) require(spec runner.Spec) (missing []string, err error) { return nil, nil }
