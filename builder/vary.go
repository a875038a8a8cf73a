package builder

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"time"

	"arch.network/builder/diff"
	"arch.network/runner"
)

// clockOffset is what a runner calls a clock that it has set apart, in Confinement.Enforced, or could not, in Missing.
const clockOffset = "clock-offset"

// again builds a second time with the factors varied and compares. If the bits differ it looks for the guilty factor.
// fresh says that the first build has ended just now.
func (b *Builder) again(ctx context.Context, made *Made, factors []Factor, fresh bool) error {
	end := b.begin(StageVary, joinFactors(factors))
	if fresh && slices.Contains(factors, FactorTime) {
		if err := nextSecond(ctx); err != nil {
			return err
		}
	}
	second, err := b.try(ctx, made, factors, ".varied")
	if err != nil {
		return err
	}
	missing, err := unvaried(made, factors, second.confinement)
	if err != nil {
		return err
	}
	if !second.same() {
		return b.accuse(ctx, made, factors, missing, second)
	}
	made.Record.Variation = &Variation{Factors: factors, Missing: missing}
	made.Record.Finished = b.notBefore(made.Record.Finished)
	end("same bits")
	return b.remember(made)
}

// nextSecond waits, for at most a second, until the second of the wall clock that it is called in is over.
func nextSecond(ctx context.Context) error {
	now := time.Now()
	timer := time.NewTimer(now.Truncate(time.Second).Add(time.Second).Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// trial is what came of building again.
type trial struct {
	differ      []Mismatch
	broken      *BuildError // it failed; nil: it did not
	confinement runner.Confinement
}

func (t trial) same() bool { return t.broken == nil && len(t.differ) == 0 }

// try builds with the factors varied, and compares with the first build. That it fails is a result.
func (b *Builder) try(ctx context.Context, made *Made, factors []Factor, suffix string) (trial, error) {
	ran, err := b.run(ctx, made, standard().vary(factors), suffix)
	if broken, ok := errors.AsType[*BuildError](err); ok {
		return trial{broken: broken, confinement: broken.Result.Confinement}, nil
	}
	if err != nil {
		return trial{}, err
	}
	return trial{differ: compare(made.Record.Outputs, ran.outputs), confinement: ran.result.Confinement}, nil
}

// compare returns every output whose tree differs.
func compare(first, second []Output) []Mismatch {
	var differ []Mismatch
	for i := range first {
		if first[i].NAR != second[i].NAR {
			differ = append(differ, Mismatch{
				Output: first[i].Name, First: first[i].NAR, Second: second[i].NAR, A: first[i].Path, B: second[i].Path,
			})
		}
	}
	return differ
}

// unvaried returns the factors that did not really vary in a run with the given confinement: those that the manifest or
// the machine fixes, and those that the runner did not enforce. A runner that says nothing of the clock did not offset it.
func unvaried(made *Made, factors []Factor, c runner.Confinement) ([]Factor, error) {
	var missing []Factor
	for _, f := range factors {
		effect, err := hasEffect(made, f)
		if err != nil {
			return nil, err
		}
		if !effect || !enforces(c, f) {
			missing = append(missing, f)
		}
	}
	return missing, nil
}

// hasEffect reports whether varying f changes at all what the runner is asked for.
func hasEffect(made *Made, f Factor) (bool, error) {
	if f == FactorCPUs && runtime.NumCPU() == 1 {
		return false, nil
	}
	plain, err := plan(made.Manifest, made.Inputs, standard())
	if err != nil {
		return false, err
	}
	varied, err := plan(made.Manifest, made.Inputs, standard().vary([]Factor{f}))
	return !reflect.DeepEqual(plain, varied), err
}

// enforces reports whether a runner with this confinement gave the commands the f that they were to have.
func enforces(c runner.Confinement, f Factor) bool {
	has := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(entry string) bool { return names(entry, name) })
	}
	switch f {
	case FactorTime:
		return has(c.Enforced, clockOffset) && !has(c.Missing, clockOffset)
	case FactorHostname:
		return !has(c.Missing, "host-name")
	case FactorUID:
		return !has(c.Missing, "ids")
	case FactorCPUs:
		return !has(c.Missing, "cpus")
	}
	return true
}

