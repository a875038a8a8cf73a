package oci_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"strings"
	"testing"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/oci"
	"arch.network/runner/runnertest"
	"arch.network/runner/systemd"
	"arch.network/tests/guest"
)

// busyboxLayers have a program, a user, a directory behind a link, and a whiteout.
func busyboxLayers(t testing.TB) []layer {
	t.Helper()
	entries := []e{
		{name: "usr/bin/busybox", body: busybox(t), mode: 0o4755},
		{name: "bin", typ: tar.TypeSymlink, link: "/usr/bin"},
		{name: "etc/passwd", body: "root:x:0:0::/root:/bin/sh\napp:x:1234:1235::/home/app:/bin/sh\n"},
		{name: "etc/secret", body: "hidden later"},
		{name: "home/app/x", body: "home\n"},
		{name: "data/seed", body: "seed\n"},
	}
	for _, name := range []string{"sh", "cat", "id", "ls", "env", "stat", "pwd", "touch"} {
		entries = append(entries, e{name: "bin/" + name, typ: tar.TypeLink, link: "/usr/bin/busybox"})
	}
	return []layer{{tarOf(t, entries...), "zstd"}, {tarOf(t, e{name: "etc/.wh.secret"}, e{name: "home/app/y", body: "y\n"}), "gzip"}}
}

func busyboxImage(t testing.TB, w *world, layers []layer, change func(config map[string]any)) oci.Image {
	t.Helper()
	config := map[string]any{
		"Entrypoint": []string{"sh", "-c"}, "Cmd": []string{"cat x"}, "User": "app", "WorkingDir": "/home/app",
		"Env": []string{"PATH=/bin", "FROM=image"}, "Volumes": map[string]any{"/data": map[string]any{}},
	}
	if change != nil {
		change(config)
	}
	return w.put(w.image(config, layers...))
}

// An image runs in namespaces, as its configuration says, and can change nothing of itself.
func TestRun(t *testing.T) {
	driver, err := namespace.New(namespace.Options{Executable: runnertest.First(t)})
	if err != nil {
		t.Fatal(err)
	}
	testRun(t, driver)
}

// The same in units of a real systemd.
func TestSystemd(t *testing.T) {
	if guest.Inside() == "" {
		guest.Run(t, guest.Config{Mode: guest.Namespaces, Pattern: "^TestSystemd$", Static: true})
		return
	}
	driver, err := systemd.New(t.Context(), systemd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	testRun(t, driver)
}

func testRun(t *testing.T, driver runner.Runner) {
	c := openCache(t, oci.Options{})
	w, layers := newWorld(t), busyboxLayers(t)
	for _, tt := range []struct {
		name   string
		config func(map[string]any)
		run    oci.Run
		want   string
		exit   int
	}{
		{name: "as the image says", want: "home\n"},
		{name: "user and directory", run: oci.Run{Args: []string{"id -u; id -g; pwd; echo $HOME $FROM"}}, want: "1234\n1235\n/home/app\n/home/app image\n"},
		{name: "environment of the job", run: oci.Run{Args: []string{"echo $FROM"}, Env: map[string]string{"FROM": "job"}}, want: "job\n"},
		{name: "program of the job", run: oci.Run{Program: "/bin/ls", Args: []string{"/etc", "/home/app"}}, want: "/etc:\npasswd\n\n/home/app:\nx\ny\n"},
		{name: "root is nobody special", config: func(c map[string]any) { c["User"] = "root" }, run: oci.Run{Args: []string{"id -u; id -g"}}, want: "1000\n100\n"},
		{name: "no set-user-ID", run: oci.Run{Program: "/bin/stat", Args: []string{"-c", "%a", "/usr/bin/busybox"}}, want: "755\n"},
		{name: "read-only", run: oci.Run{Args: []string{"for f in /x /etc/passwd x /usr/bin/sh; do touch $f 2>/dev/null && echo $f; done; exit 3"}}, exit: 3},
		{name: "volumes are writable and empty", run: oci.Run{Args: []string{"touch /data/x && ls /data"}}, want: "x\n"},
		{name: "writable", run: oci.Run{Args: []string{"touch /tmp/x /var/cache/y && ls /tmp /var/cache"}, Writable: []string{"/tmp", "/var/cache"}}, want: "/tmp:\nx\n\n/var/cache:\ny\n"},
		{name: "missing working directory", config: func(c map[string]any) { c["WorkingDir"] = "/work/here" }, run: oci.Run{Args: []string{"pwd; touch z && ls"}}, want: "/work/here\nz\n"},
		{name: "nothing but the image", run: oci.Run{Program: "/bin/ls", Args: []string{"/"}}, want: "bin\ndata\ndev\netc\nhome\ninputs\noutputs\nproc\ntmp\nusr\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root, err := c.Root(t.Context(), busyboxImage(t, w, layers, tt.config))
			if err != nil {
				t.Fatal(err)
			}
			spec, err := oci.Spec(root, tt.run)
			if err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			spec.Stdout, spec.Stderr = &stdout, &stderr
			result, err := driver.Run(t.Context(), spec)
			if s, ok := errors.AsType[*runner.SetupError](err); ok && strings.Contains(s.Act, "user namespace") {
				t.Skipf("cannot run here: %v", s)
			}
			if err != nil || result.Reason != runner.ReasonExit || result.Exit != tt.exit || stdout.String() != tt.want {
				t.Errorf("%v %d, %v\nstdout %q\nwant   %q\nstderr %q", result.Reason, result.Exit, err, stdout.String(), tt.want, stderr.String())
			}
		})
	}
}
