package runnertest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/runner"
)

// files are the cases of the file system.
func files() []testCase {
	return []testCase{
		{"inputs are read-only", func(h *harness) {
			in := h.tree("data/file")
			if err := os.Chmod(filepath.Join(in, "data/file"), 0o666); err != nil { // so that only the mount refuses
				h.Fatal(err)
			}
			spec := h.spec("write", "/in/data", "/in/data/file", "/", "/bin", "/dev")
			spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Bind, Source: in, Target: "/in"})
			var want []string
			for _, p := range []string{"/in/data", "/in/data/file", "/", "/bin", "/dev"} {
				rename := "EROFS"
				if p == "/" {
					rename = "EBUSY"
				}
				want = append(want, p+" write: EROFS", p+" chmod: EROFS", p+" rename: "+rename)
			}
			h.says(spec, want...)
		}},
		{"nothing exists that is not named", func(h *harness) {
			secret := filepath.Join(h.tree("secret"), "secret")
			h.says(h.spec("open", secret, "/etc/passwd", "/sys", "/root", "/home", "/run", "/tmp", "/dev/tty", "/dev/ptmx", "/dev/mem", "/build"),
				secret+": ENOENT", "/etc/passwd: ENOENT", "/sys: ENOENT", "/root: ENOENT", "/home: ENOENT", "/run: ENOENT", "/tmp: ENOENT",
				"/dev/tty: ENOENT", "/dev/ptmx: ENOENT", "/dev/mem: ENOENT", "/build: ok")
		}},
		{"the root holds exactly what is named", func(h *harness) {
			result, out := h.run(h.spec("entries", "/"))
			h.ended(result, runner.ReasonExit, 0)
			h.equal(slices.Sorted(slices.Values(lines(out))), []string{"bin", "build", "dev", "proc"})
			_, out = h.run(h.spec("entries", "/dev"))
			h.equal(slices.Sorted(slices.Values(lines(out))),
				[]string{"fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"})
		}},
		{"a writable mount writes to the host", func(h *harness) {
			out := h.dir()
			if err := os.Chmod(out, 0o777); err != nil { // a driver without user namespaces keeps to the host's permissions
				h.Fatal(err)
			}
			spec := h.spec("make", "/out/made=inside")
			spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Bind, Source: out, Target: "/out", Writable: true})
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			got, err := os.ReadFile(filepath.Join(out, "made"))
			if err != nil || string(got) != "inside" {
				h.Errorf("got %q, %v", got, err)
			}
		}},
		{"a symbolic link as source stays one", func(h *harness) {
			in := h.tree("link->/build/target")
			spec := h.spec("dump", "/in")
			spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Bind, Source: filepath.Join(in, "link"), Target: "/in"})
			h.says(spec, "/in Lrwxrwxrwx 1 -> /build/target")
		}},
		{"a copy is private, writable and has one time", copies},
		{"a copy of one file", func(h *harness) {
			in := h.tree("file")
			spec := h.spec("dump", "/build/sub/file")
			spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Copy, Source: filepath.Join(in, "file"), Target: "/build/sub/file", ModTime: 5})
			h.says(spec, `/build/sub/file -rw-r--r-- 5 "file"`)
		}},
		{"a copy can be made in reverse order", func(h *harness) {
			in := h.tree("a", "b", "c", "d")
			order := func(reverse bool) []string {
				spec := h.spec("entries", "/build/src")
				spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Copy, Source: in, Target: "/build/src", Reverse: reverse})
				_, out := h.run(spec)
				return lines(out)
			}
			there, back := order(false), order(true)
			slices.Reverse(back)
			h.equal(back, there)
			h.equal(slices.Sorted(slices.Values(there)), []string{"a", "b", "c", "d"})
		}},
		{"data is a read-only file", data},
		{"mount points are made in a read-only root file system", rootFileSystem},
		{"symbolic links at mount points are refused", linkedMountPoints},
	}
}

func copies(h *harness) {
	in := h.tree("dir/file", "empty/", "link->dir/file")
	if err := os.Chmod(filepath.Join(in, "dir/file"), 0o555); err != nil {
		h.Fatal(err)
	}
	spec := h.spec("dump", "/build/src")
	spec.Commands = append(spec.Commands, h.command("write", "/build/src/dir/file"))
	spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Copy, Source: in, Target: "/build/src", ModTime: 1000000000})
	h.says(spec,
		"/build/src drwxr-xr-x 1000000000",
		"/build/src/dir drwxr-xr-x 1000000000",
		`/build/src/dir/file -rwxr-xr-x 1000000000 "dir/file"`,
		"/build/src/empty drwxr-xr-x 1000000000",
		"/build/src/link Lrwxrwxrwx 1000000000 -> dir/file",
		"/build/src/dir/file write: ok", "/build/src/dir/file chmod: ok", "/build/src/dir/file rename: ok")
	if got, err := os.ReadFile(filepath.Join(in, "dir/file")); err != nil || string(got) != "dir/file" {
		h.Errorf("the original is now %q, %v", got, err)
	}
}

