package builder_test

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/manifest"
	"arch.network/builder"
)

func asBuildError(err error) (*builder.BuildError, bool) {
	return errors.AsType[*builder.BuildError](err)
}

// verdict is what a NotReproducibleError says.
type verdict struct {
	Guilty, Together []builder.Factor
	Random           bool
	Broken           bool
	Differ           []string
}

func verdictOf(t *testing.T, err error) verdict {
	t.Helper()
	e, ok := errors.AsType[*builder.NotReproducibleError](err)
	if !ok {
		t.Fatalf("got %v, want a NotReproducibleError", err)
	}
	v := verdict{Guilty: e.Guilty, Together: e.Together, Random: e.Random, Broken: e.Broken != nil}
	for _, d := range e.Differ {
		v.Differ = append(v.Differ, d.Output)
		for _, path := range []string{d.A, d.B} {
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("a tree that differs is not there to look at: %v", err)
			}
		}
	}
	return v
}

func TestGuiltyFactors(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	differs := []string{"out"}
	for _, c := range []struct {
		name  string
		steps [][]string
		want  verdict
	}{
		{"path", [][]string{step("leak", "path", out)}, verdict{Guilty: []builder.Factor{"path"}, Differ: differs}},
		{"uid", [][]string{step("leak", "uid", out)}, verdict{Guilty: []builder.Factor{"uid"}, Differ: differs}},
		{"hostname", [][]string{step("leak", "hostname", out)}, verdict{Guilty: []builder.Factor{"hostname"}, Differ: differs}},
		{"locale", [][]string{step("leak", "locale", out)}, verdict{Guilty: []builder.Factor{"locale"}, Differ: differs}},
		{"tz", [][]string{step("leak", "tz", out)}, verdict{Guilty: []builder.Factor{"tz"}, Differ: differs}},
		{"umask", [][]string{step("leak", "umask", out)}, verdict{Guilty: []builder.Factor{"umask"}, Differ: differs}},
		{"cpus", [][]string{step("leak", "cpus", out)}, verdict{Guilty: []builder.Factor{"cpus"}, Differ: differs}},
		{"order", [][]string{step("leak", "order", out)}, verdict{Guilty: []builder.Factor{"order"}, Differ: differs}},
		{"second", [][]string{step("leak", "second", out)}, verdict{Guilty: []builder.Factor{"time"}, Differ: differs}},
		{"random", [][]string{step("leak", "random", out)}, verdict{Random: true, Differ: differs}},
		{
			"two, each alone",
			[][]string{step("leak", "uid", "/build/x"), step("leak", "tz", "/build/y"), step("cat", "/build/x", "/build/y", out)},
			verdict{Guilty: []builder.Factor{"uid", "tz"}, Differ: differs},
		},
		{
			"two, only together",
			[][]string{step("leak", "uid+tz", out, "1000", "UTC")},
			verdict{Together: []builder.Factor{"uid", "tz"}, Differ: differs},
		},
		{
			"a hidden path breaks the build",
			[][]string{step("wantfile", out)},
			verdict{Guilty: []builder.Factor{"path"}, Broken: true},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "cpus" && runtime.NumCPU() == 1 {
				t.Skip("cannot run here: there is one CPU only, so their number cannot vary")
			}
			doc := demo(c.steps...)
			doc.Spec.Inputs[1].Writable = true
			_, err := w.build(t, doc, base, builder.Factors()...)
			if diff := cmp.Diff(c.want, verdictOf(t, err)); diff != "" {
				t.Errorf("%v\n(-want +got):\n%s", err, diff)
			}
			if hint := err.(interface{ Hint() string }).Hint(); !strings.Contains(hint, "arch ") {
				t.Errorf("the hint %q names no command", hint)
			}
		})
	}
}

// What the record and the provenance say was varied, was varied.
func TestVariationIsTruthful(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	fixed := demo(step("cat", "/build/src", out))
	fixed.Spec.Env = map[string]string{"LC_ALL": "C", "LANG": "C", "TZ": "UTC"}
	writable := demo(step("cat", "/build/src", out))
	writable.Spec.Inputs[1].Writable = true
	for _, c := range []struct {
		name    string
		doc     *manifest.Build
		factors []builder.Factor
		missing []builder.Factor
	}{
		{"all that there is to vary", writable, []builder.Factor{"path", "uid", "hostname", "locale", "tz", "umask", "order"}, nil},
		{"fixed by the manifest", fixed, []builder.Factor{"locale", "tz", "order", "umask"}, []builder.Factor{"locale", "tz", "order"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			made := w.mustBuild(t, c.doc, base, c.factors...)
			want := &builder.Variation{Factors: c.factors, Missing: c.missing}
			if diff := cmp.Diff(want, made.Record.Variation); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			checkProvenance(t, w, made)
		})
	}
}

// Time is only said to have been varied if the runner says that it offset the clock; that it cannot do so is no
// degradation of the confinement.
func TestTimeIsClaimedOnlyIfOffset(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	made, err := w.build(t, demo(step("leak", "year", out)), base, builder.FactorTime)
	if err != nil {
		// The runner can offset the clock: then a leaked year must have been found.
		want := verdict{Guilty: []builder.Factor{"time"}, Differ: []string{"out"}}
		if diff := cmp.Diff(want, verdictOf(t, err)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		return
	}
	want := &builder.Variation{Factors: []builder.Factor{"time"}, Missing: []builder.Factor{"time"}}
	if diff := cmp.Diff(want, made.Record.Variation); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	checkProvenance(t, w, made)
}

func checkProvenance(t *testing.T, w *world, made *builder.Made) {
	t.Helper()
	p := provenance(t, w.attest(t, made))
	v, err := p.Variations()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range made.Record.Variation.Factors {
		if !slices.Contains(made.Record.Variation.Missing, f) {
			want = append(want, string(f))
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, v.Factors); diff != "" {
		t.Errorf("factors in provenance (-want +got):\n%s", diff)
	}
	if v.Builds != 2 || !v.Equal || v.Once {
		t.Errorf("provenance says %+v of two equal builds", v)
	}
	if !strings.Contains(p.RunDetails.Builder.ID, "/hermetic/") {
		t.Errorf("builder is %s", p.RunDetails.Builder.ID)
	}
}

func TestVariedOnce(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := demo(step("cat", "/build/src", out))
	for i, c := range []struct {
		factors []builder.Factor
		cached  bool
		record  []builder.Factor
	}{
		{nil, false, nil},
		{nil, true, nil},
		{[]builder.Factor{"uid"}, false, []builder.Factor{"uid"}},
		{[]builder.Factor{"uid"}, true, []builder.Factor{"uid"}},
		{[]builder.Factor{"tz"}, false, []builder.Factor{"uid", "tz"}}, // what was varied once is not forgotten
		{[]builder.Factor{"tz", "uid"}, true, []builder.Factor{"uid", "tz"}},
		{nil, true, []builder.Factor{"uid", "tz"}},
	} {
		made := w.mustBuild(t, doc, base, c.factors...)
		var got []builder.Factor
		if made.Record.Variation != nil {
			got = made.Record.Variation.Factors
		}
		if diff := cmp.Diff(c.record, got); diff != "" || made.Cached != c.cached {
			t.Errorf("build %d: cached %t, want %t; factors (-want +got):\n%s", i, made.Cached, c.cached, diff)
		}
	}
}
