package systemd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"arch.network/runner"
)

const (
	probeTime  = 3 * time.Minute // in which the probe units must end, also on a machine that is busy with other things; they take a second
	maxReport  = 64 << 10        // bytes of a report, and of what a probe unit says
	reportName = "effects.json"
)

// Probe finds out by units that try what they should not, which of the guarantees hold on this host. It takes about a second and
// leaves nothing behind but what New may use. The error is a *runner.SetupError.
func Probe(ctx context.Context, options Options) (Report, error) {
	options, err := options.complete()
	if err != nil {
		return Report{}, err
	}
	b, err := connect(ctx, options.Private)
	if err != nil {
		return Report{}, err
	}
	defer b.close()
	r := &Runner{options: options, bus: b}
	link, err := b.get(ctx)
	if err != nil {
		return Report{}, err
	}
	return r.probe(ctx, link, identity(link))
}

// identity says which systemd this is, since when.
func identity(l *link) Report {
	version, _ := l.GetManagerProperty("Version") // unknown: then nothing is known of it for long
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return Report{Systemd: strings.Trim(version, `"`), Boot: strings.TrimSpace(string(boot))}
}

// probed returns the report that is there since this boot, or makes one.
func (r *Runner) probed(ctx context.Context) (Report, error) {
	link, err := r.bus.get(ctx)
	if err != nil {
		return Report{}, err
	}
	id := identity(link)
	if old, err := readReport(r.reportPath()); err == nil && old.Systemd == id.Systemd && old.Boot == id.Boot && old.complete() {
		return old, nil
	}
	return r.probe(ctx, link, id)
}

func (r *Runner) reportPath() string { return filepath.Join(r.options.State, reportName) }

// complete reports whether all effects are known.
func (r Report) complete() bool {
	for name := range effects {
		if _, ok := r.Find(name); !ok {
			return false
		}
	}
	return true
}

func readReport(name string) (Report, error) {
	var r Report
	f, err := os.Open(name)
	if err != nil {
		return r, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReport))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

// writeReport replaces the file in one step.
func writeReport(name string, r Report) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), reportName+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// probe runs the probe units at the same time and keeps what they find.
func (r *Runner) probe(ctx context.Context, l *link, id Report) (Report, error) {
	found, err := probeUnits(ctx, l, r.options, r.options.probeProperties)
	if err != nil {
		return Report{}, err
	}
	id.Effects = found
	if err := writeReport(r.reportPath(), id); err != nil {
		return Report{}, &runner.SetupError{Act: "keep what the probes found", Err: err}
	}
	return id, nil
}

// probeProperties returns the properties of the probe unit of a kind: those of the units that it stands for.
func (o Options) probeProperties(kind string) []Property {
	class := runner.Spec{Name: "probe"}
	if kind == probeLimits {
		class.Limits = runner.Limits{Memory: probeMemory, Processes: probeTasks, CPU: probeQuota}
	}
	if kind == probeWorker {
		return o.probeWorkerUnit()
	}
	return replace(o.unit(class, layout{}), "ExecStart", o.probeCommand(programSlot, kind))
}

// probeWorkerUnit is a unit of a Pool, but with the root directory of a Run, in which there are mount points.
func (o Options) probeWorkerUnit() []Property {
	class := runner.Spec{Commands: []runner.Command{{Argv: []string{programSlot}}}}
	p := o.poolUnit(class, o.root(), false)
	p = append(p, Property{"TemporaryFileSystem", []tmpfs{{slots, "ro,nosuid,nodev,mode=0755,size=64k"}}})
	return replace(p, "ExecStart", o.probeCommand(programSlot, probeWorker))
}

// probeCommand runs the probe of a kind with the program at path.
func (o Options) probeCommand(path, kind string) []command {
	return []command{{path, []string{argument0, modeProbe, kind, networkOf()}, false}}
}

// replace returns properties with value for the one of that name.
func replace(properties []Property, name string, value any) []Property {
	list := slices.DeleteFunc(slices.Clone(properties), func(p Property) bool { return p.Name == name })
	return append(list, Property{name, value})
}

