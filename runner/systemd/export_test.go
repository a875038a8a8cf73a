package systemd

import (
	"context"
	"slices"

	"arch.network/runner"
)

// ProbeUnconfined runs the probes in units without any confinement.
func ProbeUnconfined(ctx context.Context, r *Runner) ([]Effect, error) {
	l, err := r.bus.get(ctx)
	if err != nil {
		return nil, err
	}
	kept := []string{"Type", "CollectMode", "AddRef", "StandardError", "TimeoutStartUSec", "KillSignal"}
	return probeUnits(ctx, l, r.options, func(kind string) []Property {
		p := slices.DeleteFunc(r.options.common(runner.Spec{}), func(p Property) bool { return !slices.Contains(kept, p.Name) })
		return append(p, Property{"ExecStart", r.options.probeCommand(r.options.Executable, kind)})
	})
}

// BreakConnection ends the connection to systemd, as when the bus is restarted.
func BreakConnection(ctx context.Context, r *Runner) error {
	l, err := r.bus.get(ctx)
	if err == nil {
		l.Close()
	}
	return err
}

// Burn is the probe of CPU quotas, for this process.
func Burn() (holds bool, seen string) { return burn() }

// Applied returns what systemd says of a unit, by the names of properties.
func Applied(ctx context.Context, r *Runner, unit string) (map[string]any, error) {
	l, err := r.bus.get(ctx)
	if err != nil {
		return nil, err
	}
	return l.GetAllPropertiesContext(ctx, unit)
}
