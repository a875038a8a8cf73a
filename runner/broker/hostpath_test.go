package broker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostPaths(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{
		"good": 0o755, "good/data": 0o777, "open": 0o777, "open/data": 0o755, "sticky": 0o777 | os.ModeSticky, "sticky/mine": 0o755, "sticky/others": 0o755,
		"agents": 0o755, "agents/data": 0o755,
	} {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(at, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link": "good", "good/link": "/etc"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	asRoot := os.Geteuid() == 0
	if asRoot {
		for _, name := range []string{"agents", "sticky/others"} {
			if err := os.Chown(filepath.Join(dir, name), 4711, 4711); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		path string
		says string // empty: it is good
		root bool   // the case needs another user's directory
	}{
		{"good/data", "", false},
		{"sticky/mine", "", false},
		{"link/data", "link is a symbolic link", false},
		{"good/link", "good/link is a symbolic link", false},
		{"open/data", "open/ may be written to by others (mode 0777)", false},
		{"good/none", "does not exist", false},
		{"agents/data", "agents/ belongs to user 4711", true},
		{"sticky/others", "sticky/ may be written to by others", true},
	}
	w := newWorld(t, exits)
	p := newPolicy()
	p.Spec.Capabilities.Allow = append(p.Spec.Capabilities.Allow, "read:/**", "read:"+dir)
	w.write("policy.json", sign(t, p, "carol"))
	for _, test := range tests {
		t.Run(test.path, func(t *testing.T) {
			if test.root && !asRoot {
				t.Skip("cannot run here: another user's directory is needed, so root")
			}
			err := checkHostPath(filepath.Join(dir, test.path))
			if test.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodePath || !strings.Contains(r.Message, test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
		})
	}
	j := newJob()
	j.Spec.Capabilities.FS = []string{"read:" + filepath.Join(dir, "open/data")}
	w.refused(sign(t, j, "alice", "bob"), CodePath)
	j.Spec.Capabilities.FS = []string{"read:" + filepath.Join(dir, "good/data")}
	if _, err := w.run(sign(t, j, "alice", "bob")); err != nil {
		t.Error(err)
	}
}
