package oci_test

import (
	"archive/tar"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/builder/source/imagespec"
	"arch.network/runner"
	"arch.network/runner/oci"
)

func TestSpec(t *testing.T) {
	root := oci.Root{
		Dir:     "/cache/root",
		Config:  imagespec.Execution{Entrypoint: []string{"/bin/app", "serve"}, Cmd: []string{"--default"}, Env: []string{"A=image", "B=image", "A=twice", "EMPTY="}},
		User:    oci.User{UID: 33, GID: 34, Home: "/var/www"},
		WorkDir: "/srv", Volumes: []string{"/var/lib/app"},
	}
	base := []runner.Mount{{Kind: runner.Bind, Source: "/cache/root", Target: "/"}, {Kind: runner.Tmpfs, Target: "/var/lib/app"}}
	env := []string{"A=twice", "B=image", "EMPTY=", "HOME=/var/www", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	want := func(argv []string, change func(*runner.Spec)) runner.Spec {
		s := runner.Spec{Commands: []runner.Command{{Argv: argv, Env: env, Dir: "/srv"}}, Mounts: base, UID: 33, GID: 34}
		if change != nil {
			change(&s)
		}
		return s
	}
	for _, tt := range []struct {
		name   string
		change func(*oci.Root)
		run    oci.Run
		want   runner.Spec
		err    string
	}{
		{name: "as the image says", want: want([]string{"/bin/app", "serve", "--default"}, nil)},
		{name: "arguments", run: oci.Run{Args: []string{"-x", "1"}}, want: want([]string{"/bin/app", "serve", "-x", "1"}, nil)},
		{name: "program", run: oci.Run{Program: "/bin/other", Args: []string{"-x"}}, want: want([]string{"/bin/other", "-x"}, nil)},
		{name: "program alone", run: oci.Run{Program: "/bin/other"}, want: want([]string{"/bin/other"}, nil)},
		{name: "environment", run: oci.Run{Env: map[string]string{"B": "job", "HOME": "/tmp", "C": "="}}, want: want([]string{"/bin/app", "serve", "--default"}, func(s *runner.Spec) {
			s.Commands[0].Env = []string{"A=twice", "B=job", "C==", "EMPTY=", "HOME=/tmp", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		})},
		{name: "writable", run: oci.Run{Writable: []string{"/tmp", "/data/x", "/data", "/tmp"}}, want: want([]string{"/bin/app", "serve", "--default"}, func(s *runner.Spec) {
			s.Mounts = []runner.Mount{base[0], {Kind: runner.Tmpfs, Target: "/data"}, {Kind: runner.Tmpfs, Target: "/data/x"}, {Kind: runner.Tmpfs, Target: "/tmp"}, base[1]}
		})},
		{name: "working directory in a writable one", change: func(r *oci.Root) { r.WorkDir = "/var/lib/app/work" }, want: want([]string{"/bin/app", "serve", "--default"}, func(s *runner.Spec) {
			s.Commands[0].Dir = "/var/lib/app/work"
			s.Mounts = append(base[:2:2], runner.Mount{Kind: runner.Tmpfs, Target: "/var/lib/app/work"})
		})},
		{name: "working directory is missing", change: func(r *oci.Root) { r.WorkDirMissing = true }, want: want([]string{"/bin/app", "serve", "--default"}, func(s *runner.Spec) {
			s.Mounts = []runner.Mount{base[0], {Kind: runner.Tmpfs, Target: "/srv"}, base[1]}
		})},
		{name: "no program", change: func(r *oci.Root) { r.Config.Entrypoint, r.Config.Cmd = nil, nil }, err: "the image names no program to run"},
		{name: "empty program", change: func(r *oci.Root) { r.Config.Entrypoint = []string{""} }, err: "the image names no program to run"},
		{name: "program by name", run: oci.Run{Program: "app"}, err: `program "app" is no clean, absolute path`},
		{name: "NUL in an argument", run: oci.Run{Args: []string{"a\x00b"}}, err: `argument "a\x00b" holds a NUL byte`},
		{name: "no variable", change: func(r *oci.Root) { r.Config.Env = []string{"X"} }, err: `the image's environment has "X", which is not NAME=VALUE`},
		{name: "variable without a name", change: func(r *oci.Root) { r.Config.Env = []string{"=x"} }, err: `the image's environment has "=x", which is not NAME=VALUE`},
		{name: "writable root", run: oci.Run{Writable: []string{"/"}}, err: `writable path "/" is no clean, absolute path below the root`},
		{name: "writable /proc", run: oci.Run{Writable: []string{"/proc/sys"}}, err: `writable path "/proc/sys" lies in /proc, which is the runner's`},
		{name: "writable relative", run: oci.Run{Writable: []string{"tmp"}}, err: `writable path "tmp" is no clean, absolute path below the root`},
		{name: "writable with dots", run: oci.Run{Writable: []string{"/tmp/../etc"}}, err: `writable path "/tmp/../etc" is no clean, absolute path below the root`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := root
			if tt.change != nil {
				tt.change(&r)
			}
			got, err := oci.Spec(r, tt.run)
			if diff := cmp.Diff(tt.err, errText(err)); diff != "" {
				t.Fatalf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, got); tt.err == "" && diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}

const passwdFile = `root:x:0:0:root:/root:/bin/sh
toor:x:0:0:again:/other:/bin/sh
app:x:1001:1002::/home/app:/bin/sh
twice:x:5:5::/a:/bin/sh
twice:x:6:6::/b:/bin/sh
zero:x:0:0::/:/bin/sh
evil:x:4294967296:0::/:/bin/sh
minus:x:-1:0::/:/bin/sh
octal:x:010:0::/:/bin/sh
short:x:7
relative:x:8:9::home/../etc:/bin/sh
4000:x:12:12::/number:/bin/sh
`

// Whom an image runs as. The numbers that once became root elsewhere are refused: CVE-2024-40635 and its relatives.
func TestUser(t *testing.T) {
	w := newWorld(t)
	base := layer{tarOf(t,
		e{name: "etc/passwd", typ: tar.TypeSymlink, link: "/usr/etc/passwd"}, // as the image sees it, not as the host does
		e{name: "usr/etc/passwd", body: passwdFile},
		e{name: "etc/group", body: "staff:x:50:\nbig:x:2147483648:\n"},
	), ""}
	c := openCache(t, oci.Options{})
	for _, tt := range []struct {
		user string
		want oci.User
		err  string
	}{
		{user: "", want: oci.User{Home: "/root"}},
		{user: "0", want: oci.User{Home: "/root"}},
		{user: "root", want: oci.User{Home: "/root"}},
		{user: "zero", want: oci.User{Home: "/"}},
		{user: "0:0", want: oci.User{Home: "/root"}},
		{user: "app", want: oci.User{UID: 1001, GID: 1002, Home: "/home/app"}},
		{user: "1001", want: oci.User{UID: 1001, GID: 1002, Home: "/home/app"}},
		{user: "app:staff", want: oci.User{UID: 1001, GID: 50, Home: "/home/app"}},
		{user: "app:7", want: oci.User{UID: 1001, GID: 7, Home: "/home/app"}},
		{user: "12345", want: oci.User{UID: 12345, Home: "/"}},
		{user: "12345:6", want: oci.User{UID: 12345, GID: 6, Home: "/"}},
		{user: "4000", want: oci.User{UID: 4000, Home: "/"}}, // a number is a number, whatever the names
		{user: "relative", want: oci.User{UID: 8, GID: 9, Home: "/"}},
		{user: "2147483647", want: oci.User{UID: 2147483647, Home: "/"}},
		{user: "2147483648", err: "user id 2147483648 is over 2147483647"},
		{user: "4294967295", err: "user id 4294967295 is over 2147483647"},
		{user: "4294967296", err: "user id 4294967296 is over 2147483647"},
		{user: "18446744073709551616", err: `user id "18446744073709551616" is not a plain decimal number`},
		{user: "-1", err: `user id "-1" is not a plain decimal number`},
		{user: "+1", err: `user id "+1" is not a plain decimal number`},
		{user: "0x0", err: `user id "0x0" is not a plain decimal number`},
		{user: "00", err: `user id "00" is not a plain decimal number`},
		{user: "1e3", err: `user id "1e3" is not a plain decimal number`},
		{user: "1000:-1", err: `group id "-1" is not a plain decimal number`},
		{user: "1000:4294967296", err: "group id 4294967296 is over 2147483647"},
		{user: "1000:", err: "group is empty"},
		{user: "1000:big", err: "group id 2147483648 is over 2147483647"},
		{user: "1000:nobody", err: `group "nobody" is not in the image's /etc/group`},
		{user: "nobody", err: `user "nobody" is not in the image's /etc/passwd`},
		{user: "evil", err: "user id 4294967296 is over 2147483647"},
		{user: "minus", err: `user id "-1" is not a plain decimal number`},
		{user: "octal", err: `user id "010" is not a plain decimal number`},
		{user: "short", err: `user "short" is not in the image's /etc/passwd`},
		{user: "twice", err: `find user "twice": two lines of /etc/passwd differ`},
		{user: strings.Repeat("x", 300), err: "user of 300 bytes, more than 256"},
		{user: "a:b:c", err: `user "a" is not in the image's /etc/passwd`},
	} {
		img := w.put(w.image(map[string]any{"User": tt.user}, base))
		root, err := c.Root(t.Context(), img)
		if tt.err == "" && err != nil || !strings.HasSuffix(errText(err), tt.err) {
			t.Errorf("%.30q: error is %v", tt.user, err)
			continue
		}
		if diff := cmp.Diff(tt.want, root.User); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.user, diff)
		}
	}
}

// What an image says of its directories is found as the image sees them.
func TestDirectories(t *testing.T) {
	w := newWorld(t)
	base := layer{tarOf(t,
		e{name: "var/run", typ: tar.TypeSymlink, link: "/run"},
		e{name: "run/app", typ: tar.TypeDir},
		e{name: "loop", typ: tar.TypeSymlink, link: "loop"},
		e{name: "out", typ: tar.TypeSymlink, link: "../../../../etc"},
		e{name: "gone", typ: tar.TypeSymlink, link: "nowhere/../run"},
		e{name: "file", body: "x"},
	), "gzip"}
	c := openCache(t, oci.Options{})
	for _, tt := range []struct {
		dir     string
		want    string
		missing bool
		err     string
	}{
		{dir: "", want: "/"},
		{dir: "/", want: "/"},
		{dir: "/var/run/app/", want: "/run/app"},
		{dir: "/var/run/other/deep", want: "/run/other/deep", missing: true},
		{dir: "/out", want: "/etc", missing: true}, // the image has none, whatever the host has
		{dir: "/../..", want: "/"},
		{dir: "app", err: `working directory: "app" is no absolute path`},
		{dir: "/file", err: `working directory: "/file" is no directory`},
		{dir: "/file/x", err: "not a directory"},
		{dir: "/loop", err: "leads through too many symbolic links"},
		{dir: "/gone", err: "leads back from a directory that is missing"},
		{dir: "/a\x00b", err: "is no absolute path"},
	} {
		root, err := c.Root(t.Context(), w.put(w.image(map[string]any{"WorkingDir": tt.dir}, base)))
		if tt.err == "" && err != nil || !strings.HasSuffix(errText(err), tt.err) {
			t.Errorf("%q: error is %v", tt.dir, err)
		}
		if err == nil && (root.WorkDir != tt.want || root.WorkDirMissing != tt.missing) {
			t.Errorf("%q: %q, missing %v", tt.dir, root.WorkDir, root.WorkDirMissing)
		}
	}
	volumes := map[string]any{"/var/run": map[string]any{}, "/run/": map[string]any{}, "/data": map[string]any{}, "/proc/x": map[string]any{}, "/": map[string]any{}}
	root, err := c.Root(t.Context(), w.put(w.image(map[string]any{"Volumes": volumes}, base)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/data", "/run"}, root.Volumes); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
}
