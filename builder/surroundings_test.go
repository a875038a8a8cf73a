package builder

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

func TestPlace(t *testing.T) {
	s := standard().vary([]Factor{FactorPath})
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"/build", "@"},
		{"/build/src", "@/src"},
		{"/build/src:/build/lib:/usr/build", "@/src:@/lib:/usr/build"},
		{"-I/build/include", "-I@/include"},
		{"-isystem/build/include", "-isystem@/include"},
		{"-Wl,-rpath,/build/lib", "-Wl,-rpath,@/lib"},
		{"-ldflags=-L/build/lib -lx", "-ldflags=-L@/lib -lx"},
		{"--prefix=/build/out", "--prefix=@/out"},
		{"-ffile-prefix-map=/build=/", "-ffile-prefix-map=@=/"},
		{"file:///build/modules", "file://@/modules"},
		{"off|file:///build/modules,direct", "off|file://@/modules,direct"},
		{"@/build/args", "@@/args"},
		{"cat </build/a >/build/b 2>/build/c; ls /build/d|wc", "cat <@/a >@/b 2>@/c; ls @/d|wc"},
		{`cd "/build/x y" && echo '/build'`, `cd "@/x y" && echo '@'`},
		{"(/build/configure)`/build/x`", "(@/configure)`@/x`"},
		{"{/build/a,/build/b}", "{/build/a,@/b}"}, // braces are globs too rarely used with whole paths
		{"/build/a\n/build/b\t/build/c", "@/a\n@/b\t@/c"},
		{"${DIR:-/build/x}", "${DIR:-@/x}"},
		// Not the build directory:
		{"/builder", "/builder"},
		{"/build-tools/x", "/build-tools/x"},
		{"/build.d", "/build.d"},
		{"/build_2", "/build_2"},
		{"/buildé", "/buildé"},
		{"src/build/x", "src/build/x"},
		{"/usr/src/build", "/usr/src/build"},
		{"./build/x", "./build/x"},
		{"../build", "../build"},
		{"~/build", "~/build"},
		{"a-b/build", "a-b/build"},
		{"1-I/build", "1-I/build"},
		{"$(pwd)/build", "$(pwd)/build"},
		{"${PWD}/build", "${PWD}/build"},
		{"*/build/x", "*/build/x"},
		{"https://example.org/build/x", "https://example.org/build/x"},
		{"//build/x", "//build/x"},
		{"x/build", "x/build"},
	} {
		want := strings.ReplaceAll(c.want, "@", s.buildDir)
		if strings.HasPrefix(c.in, "@") {
			want = "@" + strings.ReplaceAll(c.want[1:], "@", s.buildDir)
		}
		if got := s.place(c.in); got != want {
			t.Errorf("place(%q) = %q, want %q", c.in, got, want)
		}
		if got := standard().place(c.in); got != c.in {
			t.Errorf("in standard surroundings, place(%q) = %q", c.in, got)
		}
	}
}

// Whatever the text, placing changes nothing but the build directory, and is undone by placing it back.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{"/build", "-I/build/x", "/builder:/build", "///build/build/build", "a/build /build;"} {
		f.Add(s)
	}
	s := standard().vary([]Factor{FactorPath})
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, s.buildDir) {
			t.Skip()
		}
		if got := strings.ReplaceAll(s.place(text), s.buildDir, BuildDir); got != text {
			t.Errorf("place(%q) = %q", text, s.place(text))
		}
	})
}

func TestParseFactors(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []Factor
		err  string
	}{
		{"all", Factors(), ""},
		{"none", nil, ""},
		{"", nil, ""},
		{"time, uid,time", []Factor{FactorTime, FactorUID}, ""},
		{"time,", nil, `factor "" is not one of time, path, uid`},
		{"Time", nil, `factor "Time"`},
		{"all,uid", nil, `factor "all"`},
	} {
		got, err := ParseFactors(c.in)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("ParseFactors(%q) (-want +got):\n%s", c.in, diff)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("ParseFactors(%q): %v, want %q", c.in, err, c.err)
		}
	}
}

// Every factor changes the surroundings, and no two change the same thing.
func TestFactorsAreDistinct(t *testing.T) {
	seen := map[surroundings]Factor{standard(): "none"}
	for _, f := range Factors() {
		s := standard().vary([]Factor{f})
		if other, dup := seen[s]; dup {
			t.Errorf("%s and %s are the same surroundings", f, other)
		}
		seen[s] = f
	}
}

