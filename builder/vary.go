package builder

import (
	"context"
	"slices"
	"strings"
)

func covers(have, want []Factor) bool {
	for _, f := range want {
		if !slices.Contains(have, f) {
			return false
		}
	}
	return true
}

// again builds a second time with the factors varied and compares. If the bits differ it looks for the guilty factor.
func (b *Builder) again(ctx context.Context, made *Made, factors []Factor) error {
	end := b.begin(StageVary, joinFactors(factors))
	second, err := b.run(ctx, made, standard().vary(factors), ".varied")
	if err != nil {
		return err
	}
	differ := compare(made.Record.Outputs, second.outputs)
	if len(differ) > 0 {
		return b.accuse(ctx, made, factors, differ)
	}
	v := &Variation{Factors: factors}
	for _, missing := range second.result.Confinement.Missing {
		if strings.HasPrefix(missing, "clock-offset") {
			v.Missing = append(v.Missing, FactorTime)
		}
	}
	made.Record.Variation = v
	made.Record.Finished = b.Now().UTC().Truncate(1e9)
	end("same bits")
	return b.remember(made)
}

// accuse finds what makes the outputs differ: first nothing is varied, then each factor alone.
func (b *Builder) accuse(ctx context.Context, made *Made, factors []Factor, differ []Mismatch) error {
	e := &NotReproducibleError{
		Build: made.Manifest.Metadata.Name, ID: made.ID, Factors: factors, Differ: differ,
	}
	end := b.begin(StageVary, "nothing, as a control")
	control, err := b.run(ctx, made, standard(), ".control")
	if err != nil {
		return err
	}
	if d := compare(made.Record.Outputs, control.outputs); len(d) > 0 {
		e.Random, e.Differ = true, d
		return e
	}
	end("same bits")
	for _, f := range factors {
		end := b.begin(StageVary, string(f)+" alone")
		single, err := b.run(ctx, made, standard().vary([]Factor{f}), "."+string(f))
		if err != nil {
			return err
		}
		if len(compare(made.Record.Outputs, single.outputs)) > 0 {
			e.Guilty = append(e.Guilty, f)
			end("other bits")
			continue
		}
		end("same bits")
	}
	return e
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
