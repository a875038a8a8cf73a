package cdi

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
)

// harmlessSpec has devices that every Linux host has.
const harmlessSpec = `
cdiVersion: "0.6.0"
kind: vendor.com/class
annotations: {vendor.com/made: by-hand}
containerEdits:
  env: [VENDOR=yes]
  mounts:
    - {hostPath: /usr/share, containerPath: /vendor/share, options: [ro, nosuid, nodev, rbind, rprivate, noexec]}
devices:
  - name: zero
    containerEdits:
      env: [ZERO=1]
      deviceNodes:
        - {path: /dev/vendor/zero, hostPath: /dev/zero, type: c, major: 1, minor: 5, permissions: r}
  - name: all
    containerEdits:
      deviceNodes:
        - {path: /dev/vendor/zero, hostPath: /dev/zero, permissions: r}
        - {path: /dev/full}
      mounts:
        - {hostPath: /usr/share, containerPath: /vendor/share, options: [ro]}
        - {hostPath: /tmp, containerPath: /vendor/state, options: [rw, bind]}
`

func specDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestResolve(t *testing.T) {
	dir := specDir(t, map[string]string{"vendor.yaml": harmlessSpec, "README": "not a specification"})
	zero := runner.Device{Source: "/dev/zero", Target: "/dev/vendor/zero", Permissions: "r"}
	share := runner.Mount{Kind: runner.Bind, Source: "/usr/share", Target: "/vendor/share"}
	tests := []struct {
		name    string
		devices []string
		want    Edits
	}{
		{"none", nil, Edits{}},
		{"one", []string{"vendor.com/class=zero"}, Edits{
			Env: []string{"VENDOR=yes", "ZERO=1"}, Devices: []runner.Device{zero}, Mounts: []runner.Mount{share},
		}},
		{"two that share", []string{"vendor.com/class=all", "vendor.com/class=zero"}, Edits{
			Env: []string{"VENDOR=yes", "ZERO=1"}, Devices: []runner.Device{zero, {Source: "/dev/full", Target: "/dev/full"}},
			Mounts: []runner.Mount{share, {Kind: runner.Bind, Source: "/tmp", Target: "/vendor/state", Writable: true}},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Resolve(test.devices, []string{"/nonexistent", dir})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLaterDirectoriesCount(t *testing.T) {
	one := func(env string) string {
		return `{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":{"env":["` + env + `"]}}]}`
	}
	low, high := specDir(t, map[string]string{"a.json": one("A=low")}), specDir(t, map[string]string{"b.json": one("A=high")})
	got, err := Resolve([]string{"v.com/c=d"}, []string{low, high})
	if err != nil || cmp.Diff([]string{"A=high"}, got.Env) != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	same := specDir(t, map[string]string{"a.json": one("A=1"), "b.json": one("A=2")})
	if _, err := Resolve([]string{"v.com/c=d"}, []string{same}); err == nil || !strings.Contains(err.Error(), "b.json name it") {
		t.Errorf("got %v", err)
	}
}

func TestUnknownDevice(t *testing.T) {
	dir := specDir(t, map[string]string{"vendor.yaml": harmlessSpec})
	tests := []struct{ name, dir, hint string }{
		{"vendor.com/class=zeor", dir, `did you mean "vendor.com/class=zero"?`},
		{"other.org/thing=gpu0", dir, "this host has vendor.com/class=all, vendor.com/class=zero"},
		{"nvidia.com/gpu=0", "/nonexistent", "nvidia-ctk cdi generate"},
	}
	for _, test := range tests {
		_, err := Resolve([]string{test.name}, []string{test.dir})
		e, ok := errors.AsType[*UnknownDeviceError](err)
		if !ok || !strings.Contains(e.Hint(), test.hint) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}

// device makes a specification with one device of these edits.
func device1(edits string) string {
	return `{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":` + edits + `}]}`
}

func TestRefused(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a hook", device1(`{"hooks":[{"hookName":"createContainer","path":"/bin/evil"}]}`), `hook createContainer ("/bin/evil") cannot be applied`},
		{"a network device", device1(`{"netDevices":[{"hostInterfaceName":"eth0","name":"e"}]}`), `network device "eth0"`},
		{"groups", device1(`{"additionalGids":[44]}`), "additional group 44"},
		{"cache allocation", device1(`{"intelRdt":{"closID":"x"}}`), "intelRdt"},
		{"a node outside of /dev", device1(`{"deviceNodes":[{"path":"/etc/zero","hostPath":"/dev/zero"}]}`), "below /dev"},
		{"a path that climbs", device1(`{"deviceNodes":[{"path":"/dev/../etc/zero"}]}`), "absolute and clean"},
		{"a file as a node", device1(`{"deviceNodes":[{"path":"/dev/x","hostPath":"/etc/passwd"}]}`), "not a device"},
		{"a node that is gone", device1(`{"deviceNodes":[{"path":"/dev/nonexistent"}]}`), "no such file"},
		{"another number", device1(`{"deviceNodes":[{"path":"/dev/zero","major":1,"minor":3}]}`), "it is 1:5 on the host, not 1:3"},
		{"another type", device1(`{"deviceNodes":[{"path":"/dev/zero","type":"b"}]}`), `its type is "c" on the host`},
		{"another mode", device1(`{"deviceNodes":[{"path":"/dev/zero","fileMode":256}]}`), "fileMode 0400 cannot be applied"},
		{"another owner", device1(`{"deviceNodes":[{"path":"/dev/zero","uid":4242}]}`), "uid and gid cannot be applied"},
		{"strange permissions", device1(`{"deviceNodes":[{"path":"/dev/zero","permissions":"wr"}]}`), `permissions "wr"`},
		{"a file system", device1(`{"mounts":[{"hostPath":"/a","containerPath":"/b","type":"overlay"}]}`), `type "overlay"`},
		{"a strange option", device1(`{"mounts":[{"hostPath":"/a","containerPath":"/b","options":["suid"]}]}`), `option "suid"`},
		{"a relative mount", device1(`{"mounts":[{"hostPath":"a","containerPath":"/b"}]}`), "absolute and clean"},
		{"no variable", device1(`{"env":["=x"]}`), "KEY=value"},
		{"an unknown field", device1(`{"seccomp":{}}`), `unknown field "seccomp"`},
		{"a future version", `{"cdiVersion":"9.0.0","kind":"v.com/c","devices":[{"name":"d"}]}`, `cdiVersion "9.0.0"`},
		{"a bad kind", `{"cdiVersion":"1.0.0","kind":"../c","devices":[{"name":"d"}]}`, `kind "../c"`},
		{"a bad name", `{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[{"name":"-d"}]}`, `name "-d"`},
		{"twice", `{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[{"name":"d"},{"name":"d"}]}`, "there twice"},
		{"no device", `{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[]}`, "no device"},
		{"aliases", "a: &a [x]\nb: [*a, *a]\n", "anchors and aliases"},
		{"two documents", `{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[{"name":"d"}]} {}`, ""},
		{"nothing", "", ""},
		{"too much", "# " + strings.Repeat("x", maxFile), "more than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Resolve([]string{"v.com/c=d"}, []string{specDir(t, map[string]string{"s.yaml": test.text})})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	for _, name := range []string{"gpu", "v.com=0", "v.com/c=", "/c=0", "v.com/c=a/b"} {
		if _, err := Resolve([]string{name}, nil); err == nil || !strings.Contains(err.Error(), "form") && !strings.Contains(err.Error(), "letters") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// FuzzParse must end with a specification that passes its own checks, or an error.
func FuzzParse(f *testing.F) {
	f.Add([]byte(harmlessSpec))
	f.Add([]byte(device1(`{"env":["A=1"]}`)))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := parse(in)
		if err == nil && s.check() != nil {
			t.Errorf("got %+v", s)
		}
	})
}