// accuse finds what makes the outputs of the second build differ: see the package documentation.
func (b *Builder) accuse(ctx context.Context, made *Made, factors, missing []Factor, second trial) error {
	e := &NotReproducibleError{
		Build: made.Manifest.Metadata.Name, ID: made.ID, Factors: factors, Differ: second.differ, Broken: second.broken,
	}
	control, err := b.observe(ctx, made, nil, "nothing, as a control", ".control")
	if err != nil {
		return err
	}
	if !control.same() {
		e.Differ, e.Broken = control.differ, control.broken
		return b.blameTime(ctx, e)
	}
	effective := slices.DeleteFunc(slices.Clone(factors), func(f Factor) bool { return slices.Contains(missing, f) })
	for _, f := range effective {
		single, err := b.observe(ctx, made, []Factor{f}, string(f)+" alone", "."+string(f))
		if err != nil {
			return err
		}
		if !single.same() {
			e.Guilty = append(e.Guilty, f)
		}
	}
	if len(e.Guilty) == 0 {
		if err := b.combine(ctx, made, effective, e); err != nil {
			return err
		}
		return e
	}
	// The clock went on meanwhile. If by now the bits differ even when nothing is varied, the factors are not to blame.
	control, err = b.observe(ctx, made, nil, "nothing, as a second control", ".control")
	if err != nil {
		return err
	}
	if !control.same() {
		e.Guilty, e.Differ, e.Broken = nil, control.differ, control.broken
		return b.blameTime(ctx, e)
	}
	return e
}

// observe is try, with events.
func (b *Builder) observe(ctx context.Context, made *Made, factors []Factor, what, suffix string) (trial, error) {
	end := b.begin(StageVary, what)
	t, err := b.try(ctx, made, factors, suffix)
	switch {
	case err != nil:
		return t, err
	case t.broken != nil:
		end("fails")
	case !t.same():
		end("other bits")
	default:
		end("same bits")
	}
	return t, nil
}

// blameTime decides about a build that differs even when nothing is varied: if all that differs are dates and times, it
// is the time, which no two builds have in common; else it is random.
func (b *Builder) blameTime(ctx context.Context, e *NotReproducibleError) error {
	e.Random = e.Broken != nil
	for _, d := range e.Differ {
		report, err := diff.Compare(ctx, d.A, d.B, diff.Options{})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e.Random = e.Random || err != nil || !onlyTimes(report)
	}
	if !e.Random {
		e.Guilty = []Factor{FactorTime}
	}
	return e
}

// onlyTimes reports whether all that differs are times, and the build ids, which are hashes of the rest.
func onlyTimes(r *diff.Report) bool {
	times := 0
	for _, c := range r.Causes {
		switch c.Cause {
		case diff.Timestamp, diff.Mtime:
			times++
		case diff.BuildID:
		default:
			return false
		}
	}
	return times > 0
}

// combine looks for the smallest set of factors that is guilty together, by leaving out one after the other. If all of
// them together change nothing any more, the difference comes and goes by itself.
func (b *Builder) combine(ctx context.Context, made *Made, factors []Factor, e *NotReproducibleError) error {
	all, err := b.observe(ctx, made, factors, "all once more", ".together")
	if err != nil {
		return err
	}
	if all.same() {
		e.Random = true
		return nil
	}
	set := factors
	for _, f := range factors {
		rest := without(set, f)
		t, err := b.observe(ctx, made, rest, fmt.Sprintf("all but %s", f), ".without-"+string(f))
		if err != nil {
			return err
		}
		if !t.same() {
			set = rest
		}
	}
	e.Together = set
	return nil
}
