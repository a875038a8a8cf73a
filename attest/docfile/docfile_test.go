package docfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"arch.network/attest/docfile"
	"arch.network/attest/dsse"

	"github.com/google/go-cmp/cmp"
)

const policy = `apiVersion: arch.network/v1
kind: Policy
metadata: {name: house, expires: "2099-01-01T00:00:00Z"}
spec: {version: 1}
`

func TestRead(t *testing.T) {
	link := func(target, name string) func(string) error {
		return func(dir string) error { return os.Symlink(target, filepath.Join(dir, name)) }
	}
	tests := []struct {
		name string
		do   func(dir string) error
		want string // part of the error
	}{
		{"a file", func(dir string) error { return os.WriteFile(dir+"/f", []byte(policy), 0o644) }, ""},
		{"a link", func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/real", []byte(policy), 0o644), link("real", "f")(dir))
		}, ""},
		{"links and dots", func(dir string) error {
			return errors.Join(os.MkdirAll(dir+"/a/b", 0o755), os.WriteFile(dir+"/a/real", []byte(policy), 0o644), link("./a/b", "d")(dir), link("d/.././real", "f")(dir))
		}, ""},
		{"nothing", func(string) error { return nil }, "no such file"},
		{"a link to nothing", link("gone", "f"), "no such file"},
		{"a link to itself", link("f", "f"), "symbolic links lead to it"},
		{"a directory", func(dir string) error { return os.Mkdir(dir+"/f", 0o755) }, "no regular file"},
		{"a fifo", func(dir string) error { return unix.Mkfifo(dir+"/f", 0o644) }, "no regular file"},
		{"too large", func(dir string) error { return os.WriteFile(dir+"/f", make([]byte, dsse.MaxEnvelope+1), 0o644) }, "more than 65536 bytes"},
		{"no document", func(dir string) error { return os.WriteFile(dir+"/f", []byte("kind: Nothing\n"), 0o644) }, "line 1"},
		{"no envelope", func(dir string) error { return os.WriteFile(dir+"/f", []byte("{}"), 0o644) }, "/f: "},
		{"others may write to it", func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/f", []byte(policy), 0o644), os.Chmod(dir+"/f", 0o664))
		}, "others may change it"},
		{"others may swap it", func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/f", []byte(policy), 0o644), os.Chmod(dir, 0o775))
		}, "others may change it"},
		{"others may only add to its directory", func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/f", []byte(policy), 0o644), os.Chmod(dir, 0o777|os.ModeSticky))
		}, ""},
		{"others may swap a link to it", func(dir string) error {
			return errors.Join(os.Mkdir(dir+"/open", 0o755), os.WriteFile(dir+"/real", []byte(policy), 0o644), link("../real", "open/g")(dir), link("open/g", "f")(dir), os.Chmod(dir+"/open", 0o777))
		}, "open: its mode is 0777"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := tt.do(dir); err != nil {
				t.Fatal(err)
			}
			env, err := docfile.Read(dir + "/f")
			switch {
			case tt.want == "" && (err != nil || len(env.Payload) == 0):
				t.Errorf("%v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestForeign(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("cannot run here: only root gives files to others")
	}
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/f", []byte(policy), 0o644), os.Chown(dir+"/f", 12345, 0)); err != nil {
		t.Fatal(err)
	}
	_, err := docfile.Read(dir + "/f")
	if e, ok := errors.AsType[*docfile.Error](err); !ok || e.Hint() != "chown root "+dir+"/f" {
		t.Errorf("%v", err)
	}
}

// TestDirs shows what a watcher must watch: where the file lies, and where each link on the way lies.
func TestDirs(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.MkdirAll(dir+"/etc", 0o755), os.MkdirAll(dir+"/gen/arch", 0o755), os.WriteFile(dir+"/gen/arch/policy", nil, 0o644),
		os.Symlink("gen", dir+"/static"), os.Symlink("../static/arch/policy", dir+"/etc/policy"),
	)
	if err != nil {
		t.Fatal(err)
	}
	got, err := docfile.Dirs(dir + "/etc/policy")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{dir + "/etc", dir, dir + "/gen/arch"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	got, err = docfile.Dirs(dir + "/gen/none/policy")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{dir + "/gen"}, got); diff != "" {
		t.Errorf("what is not there (-want +got)\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(policy))
	f.Add([]byte(`{"payload":"e30=","payloadType":"x","signatures":[]}`))
	f.Add([]byte(" \n{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := docfile.Parse(data)
		if err != nil {
			return
		}
		again, err := docfile.Parse(env.Marshal())
		if err != nil || again.ID() != env.ID() {
			t.Fatalf("%v", err)
		}
	})
}