func TestEnforces(t *testing.T) {
	for _, c := range []struct {
		name string
		f    Factor
		c    runner.Confinement
		want bool
	}{
		{"a runner that says nothing of the clock", FactorTime, runner.Confinement{Enforced: []string{"seccomp"}}, false},
		{"one that offsets it", FactorTime, runner.Confinement{Enforced: []string{"clock-offset"}}, true},
		{"one that says how", FactorTime, runner.Confinement{Enforced: []string{"clock-offset:trace"}}, true},
		{"one that cannot", FactorTime, runner.Confinement{Missing: []string{"clock-offset: no way"}}, false},
		{"one that only did so in part", FactorTime, runner.Confinement{Enforced: []string{"clock-offset"}, Missing: []string{"clock-offset: not all"}}, false},
		{"another word", FactorTime, runner.Confinement{Enforced: []string{"clock-offsets"}}, false},
		{"ids of the caller", FactorUID, runner.Confinement{Missing: []string{"ids: there is no user namespace"}}, false},
		{"ids", FactorUID, runner.Confinement{}, true},
		{"host's name", FactorHostname, runner.Confinement{Missing: []string{"host-name: there is no UTS namespace"}}, false},
		{"time zone", FactorTZ, runner.Confinement{Missing: []string{"ids: x", "host-name: y"}}, true},
	} {
		if got := enforces(c.c, c.f); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}

// FuzzRecord reads records: what is accepted is written again with the same bytes.
func FuzzRecord(f *testing.F) {
	full := Record{
		Outputs: []Output{{Output: attest.Output{Name: "out", File: digest.Of(nil), NAR: digest.Of([]byte("x"))}, Type: manifest.OutputFile}},
		Log:     digest.Of(nil), Started: time.Unix(1, 0).UTC(), Finished: time.Unix(2, 0).UTC(),
		Variation: &Variation{Factors: Factors(), Missing: []Factor{FactorTime}},
	}
	for _, r := range []Record{{}, full} {
		data, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(append(data, ' '))
		f.Add(append([]byte(`{"more":1,`), data[1:]...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := parseRecord(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(rec)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %s, written as %s (%v)", data, again, err)
		}
	})
}

func TestErrorTexts(t *testing.T) {
	id := digest.Of(nil)
	broken := &BuildError{Build: "b", ID: id, Step: "test", Result: runner.Result{Reason: runner.ReasonSignal, Signal: "SIGSEGV"}, log: id.Hex() + ".varied"}
	differ := []Mismatch{{Output: "x", A: "/s/a", B: "/s/b"}, {Output: "y"}}
	for _, c := range []struct {
		err  error
		text string
		hint string
	}{
		{broken, "build b: step test: killed by SIGSEGV", "the whole log: arch log " + id.Hex() + ".varied"},
		{
			&NotReproducibleError{Build: "b", Differ: differ, Guilty: []Factor{FactorTime, FactorTZ}},
			"build b is not reproducible: output x, y differs when built again; guilty: time, tz", "see what differs: arch diff /s/a /s/b",
		},
		{
			&NotReproducibleError{Build: "b", Differ: differ, Random: true},
			"build b is not reproducible: output x, y differs when built again; it does so even in equal surroundings (randomness, a race, or the time of day)",
			"see what differs: arch diff /s/a /s/b",
		},
		{
			&NotReproducibleError{Build: "b", Broken: broken, Together: []Factor{FactorUID, FactorPath}},
			"build b is not reproducible: when built again it fails: step test: killed by SIGSEGV; guilty together: uid, path",
			"its log: arch log " + id.Hex() + ".varied",
		},
		{&PlatformError{Build: "b", Want: "linux/arm64", Here: "linux/amd64"}, "build b: it is made on linux/arm64, and this is linux/amd64", "build it on a machine of that kind; there is no emulation"},
	} {
		if got := c.err.Error(); got != c.text {
			t.Errorf("got  %s\nwant %s", got, c.text)
		}
		if got := c.err.(interface{ Hint() string }).Hint(); got != c.hint {
			t.Errorf("hint %q, want %q", got, c.hint)
		}
	}
}
