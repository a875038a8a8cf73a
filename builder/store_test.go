package builder_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"arch.network/attest/digest/nar"
	"arch.network/builder"
	"arch.network/runner"
)

func TestAnsweredFromTheStore(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := demo(step("cat", "/build/src", out))
	made := w.mustBuild(t, doc, base)
	record := func() string { return filepath.Join(w.store.Dir(), "records/build") }
	for _, c := range []struct {
		name   string
		harm   func() error
		cached bool
	}{
		{"nothing happened", func() error { return nil }, true},
		{"the output is gone", func() error { return nar.RemoveAll(filepath.Dir(made.Record.Outputs[0].Path)) }, false},
		{"it is there again", func() error { return nil }, true},
		{"the record is damaged", func() error { return changeAll(record(), "outputs", "output5") }, false},
		{"the record is of another form", func() error {
			return w.store.Remember("build", made.ID.Hex(), []byte(`{"outputs":[],"confinement":{"driver":"x","enforced":null},"more":1}`))
		}, false},
		{"the record lacks an output", func() error {
			return w.store.Remember("build", made.ID.Hex(), []byte(`{"outputs":[],"confinement":{"driver":"x","enforced":null},"log":"`+
				made.Record.Log.String()+`","started":"2026-01-01T00:00:00Z","finished":"2026-01-01T00:00:00Z"}`))
		}, false},
		{"the log is gone", func() error { return os.RemoveAll(filepath.Join(w.dir, "logs")) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.harm(); err != nil {
				t.Fatal(err)
			}
			again := w.mustBuild(t, doc, base)
			if again.Cached != c.cached || again.ID != made.ID {
				t.Errorf("cached: %t, want %t", again.Cached, c.cached)
			}
			if claimBytes(t, w.attest(t, again)) != claimBytes(t, w.attest(t, made)) {
				t.Error("the claim changed")
			}
		})
	}
	forced, err := w.builder.Build(t.Context(), builder.Request{Manifest: doc, Base: base, Force: true})
	if err != nil || forced.Cached {
		t.Errorf("forced: %+v, %v", forced, err)
	}
}

// changeAll replaces text in every file below dir.
func changeAll(dir, from, to string) error {
	return filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(p, []byte(strings.ReplaceAll(string(data), from, to)), 0o644)
	})
}

// weak is a runner that says that something was not enforced.
type weak struct {
	runner.Runner
	missing string
}

func (r weak) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	result, err := r.Runner.Run(ctx, spec)
	result.Confinement.Missing = append(result.Confinement.Missing, r.missing)
	return result, err
}

// What was built in weaker confinement has another builder, and is no answer to who wants it hermetic.
func TestDegradedIsNeverMixed(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := demo(step("cat", "/build/src", out))
	strong := w.builder.Runner
	w.builder.Runner, w.builder.Degraded = weak{strong, "network-none: the host refuses it"}, true
	made := w.mustBuild(t, doc, base)
	if id := provenance(t, w.attest(t, made)).RunDetails.Builder.ID; !strings.Contains(id, "/degraded/") {
		t.Errorf("builder is %s", id)
	}
	if again := w.mustBuild(t, doc, base); !again.Cached {
		t.Error("a degraded builder does not know its own build")
	}
	w.builder.Runner, w.builder.Degraded = strong, false
	hermetic := w.mustBuild(t, doc, base)
	if hermetic.Cached {
		t.Error("a degraded result was taken for a hermetic one")
	}
	// The clock is no part of the confinement.
	w.builder.Runner = weak{strong, "clock-offset: there is no way"}
	made = w.mustBuild(t, doc, base, builder.FactorUID, builder.FactorTime)
	if id := provenance(t, w.attest(t, made)).RunDetails.Builder.ID; !strings.Contains(id, "/hermetic/") {
		t.Errorf("builder is %s", id)
	}
	if v := made.Record.Variation; len(v.Missing) != 1 || v.Missing[0] != builder.FactorTime {
		t.Errorf("variation: %+v", v)
	}
}

// Builds of the same id at the same time, by several builders of one store, do not disturb each other.
func TestConcurrentBuilds(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := demo(step("say", strings.Repeat("many words ", 5000)))
	good := demo(step("cat", "/build/src", out))
	var all sync.WaitGroup
	for range 4 {
		one := *w.builder
		all.Go(func() {
			_, err := one.Build(t.Context(), builder.Request{Manifest: doc, Base: base, Force: true})
			if _, ok := asBuildError(err); !ok {
				t.Errorf("got %v", err)
			}
			made, err := one.Build(t.Context(), builder.Request{Manifest: good, Base: base, Force: true, Vary: []builder.Factor{builder.FactorUID}})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := one.Deliver(t.Context(), made, filepath.Join(w.dir, "result")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	logs, err := filepath.Glob(filepath.Join(w.dir, "logs", "*"))
	if err != nil || len(logs) != 3 {
		t.Errorf("logs: %q, %v", logs, err)
	}
	whole := 0
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 0 {
			whole++
			if !strings.HasSuffix(string(data), "tool: as it was told\n") || len(data) != 5000*11+1+len("tool: as it was told\n") {
				t.Errorf("log %s has %d bytes, and is not that of one build", path, len(data))
			}
		}
	}
	if whole != 1 {
		t.Errorf("%d logs have content, want 1", whole)
	}
	if made := w.mustBuild(t, good, base); !made.Cached {
		t.Error("the build is not remembered")
	}
}

// An error of the fetcher, or of the runner's set-up, is passed on as it is.
func TestErrorsOfOthers(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := demo(step("cat", "/build/src", out))
	doc.Spec.Inputs[1].Path = "nowhere"
	if _, err := w.build(t, doc, base); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), `"src"`) {
		t.Errorf("got %v", err)
	}
	doc = demo(step("cat", "/build/src", out))
	w.builder.Runner = refusing{}
	_, err := w.build(t, doc, base)
	if e, ok := errors.AsType[*runner.SetupError](err); !ok || !strings.HasPrefix(err.Error(), "build demo: ") || e.Hint() == "" {
		t.Errorf("got %v", err)
	}
}

type refusing struct{}

func (refusing) Run(context.Context, runner.Spec) (runner.Result, error) {
	return runner.Result{}, &runner.SetupError{Act: "create user namespace", Err: os.ErrPermission, Cure: "allow it"}
}
