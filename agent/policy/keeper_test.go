package policy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"arch.network/agent/disk/disktest"
	"arch.network/attest/canonical"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

// TestAttacks lets an attacker, or a mistake, change the files of a node whose policy is in force, and looks what is in force
// then, and after a restart.
func TestAttacks(t *testing.T) {
	year := func(y int) time.Time { return time.Date(y, 6, 1, 12, 0, 0, 0, time.UTC) }
	tests := []struct {
		name   string
		change func(w *world)
		rule   Rule // empty: it comes into force
		want   int64
	}{
		{"nothing", func(*world) {}, "", 2},
		{"the next version", func(w *world) { w.put("policy.json", good(t, newPolicy(3))) }, "", 3},
		{"rollback", func(w *world) { w.put("policy.json", good(t, newPolicy(1))) }, RuleRollback, 2},
		{"fast-forward", func(w *world) { w.put("policy.json", good(t, newPolicy(4))) }, RuleFastForward, 2},
		{"fast-forward to the end of the numbers", func(w *world) { w.put("policy.json", good(t, newPolicy(manifest.MaxInteger))) }, RuleFastForward, 2},
		{"another document of that version", func(w *world) {
			p := newPolicy(2)
			p.Spec.Runtimes = nil
			w.put("policy.json", good(t, p))
		}, RuleSameVersion, 2},
		{"unsigned", func(w *world) { w.put("policy.json", sign(t, newPolicy(3)).Marshal()) }, RuleQuorum, 2},
		{"one of two", func(w *world) { w.put("policy.json", sign(t, newPolicy(3), "alice").Marshal()) }, RuleQuorum, 2},
		{"those who may not", func(w *world) { w.put("policy.json", sign(t, newPolicy(3), "alice", "dave", "mallory").Marshal()) }, RuleQuorum, 2},
		{"changed after it was signed", func(w *world) {
			env := sign(t, newPolicy(3), "alice", "bob")
			other, err := manifest.Canonical(newPolicy(4))
			if err != nil {
				t.Fatal(err)
			}
			env.Payload = other
			w.put("policy.json", env.Marshal())
		}, RuleQuorum, 2},
		{"expired", func(w *world) {
			p := newPolicy(3)
			p.Metadata.Expires = "2026-05-02T00:00:00Z"
			w.put("policy.json", good(t, p))
		}, RuleExpired, 2},
		{"for another trust root", func(w *world) {
			p := newPolicy(3)
			p.Spec.TrustRoot[0] = 1
			w.put("policy.json", good(t, p))
		}, RuleMix, 2},
		{"of another name", func(w *world) {
			p := newPolicy(3)
			p.Metadata.Name = "home"
			w.put("policy.json", good(t, p))
		}, RuleLineage, 2},
		{"from the future", func(w *world) {
			p := newPolicy(3)
			p.Metadata.Created = "2026-06-01T12:02:00Z"
			w.put("policy.json", good(t, p))
		}, RuleClock, 2},
		{"a trust root", func(w *world) { w.put("policy.json", sign(t, newRoot(t, 1), "alice", "bob").Marshal()) }, RuleForm, 2},
		{"garbage", func(w *world) { w.put("policy.json", []byte("{")) }, RuleFile, 2},
		{"gone", func(w *world) { os.Remove(w.path("policy.json")) }, RuleFile, 2},
		{"writable by others", func(w *world) { os.Chmod(w.path("policy.json"), 0o646) }, RuleFile, 2},
		{"in a directory that others may write to", func(w *world) { os.Chmod(w.dir, 0o777) }, RuleFile, 2},
		{"a fifo", func(w *world) { os.Remove(w.path("policy.json")); mkfifo(t, w.path("policy.json")) }, RuleFile, 2},
		{"frozen: it has expired, and its grace goes on", func(w *world) { w.at = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC) }, "", 2},
		{"frozen: its grace is over", func(w *world) { w.at = time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC) }, RuleExpired, 0},
		{"back after a long absence", func(w *world) {
			w.at = time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
			p := newPolicy(9)
			p.Metadata.Expires = "2028-01-01T00:00:00Z"
			w.put("policy.json", good(t, p))
		}, "", 9},
		{"rollback after a long absence", func(w *world) {
			w.at = time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
			p := newPolicy(1)
			p.Metadata.Expires = "2028-01-01T00:00:00Z"
			w.put("policy.json", good(t, p))
		}, RuleRollback, 0},
		{"the next trust root", func(w *world) { w.put("root.json", sign(t, newRoot(t, 2), "dave").Marshal()) }, "", 2},
		{"a trust root that nobody signed", func(w *world) { w.put("root.json", sign(t, newRoot(t, 2)).Marshal()) }, RuleQuorum, 2},
		{"a trust root that others signed", func(w *world) { w.put("root.json", sign(t, newRoot(t, 2), "mallory", "alice").Marshal()) }, RuleQuorum, 2},
		{"a trust root too far", func(w *world) { w.put("root.json", sign(t, newRoot(t, 3), "dave").Marshal()) }, RuleFastForward, 2},
		{"another trust root of that version", func(w *world) {
			root := newRoot(t, 1)
			root.Spec.Roles[manifest.RolePolicy] = manifest.TrustGroup{Threshold: 1, Of: []string{"mallory"}}
			w.put("root.json", sign(t, root, "dave").Marshal())
			w.put("policy.json", sign(t, newPolicy(3), "mallory").Marshal())
		}, RuleSameVersion, 2},
		{"a trust root of another name", func(w *world) {
			root := newRoot(t, 2)
			root.Metadata.Name = "evil"
			w.put("root.json", sign(t, root, "dave").Marshal())
		}, RuleLineage, 2},
		{"an expired trust root", func(w *world) {
			root := newRoot(t, 2)
			root.Metadata.Expires = "2026-05-01T00:00:00Z"
			w.put("root.json", sign(t, root, "dave").Marshal())
		}, RuleExpired, 2},
		{"a trust root that no longer knows who signed the policy", func(w *world) {
			root := newRoot(t, 2)
			root.Spec.Roles[manifest.RolePolicy] = manifest.TrustGroup{Threshold: 1, Of: []string{"carol"}}
			w.put("root.json", sign(t, root, "dave").Marshal())
		}, RuleQuorum, 0},
		{"both at once", func(w *world) {
			root := newRoot(t, 2)
			root.Spec.Roles[manifest.RolePolicy] = manifest.TrustGroup{Threshold: 1, Of: []string{"carol"}}
			w.put("root.json", sign(t, root, "dave").Marshal())
			w.put("policy.json", sign(t, newPolicy(3), "carol").Marshal())
		}, "", 3},
		{"the clock goes forward", func(w *world) { w.at = year(2026).AddDate(0, 3, 0) }, "", 2},
		{"the clock goes back a little", func(w *world) { w.at = time.Date(2026, 4, 30, 23, 59, 0, 0, time.UTC) }, "", 2},
		{"the clock goes back", func(w *world) { w.at = time.Date(2026, 4, 30, 23, 58, 59, 0, time.UTC) }, RuleClock, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			k := w.open()
			w.put("policy.json", good(t, newPolicy(2)))
			if err := k.Reload(); err != nil {
				t.Fatal(err)
			}
			tt.change(w)
			for _, what := range []string{"reload", "reload again", "restart"} {
				var err error
				if what == "restart" {
					k = w.open()
				} else {
					err = k.Reload()
				}
				got := Rule("")
				if no := k.Refused(); no != nil {
					got = no.Rule
					if what != "restart" && !errors.Is(err, no) {
						t.Errorf("%s: %v, want %v", what, err, no)
					}
					if no.Hint() == "" && no.Rule != RuleForm {
						t.Errorf("%v has no cure", no)
					}
				}
				if diff := cmp.Diff(tt.rule, got); diff != "" && !(tt.rule == RuleClock && tt.want == 0) {
					t.Errorf("%s: rule (-want +got)\n%s%v", what, diff, k.Refused())
				}
				if v := version(k, w.at); v != tt.want {
					_, err := k.Current(w.at)
					t.Errorf("%s: version %d is in force, want %d: %v", what, v, tt.want, err)
				}
			}
		})
	}
}

