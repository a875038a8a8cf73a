package namespace_test

import (
	"bytes"
	"os"
	"testing"

	"arch.network/runner"
	"arch.network/runner/namespace"
)

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func TestFirst(t *testing.T) {
	r, err := namespace.New(namespace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	res, err := r.Run(t.Context(), runner.Spec{
		Commands: []runner.Command{{Argv: []string{"sh", "-c", "id; ls -la / /dev /proc/self/fd; hostname; cat /proc/self/status | grep -i -E 'cap|seccomp|nonew'; touch /usr/x; touch /x; echo hi > /build/y; cat /proc/mounts; cat /proc/self/cgroup; ulimit -a; ls /proc; env"}, Env: []string{"PATH=/usr/bin:/bin"}}},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: "/usr", Target: "/usr"},
			{Kind: runner.Bind, Source: "/bin", Target: "/bin"},
			{Kind: runner.Bind, Source: "/lib", Target: "/lib"},
			{Kind: runner.Bind, Source: "/lib64", Target: "/lib64"},
			{Kind: runner.Tmpfs, Target: "/build"},
		},
		Limits: runner.Limits{Memory: 1 << 30, Processes: 100},
		Stdout: &out, Stderr: &out,
	})
	t.Logf("%+v %v\n%s", res, err, out.String())
	if err != nil || !res.OK() {
		t.Fail()
	}
}