// rootFileSystem mounts a tree at "/" and other mounts into places that it does not have, at several depths.
func rootFileSystem(h *harness) {
	root := h.tree("etc/passwd", "usr/share/doc/a", "usr/lib->share", "bin/", "tmp/")
	in := h.tree("file")
	spec := runner.Spec{
		Commands: []runner.Command{h.command("dump", "/usr", "/etc", "/build", "/in"), h.command("write", "/", "/usr", "/usr/share/new", "/build")},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: root, Target: "/"},
			{Kind: runner.Bind, Source: h.probe, Target: "/bin/probe"},
			{Kind: runner.Tmpfs, Target: "/build"},
			{Kind: runner.Bind, Source: in, Target: "/usr/share/new/in"},
			{Kind: runner.Bind, Source: filepath.Join(in, "file"), Target: "/in"},
		},
	}
	result, out := h.run(spec)
	h.ended(result, runner.ReasonExit, 0)
	var got []string
	for _, line := range lines(out) {
		fields := strings.Fields(line) // name, mode, time, rest
		if len(fields) > 2 && strings.HasPrefix(line, "/") && !strings.Contains(fields[0], ":") && fields[1] != "write:" && fields[1] != "chmod:" && fields[1] != "rename:" {
			fields[2] = "-" // times of directories in the original are the host's
		}
		got = append(got, strings.Join(fields, " "))
	}
	h.equal(got, []string{
		"/usr drwxr-xr-x -", "/usr/lib Lrwxrwxrwx - -> share", "/usr/share drwxr-xr-x -", "/usr/share/doc drwxr-xr-x -",
		`/usr/share/doc/a -rw-r--r-- - "usr/share/doc/a"`,
		"/usr/share/new drwxr-xr-x -", "/usr/share/new/in drwxr-xr-x -", `/usr/share/new/in/file -rw-r--r-- - "file"`,
		"/etc drwxr-xr-x -", `/etc/passwd -rw-r--r-- - "etc/passwd"`,
		"/build drwxr-xr-x -", `/in -rw-r--r-- - "file"`,
		"/ write: EROFS", "/ chmod: EROFS", "/ rename: EBUSY",
		"/usr write: EROFS", "/usr chmod: EROFS", "/usr rename: EROFS",
		"/usr/share/new write: EROFS", "/usr/share/new chmod: EROFS", "/usr/share/new rename: EROFS",
		"/build write: ok", "/build chmod: ok", "/build rename: EROFS",
	})
	h.equal(entriesOf(h, root), []string{"bin", "etc", "tmp", "usr"})
}

// data puts files into a read-only root file system, over a file that it has, into a new directory, and into a writable place.
func data(h *harness) {
	root := h.tree("bin/", "etc/config", "etc/other")
	large := strings.Repeat("x", 1<<20)
	spec := runner.Spec{
		Commands: []runner.Command{h.command("dump", "/etc/config", "/new/dir/empty", "/build/file"), h.command("write", "/etc/config", "/build/file"), h.command("size", "/large")},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: root, Target: "/"},
			{Kind: runner.Bind, Source: h.probe, Target: "/bin/probe"},
			{Kind: runner.Tmpfs, Target: "/build"},
			{Kind: runner.Data, Target: "/etc/config", Content: []byte("given")},
			{Kind: runner.Data, Target: "/new/dir/empty"},
			{Kind: runner.Data, Target: "/build/file", Content: []byte("\x00\xff")},
			{Kind: runner.Data, Target: "/large", Content: []byte(large)},
		},
	}
	result, out := h.run(spec)
	h.ended(result, runner.ReasonExit, 0)
	h.equal(lines(out), []string{
		`/etc/config -r--r--r-- 1 "given"`, `/new/dir/empty -r--r--r-- 1 ""`, `/build/file -r--r--r-- 1 "\x00\xff"`,
		"/etc/config write: EACCES", "/etc/config chmod: EROFS", "/etc/config rename: EROFS",
		"/build/file write: EACCES", "/build/file chmod: EROFS", "/build/file rename: EBUSY",
		"1048576",
	})
	for n := range 5 {
		spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Data, Target: "/more" + string(rune('0'+n)), Content: []byte(large)})
	}
	if err := h.refused(spec); !strings.Contains(err.Error(), "is more than 4194304") {
		h.Errorf("got %q", err)
	}
}

func entriesOf(h *harness, dir string) []string {
	h.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		h.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// linkedMountPoints gives a root file system whose maker wants mounts to land elsewhere.
func linkedMountPoints(h *harness) {
	outside := h.dir()
	for _, link := range []string{"build->/etc", "build->" + outside, "build->../../../../..", "proc->/etc", "dev->etc", "bin->/etc", "a->b"} {
		root := h.tree("etc/", "b/", link)
		spec := h.spec("exit", "0")
		spec.Mounts = slices.Insert(spec.Mounts, 0, runner.Mount{Kind: runner.Bind, Source: root, Target: "/"})
		spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Tmpfs, Target: "/a/inside"})
		err := h.refused(spec)
		if !strings.Contains(err.Error(), "symbolic link") {
			h.Errorf("%s: got %q", link, err)
		}
	}
	h.equal(entriesOf(h, outside), []string(nil))
}

// cut parts a line of the probe.
func cut(line string) (name, value string) {
	name, value, _ = strings.Cut(line, ": ")
	return name, value
}