// TestRestored puts all files of the configuration back as they were, which the floor survives.
func TestRestored(t *testing.T) {
	w := newWorld(t)
	k := w.open()
	w.put("root.json", sign(t, newRoot(t, 2), "dave").Marshal())
	w.put("policy.json", good(t, newPolicy(2)))
	if err := k.Reload(); err != nil {
		t.Fatal(err)
	}
	w.put("root.json", sign(t, newRoot(t, 1)).Marshal())
	w.put("policy.json", good(t, newPolicy(1)))
	k = w.open()
	if no := k.Refused(); no == nil || no.Rule != RuleRollback || no.Kind != TrustRoot {
		t.Errorf("refused: %v", no)
	}
	if a, err := k.Current(now); err != nil || a.Trust().Root().Version() != 2 || a.Policy().Spec.Version != 2 {
		t.Errorf("%v, %v", a, err)
	}
}

// TestReported shows that a refusal is told once, and what comes into force each time.
func TestReported(t *testing.T) {
	w := newWorld(t)
	k := w.open()
	bad := sign(t, newPolicy(2), "alice").Marshal()
	for _, file := range [][]byte{bad, bad, good(t, newPolicy(2)), bad, good(t, newPolicy(2))} {
		w.put("policy.json", file)
		_ = k.Reload() // reported
	}
	var got []string
	for len(w.events) > 0 {
		switch e := <-w.events; {
		case e.InForce != nil:
			got = append(got, fmt.Sprintf("in force: %d", e.InForce.Policy().Spec.Version))
		default:
			got = append(got, fmt.Sprintf("refused: %s %d %s", e.Refused.Name, e.Refused.Version, e.Refused.Rule))
		}
	}
	want := []string{"in force: 1", "refused: house 2 quorum", "in force: 2", "refused: house 2 quorum"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestObserve(t *testing.T) {
	w := newWorld(t)
	k := w.open()
	if err := k.Observe(now.Add(2 * time.Minute)); err == nil {
		t.Error("a time far ahead of the clock is believed")
	}
	w.at = now.Add(time.Hour)
	if err := k.Observe(w.at); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*Keeper{k, w.open()} {
		if _, err := k.Current(now); !errors.As(err, new(*ClockError)) {
			t.Errorf("a clock that went back an hour: %v", err)
		}
		if _, err := k.Current(w.at.Add(-time.Minute)); err != nil {
			t.Errorf("a clock within the skew: %v", err)
		}
	}
}

func TestFloorBroken(t *testing.T) {
	w := newWorld(t)
	w.open()
	data, err := os.ReadFile(w.path(floorFile))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(data); i += 17 {
		broken := append([]byte{}, data...)
		broken[i] ^= 1
		w.put(floorFile, broken)
		k, err := Open(w.options())
		if err == nil && version(k, now) != 1 {
			t.Fatalf("byte %d: version %d is in force", i, version(k, now))
		}
	}
	w.put(floorFile, data[:len(data)/2])
	if _, err := Open(w.options()); err == nil {
		t.Error("half a floor is read")
	}
}

// TestFaults stops the world at each file operation of bringing version 2 into force, and looks whether version 1 could come
// back afterwards.
func TestFaults(t *testing.T) {
	for _, fault := range []disktest.Fault{disktest.Fail, disktest.Kill, disktest.Power} {
		for at := 1; ; at++ {
			w := newWorld(t)
			files := disktest.New()
			o := w.options()
			o.State, o.files = "/state", files
			k, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			files.At, files.Fault = len(files.Ops())+at, fault
			w.put("policy.json", good(t, newPolicy(2)))
			err = k.Reload()
			inForce := version(k, now)
			if (err == nil) != (inForce == 2) {
				t.Fatalf("%v at %d: version %d is in force, but reload says %v", fault, at, inForce, err)
			}
			o.files = files.Restart()
			w.put("policy.json", good(t, newPolicy(1)))
			if k, err = Open(o); err != nil {
				t.Fatalf("%v at %d: %v", fault, at, err)
			}
			if v := version(k, now); v < inForce || v == 0 {
				t.Fatalf("%v at %d: version %d was in force, and then %d", fault, at, inForce, v)
			}
			if err := k.Reload(); len(files.Ops()) < files.At { // the sweep is over
				if version(k, now) != 2 || err == nil {
					t.Errorf("the floor was forgotten: %v", err)
				}
				break
			}
		}
	}
}

func TestOptions(t *testing.T) {
	if _, err := Open(Options{}); err == nil {
		t.Error("no error")
	}
	w := newWorld(t)
	o := w.options()
	o.State = filepath.Join(w.dir, "missing")
	if _, err := Open(o); err == nil {
		t.Error("a floor that cannot be written is no error")
	}
}

// TestImmutable shows that what was handed out stays as it was.
func TestImmutable(t *testing.T) {
	w := newWorld(t)
	k := w.open()
	a, err := k.Current(now)
	if err != nil {
		t.Fatal(err)
	}
	w.put("policy.json", good(t, newPolicy(2)))
	if err := k.Reload(); err != nil {
		t.Fatal(err)
	}
	if a.Policy().Spec.Version != 1 || version(k, now) != 2 {
		t.Errorf("%d, %d", a.Policy().Spec.Version, version(k, now))
	}
}

func FuzzFloor(f *testing.F) {
	w := newWorld(f)
	w.open()
	data, err := os.ReadFile(w.path(floorFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"format":1,"time":"2026-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fl, err := parseFloor(data)
		if err != nil {
			return
		}
		again, err := canonical.Marshal(fl)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q became %q: %v", data, again, err)
		}
	})
}
