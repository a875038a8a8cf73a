package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"arch.network/attest/digest/storepath"
	"arch.network/builder/challenge"
	"arch.network/builder/derivation"
	"arch.network/builder/nix/drv"
)

// parseOutputs takes those arguments that are outputs of derivations, DRV^NAME, and returns the others, too. The derivations are read below root.
func parseOutputs(args []string, root string) (outputs []challenge.Output, paths []string, err error) {
	for _, arg := range args {
		at, name, ok := strings.Cut(arg, "^")
		p, err := storepath.Parse(at)
		if !ok || err != nil || p.Dir != storepath.Nix || !strings.HasSuffix(at, drv.Suffix) {
			paths = append(paths, arg)
			continue
		}
		o, err := openOutput(p, name, root)
		if err != nil {
			return nil, nil, err
		}
		outputs = append(outputs, o)
	}
	return outputs, paths, nil
}

// openOutput finds out by what an output is known to caches.
func openOutput(p storepath.Path, name, root string) (challenge.Output, error) {
	o := challenge.Output{Drv: p, Name: name}
	g, err := drv.Load(p.String(), func(path string) ([]byte, error) { return derivation.ReadFile(filepath.Join(root, path)) })
	if err != nil {
		return o, hinted(err, "the derivation must be in this machine's store: evaluate what it comes from; --root names where another store lies")
	}
	d := g.Derivation(p.String())
	out, ok := d.Output(name)
	switch {
	case !ok:
		return o, usage("%s has no output %q", p, name)
	case out.Path != "":
		return o, hinted(usage("output %q of %s is not named by its content", name, p), "challenge its path, which the derivation says: "+out.Path)
	}
	o.ID = g.RealisationID(p.String())
	return o, nil
}

// challengeOutput is what was said of one output.
type challengeOutput struct {
	Output    string                   `json:"output"` // DRV^NAME
	Outcome   challenge.Outcome        `json:"outcome"`
	Paths     []string                 `json:"paths"` // that it is said to have come out at; what lies there is challenged, too
	Operators []string                 `json:"operators"`
	Wrong     []string                 `json:"wrongSignatures,omitempty"`
	Reason    string                   `json:"reason"`
	Tellings  []challengeOutputTelling `json:"tellings"`
}

type challengeOutputTelling struct {
	Voter  string          `json:"voter"`
	State  challenge.State `json:"state"`
	Path   string          `json:"path,omitempty"`
	Detail string          `json:"detail,omitempty"`
}

func describeOutputs(results []challenge.OutputResult) []challengeOutput {
	var list []challengeOutput
	for _, r := range results {
		o := challengeOutput{
			Output: r.Output.String(), Outcome: r.Outcome, Paths: []string{}, Operators: append([]string{}, r.Operators...), Wrong: r.Wrong, Reason: r.Reason,
			Tellings: []challengeOutputTelling{},
		}
		for _, p := range r.Paths {
			o.Paths = append(o.Paths, p.String())
		}
		for _, s := range r.Tellings {
			t := challengeOutputTelling{Voter: s.Voter, State: s.State, Detail: s.Detail}
			if s.State == challenge.Has {
				t.Path = s.Said.Path
			}
			o.Tellings = append(o.Tellings, t)
		}
		list = append(list, o)
	}
	return list
}

func (o challengeOutput) text(s *screen) {
	showOutcome(s, o.Outcome, o.Output, o.Reason, o.Wrong)
	for _, t := range o.Tellings {
		fmt.Fprintf(s, "  %-7s %s %s\n", t.State, t.Voter, cmp.Or(t.Path, t.Detail))
	}
}

// showOutcome shows what is known of one path or output, but for who said what.
func showOutcome(s *screen, outcome challenge.Outcome, what, reason string, wrong []string) {
	colors := map[challenge.Outcome]string{challenge.Agree: "32", challenge.Differ: "31", challenge.Unknown: "33"}
	s.paint(colors[outcome], fmt.Sprintf("%-7s", strings.ToUpper(string(outcome))))
	fmt.Fprintf(s, " %s\n          %s\n", what, reason)
	for _, w := range wrong {
		fmt.Fprintf(s, "          WRONG SIGNATURE %s\n", w)
	}
}
