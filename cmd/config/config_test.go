package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"arch.network/cmd/config"
)

// TestApply gives one program its settings from four sides.
func TestApply(t *testing.T) {
	known := config.Known{Names: []string{"color", "slots", "read", "listen", "elsewhere"}, Prefix: "X_"}
	for _, tt := range []struct {
		name, file string
		flags      []string
		env        map[string]string
		want       []string // NAME=VALUES FROM
		err, hint  string
	}{
		{name: "defaults", want: []string{"color=auto default", "slots=0 default", "read=false default", "listen= default"}},
		{
			name: "each from its side", flags: []string{"--color", "never"}, env: map[string]string{"X_SLOTS": "3", "X_COLOR": "always"}, file: "read: true\nlisten: [a:1, b:2]\nslots: 9\n",
			want: []string{"color=never flag --color", "slots=3 environment X_SLOTS", "read=true file FILE:1:1", "listen=a:1,b:2 file FILE:2:1"},
		},
		{
			name: "a list in a variable", env: map[string]string{"X_LISTEN": "a:1 b:2"},
			want: []string{"color=auto default", "slots=0 default", "read=false default", "listen=a:1,b:2 environment X_LISTEN"},
		},
		{
			name: "what other commands have", file: "elsewhere: 1\n# a comment\n",
			want: []string{"color=auto default", "slots=0 default", "read=false default", "listen= default"},
		},
		{name: "nothing but comments", file: "# later\n", want: []string{"color=auto default", "slots=0 default", "read=false default", "listen= default"}},
		{name: "unknown", file: "\nlsten: x\n", err: `FILE:2:1: there is no setting "lsten"`, hint: "the settings are color, slots, read, listen, elsewhere"},
		{name: "twice", file: "slots: 1\nslots: 2\n", err: `FILE:2:1: the key "slots" is given twice`},
		{name: "a list for one", file: "slots: [1]\n", err: "takes one value, not a list"},
		{name: "no number", file: "slots: many\n", err: `FILE:1:1: setting "slots": "many"`},
		{name: "no number in a variable", env: map[string]string{"X_SLOTS": "many"}, err: `X_SLOTS: setting "slots": "many"`},
		{name: "a truth value of some readers", file: "read: yes\n", err: "yes is a truth value to some readers"},
		{name: "an anchor", file: "color: &a x\n", err: "anchor"},
		{name: "a mapping", file: "color: {a: b}\n", err: "holds no mapping"},
		{name: "no mapping", file: "- a\n", err: "not a mapping"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
			flags.String("color", "auto", "")
			flags.Int("slots", 0, "")
			flags.Bool("read", false, "")
			flags.StringArray("listen", nil, "")
			if err := flags.Parse(tt.flags); err != nil {
				t.Fatal(err)
			}
			file, err := config.Read("", filepath.Join(t.TempDir(), "missing"), path)
			var settings []config.Setting
			if err == nil {
				settings, err = known.Apply(flags, file, func(name string) string { return tt.env[name] })
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), path, "FILE"), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				if e, ok := errors.AsType[*config.Error](err); tt.hint != "" && (!ok || e.Hint() != tt.hint) {
					t.Errorf("hint of %v, want %q", err, tt.hint)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range settings {
				got = append(got, strings.TrimSpace(s.Name+"="+strings.Join(s.Values, ",")+" "+s.From+" "+strings.ReplaceAll(s.At, path, "FILE")))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
			if changed := flags.Changed("read"); changed {
				t.Error("a setting of the file counts as a flag that was given")
			}
		})
	}
}

// TestReadRefuses holds that a file is believed only if nobody else can write it, and that one which was named must be there.
func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := config.Read(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that was named and is missing: %v", err)
	}
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, []byte("color: never\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Read("", path); err == nil || !strings.Contains(err.Error(), "config.yaml") {
		t.Errorf("a file that everybody can write: %v", err)
	}
}

// TestReadOutOfReach has a file lie where this process may not look: below a directory that is not its own it might as well not be there,
// but not in the very directory where it is expected.
func TestReadOutOfReach(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	home, etc := filepath.Join(dir, "home/.config/arch/config.yaml"), filepath.Join(dir, "etc/config.yaml")
	for path, closed := range map[string]string{home: filepath.Join(dir, "home"), etc: filepath.Join(dir, "etc")} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("color: never\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(closed, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(closed, 0o755) })
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 { // root may look everywhere
		const nobody = 65534
		if err := unix.Setfsuid(nobody); err != nil {
			t.Fatal(err)
		}
		defer unix.Setfsuid(0)
	}
	if file, err := config.Read("", home); err != nil || file.Path != "" {
		t.Errorf("below a directory that cannot be entered: %+v, %v", file, err)
	}
	for _, err := range []error{second(config.Read("", home, etc)), second(config.Read(home))} {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("in a directory that cannot be entered, or named: %v", err)
		}
	}
}

func second(_ config.File, err error) error { return err }