// probeUnits runs one unit of each kind, with the properties that make gives it.
func probeUnits(ctx context.Context, l *link, o Options, make func(kind string) []Property) ([]Effect, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	var mu sync.Mutex // guards found and failed
	found := map[string]finding{}
	var failed error
	var all sync.WaitGroup
	for _, kind := range []string{probeJob, probeWorker, probeLimits} {
		all.Go(func() {
			list, err := probeUnit(ctx, l, kind, make(kind))
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			for _, f := range list {
				found[f.Name] = f
			}
		})
	}
	all.Wait()
	if failed != nil {
		return nil, &runner.SetupError{Act: "probe what systemd does", Err: failed, Cure: cureBus}
	}
	var list []Effect
	for _, name := range slices.Sorted(maps.Keys(effects)) {
		d := effects[name]
		f, ok := found[name]
		if !ok {
			f.Seen = "the probe has not come to it"
		}
		e := Effect{Name: name, Property: d.property, Holds: f.Holds, Seen: f.Seen}
		if !e.Holds {
			e.Cure = d.cure
		}
		list = append(list, e)
	}
	return list, nil
}

// probeUnit runs one probe unit and returns its findings.
func probeUnit(ctx context.Context, l *link, kind string, properties []Property) ([]finding, error) {
	name := fmt.Sprintf("arch-probe-%s-%s%s", kind, randomName(), unitSuffix)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	properties = slices.DeleteFunc(slices.Clone(properties), func(p Property) bool { return p.Name == "StandardOutput" || p.Name == "RuntimeMaxUSec" })
	properties = append(properties, Property{"RuntimeMaxUSec", uint64(probeTime.Microseconds())})
	bus := append(toBus(properties), descriptor("StandardOutputFileDescriptor", w.Fd()))
	err = l.start(ctx, name, bus)
	w.Close()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), busTimeout)
		defer cancel()
		l.stop(end, name)
		l.forget(end, name)
	}()
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", kind, explain(ctx, l, name, err))
	}
	select {
	case <-l.ended(ctx, name):
	case <-ctx.Done():
		return nil, fmt.Errorf("probe %s: %w", kind, ctx.Err())
	}
	said, err := io.ReadAll(io.LimitReader(r, maxReport)) // the unit has ended: nobody writes any more
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", kind, err)
	}
	list := parseFindings(said)
	if kind == probeLimits {
		list = append(list, killedForMemory(ctx, l, name, list)...)
	}
	return list, nil
}

// explain adds what systemd says of a unit that did not start.
func explain(ctx context.Context, l *link, name string, err error) error {
	p, perr := l.GetUnitTypePropertiesContext(ctx, name, "Service")
	if perr != nil {
		return err
	}
	status, _ := p["ExecMainStatus"].(int32)
	result, _ := p["Result"].(string)
	return fmt.Errorf("%w: %w", err, &unitError{result, int(status)})
}

// parseFindings takes the lines that are findings.
func parseFindings(said []byte) []finding {
	var list []finding
	for s := bufio.NewScanner(bytes.NewReader(said)); s.Scan(); {
		var f finding
		if json.Unmarshal(s.Bytes(), &f) == nil && f.Name != "" {
			list = append(list, f)
		}
	}
	return list
}

// killedForMemory says that the limit of memory holds if the unit was killed where it ate.
func killedForMemory(ctx context.Context, l *link, name string, list []finding) []finding {
	if slices.ContainsFunc(list, func(f finding) bool { return f.Name == "memory" }) {
		return nil // it lived to tell
	}
	p, err := l.GetUnitTypePropertiesContext(ctx, name, "Service")
	if err != nil {
		return nil
	}
	result, _ := p["Result"].(string)
	status, _ := p["ExecMainStatus"].(int32)
	killed := result == "oom-kill" || result == "signal" && status == 9
	return []finding{{"memory", killed, fmt.Sprintf("the unit ended with %s, status %d", result, status)}}
}
