package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// proxyTree is a file tree in the form of the GOPROXY protocol, and the go.sum lines of what it has.
type proxyTree struct {
	t    testing.TB
	dir  string
	sums []string
}

func newProxy(t testing.TB) *proxyTree { return &proxyTree{t: t, dir: t.TempDir()} }

func (p *proxyTree) url() string { return "file://" + p.dir }

// add puts a module there and returns the hash of its zip.
func (p *proxyTree) add(path, version, mod string, content map[string]string) digest.SHA256 {
	p.t.Helper()
	m := module.Version{Path: path, Version: version}
	with := map[string]string{"go.mod": mod}
	maps.Copy(with, content)
	zip := moduleZip(p.t, m, with)
	for suffix, b := range map[string][]byte{".zip": zip, ".mod": []byte(mod), ".info": fmt.Appendf(nil, `{"Version":%q}`, version)} {
		name, err := goFile(p.dir, m, suffix)
		if err != nil {
			p.t.Fatal(err)
		}
		put(p.t, name, b)
	}
	escaped, _, err := goVersion(m)
	if err != nil {
		p.t.Fatal(err)
	}
	put(p.t, filepath.Join(p.dir, escaped, "@latest"), fmt.Appendf(nil, `{"Version":%q}`, version))
	sum, err := sumGoMod(strings.NewReader(mod))
	if err != nil {
		p.t.Fatal(err)
	}
	d := h1Of(p.t, m, zip)
	p.sums = append(p.sums, fmt.Sprintf("%s %s %s", path, version, h1(d)), fmt.Sprintf("%s %s/go.mod %s", path, version, sum))
	return d
}

// app is a program that uses example.com/Two, which uses example.com/one.
func app(t testing.TB) (*proxyTree, string) {
	p := newProxy(t)
	p.add("example.com/one", "v1.0.0", "module example.com/one\n", map[string]string{"one.go": "package one\n\nconst Answer = 42\n"})
	p.add("example.com/Two", "v2.0.0+incompatible", "module example.com/Two\n", map[string]string{"two.go": "package two\n\nimport \"example.com/one\"\n\nvar Answer = one.Answer\n"})
	p.add("example.com/one", "v0.9.0", "module example.com/one\n", map[string]string{"old.go": "package one\n"})
	dir := files(t, map[string]string{
		"app/go.mod":  "module app\n\ngo 1.24\n\nrequire example.com/Two v2.0.0+incompatible\n\nrequire example.com/one v1.0.0 // indirect\n",
		"app/main.go": "package main\n\nimport two \"example.com/Two\"\n\nfunc main() { println(two.Answer) }\n",
		"app/go.sum":  strings.Join(p.sums, "\n") + "\n",
	})
	return p, dir
}

// goRoot returns where the go command says it is installed; "" if there is none.
func goRoot(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// goCommand runs the go command with nothing of the user's configuration.
func goCommand(t testing.TB, dir string, env []string, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("go")
	if err != nil {
		t.Skip("cannot run here: there is no go command: " + err.Error())
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GOENV=off", "GOTOOLCHAIN=local", "GOWORK=off",
		"GOPROXY=off", "GOFLAGS=-mod=readonly -buildvcs=false", "CGO_ENABLED=0", "GOTELEMETRY=off", "GOCACHE=" + goCache(t),
	}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// goCache is the build cache of whoever runs the test: it holds the standard library already.
func goCache(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("GOCACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return t.TempDir()
	}
	return filepath.Join(dir, "go-build")
}

func TestGoModulesBuildOffline(t *testing.T) {
	p, dir := app(t)
	f := newFetcher(t)
	f.GoProxy = p.url()
	inputs := []manifest.BuildInput{
		{Name: "modules", GoModules: &manifest.GoModules{Of: "src", Dir: "app"}, Mount: "/go"},
		{Name: "src", Path: filepath.Base(dir), Mount: "/build/src"},
	}
	trees, err := f.FetchAll(t.Context(), inputs, filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	cache := trees["modules"]
	var names []string
	for _, l := range list(t, cache.Path) {
		if name, _, ok := strings.Cut(l, " "); ok {
			names = append(names, name)
		}
	}
	want := []string{
		"cache/download/example.com/!two/@v/v2.0.0+incompatible.info", "cache/download/example.com/!two/@v/v2.0.0+incompatible.mod", "cache/download/example.com/!two/@v/v2.0.0+incompatible.ziphash",
		"cache/download/example.com/one/@v/v0.9.0.info", "cache/download/example.com/one/@v/v0.9.0.mod",
		"cache/download/example.com/one/@v/v1.0.0.info", "cache/download/example.com/one/@v/v1.0.0.mod", "cache/download/example.com/one/@v/v1.0.0.ziphash",
		"example.com/!two@v2.0.0+incompatible/go.mod", "example.com/!two@v2.0.0+incompatible/two.go",
		"example.com/one@v1.0.0/go.mod", "example.com/one@v1.0.0/one.go",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("module cache (-want +got):\n%s", diff)
	}
	var uris []string
	for _, d := range cache.Dependencies {
		uris = append(uris, d.URI)
		if len(d.Digest["dirHash"]) != 64 {
			t.Errorf("%s has the digests %v", d.URI, d.Digest)
		}
	}
	var wantURIs []string
	for _, s := range p.sums {
		if !strings.HasPrefix(s, "example.com/one v0.9.0 ") {
			wantURIs = append(wantURIs, "go:"+strings.Replace(strings.Replace(s, " ", "@", 1), " ", "#", 1))
		}
	}
	slices.Sort(uris)
	slices.Sort(wantURIs)
	if diff := cmp.Diff(wantURIs, uris); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}

	source := filepath.Join(trees["src"].Path, "app")
	binary := filepath.Join(t.TempDir(), "app")
	env := []string{"GOMODCACHE=" + cache.Path}
	for _, args := range [][]string{{"build", "-o", binary, "."}, {"vet", "."}, {"test", "."}, {"list", "-m", "all"}, {"list", "-deps", "."}} {
		if out, err := goCommand(t, source, env, args...); err != nil {
			t.Errorf("go %v: %v\n%s", args, err, out)
		}
	}
	if out, err := exec.Command(binary).CombinedOutput(); err != nil || string(out) != "42\n" {
		t.Errorf("the program says %q, %v", out, err)
	}
	// The go command wrote nothing into the cache, so a read-only mount does as well.
	if got := narOf(t, cache.Path); got != cache.NAR {
		t.Errorf("the module cache has changed")
	}
}

func TestGoModulesRefused(t *testing.T) {
	p, _ := app(t)
	good := strings.Join(p.sums, "\n") + "\n"
	mod := "module app\n\ngo 1.24\n\nrequire example.com/one v1.0.0\n"
	tests := []struct {
		name     string
		mod, sum string
		err      string
	}{
		{name: "wrong hash", mod: mod, sum: "example.com/one v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", err: "the pin says h1:AAAA"},
		{name: "wrong hash of go.mod", mod: mod, sum: "example.com/one v1.0.0/go.mod h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", err: "the pin says h1:AAAA"},
		{name: "two hashes", mod: mod, sum: good + "example.com/one v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", err: "go.sum has two hashes for example.com/one@v1.0.0"},
		{name: "other algorithm", mod: mod, sum: "example.com/one v1.0.0 h2:AAAA\n", err: "go.sum line 1: hash \"h2:AAAA\" is not h1:"},
		{name: "fields", mod: mod, sum: "\nexample.com/one v1.0.0\n", err: "go.sum line 2: 2 fields, want 3"},
		{name: "path that leaves", mod: mod, sum: "../../etc v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", err: "go.sum line 1: malformed module path"},
		{name: "no go.sum", mod: mod, err: "there is no go.sum beside go.mod"},
		{name: "unknown module", mod: mod, sum: "example.com/one v1.9.9 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nexample.com/one v1.9.9/go.mod h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", err: "no such file"},
		{name: "nothing needed", mod: "module app\n\ngo 1.24\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFetcher(t)
			f.GoProxy = p.url()
			content := map[string]string{"go.mod": tt.mod}
			if tt.sum != "" {
				content["go.sum"] = tt.sum
			}
			dir := files(t, content)
			_, err := f.Fetch(t.Context(), manifest.BuildInput{Name: "m", GoModules: &manifest.GoModules{Of: "src"}}, "", map[string]Tree{"src": {Path: dir}})
			if tt.err == "" && err != nil || !strings.Contains(errText(err), tt.err) {
				t.Errorf("error %q does not say %q", errText(err), tt.err)
			}
		})
	}
	t.Run("go.sum leads out of the tree", func(t *testing.T) {
		dir := files(t, map[string]string{"go.mod": mod})
		if err := os.Symlink("/etc/passwd", filepath.Join(dir, "go.sum")); err != nil {
			t.Fatal(err)
		}
		_, err := newFetcher(t).Fetch(t.Context(), manifest.BuildInput{Name: "m", GoModules: &manifest.GoModules{Of: "src"}}, "", map[string]Tree{"src": {Path: dir}})
		if !strings.Contains(errText(err), "path escapes from parent") {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("all that is missing is named", func(t *testing.T) {
		f := newFetcher(t)
		f.Offline, f.GoProxy = true, "https://proxy.invalid"
		dir := files(t, map[string]string{"go.mod": mod, "go.sum": good})
		_, err := f.Fetch(t.Context(), manifest.BuildInput{Name: "m", GoModules: &manifest.GoModules{Of: "src"}}, "", map[string]Tree{"src": {Path: dir}})
		missing, ok := errors.AsType[*MissingError](err)
		if !ok || len(missing.Inputs) != 4 {
			t.Errorf("got %v", err)
		}
	})
}

func TestNeededPins(t *testing.T) {
	pin := func(path, version string, mod bool) goPin {
		return goPin{Version: module.Version{Path: path, Version: version}, mod: mod}
	}
	all := []goPin{pin("a.org/a", "v1.0.0", false), pin("a.org/a", "v1.0.0", true), pin("a.org/a", "v1.1.0", false), pin("a.org/b", "v1.0.0", false), pin("a.org/fork", "v0.0.1", false)}
	tests := map[string][]goPin{
		"module m\ngo 1.16\nrequire a.org/a v1.1.0":                                       all,
		"module m\nrequire a.org/a v1.1.0":                                                all,
		"module m\ngo 1.26.1\nrequire a.org/a v1.1.0":                                     {all[1], all[2]},
		"module m\ngo 1.17\nrequire a.org/b v1.0.0\nreplace a.org/b => a.org/fork v0.0.1": {all[1], all[4]},
		"module m\ngo 1.17\nrequire a.org/b v1.0.0\nreplace a.org/b v1.0.0 => a.org/a v1.0.0\nreplace a.org/b => a.org/fork v0.0.1": {all[0], all[1]},
		"module m\ngo 1.17\nrequire a.org/b v1.0.0\nreplace a.org/b => ../b":                                                        {all[1]},
		"not a go.mod file": all,
	}
	for mod, want := range tests {
		if diff := cmp.Diff(want, neededPins([]byte(mod), slices.Clone(all)), cmp.AllowUnexported(goPin{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", mod, diff)
		}
	}
}

// fakeToolchain is a GOROOT in small, and the module zip that cmd/distpack would make of it.
func fakeToolchain(t *testing.T) (goroot string, m module.Version, zip []byte) {
	t.Helper()
	m = module.Version{Path: toolchainModule, Version: "v0.0.1-go1.99.1.linux-amd64"}
	shipped := map[string]string{
		"VERSION": "go1.99.1\ntime 2026-08-28T16:20:06Z\n", "go.env": "GOPROXY=off\nGOTOOLCHAIN=auto\n", "bin/go": "go", "bin/gofmt": "gofmt",
		"pkg/tool/linux_amd64/compile": "compile", "pkg/include/x.h": "h", "src/go.mod": "module std\n", "src/cmd/go.mod": "module cmd\n",
		"src/make.bash": "#!", "lib/wasm/go_js_wasm_exec": "#!", "lib/time/zoneinfo.zip": "z",
	}
	content := map[string]string{}
	for name, body := range shipped {
		content[strings.TrimSuffix(name, "go.mod")+map[bool]string{true: "_go.mod"}[strings.HasSuffix(name, "go.mod")]] = body
	}
	zip = moduleZip(t, m, content)
	extra := map[string]string{
		"api/go1.txt": "", "doc/x": "", "misc/x": "", "test/x.go": "", "pkg/tool/linux_amd64/pprof": "", "pkg/linux_amd64/fmt.a": "", "pkg/mod/x": "",
		"bin/other": "", "VERSION.cache": "", ".git/HEAD": "", "src/cmd/dist/dist": "",
	}
	maps.Copy(extra, shipped)
	goroot = files(t, extra)
	return goroot, m, zip
}

func TestToolchain(t *testing.T) {
	goroot, m, zip := fakeToolchain(t)
	ref := "go:" + m.Path + "@" + m.Version + "#" + h1(h1Of(t, m, zip))
	want := []string{
		`VERSION "go1.99.1\ntime 2026-08-28T16:20:06Z\n"`, `bin/`, `bin/go* "go"`, `bin/gofmt* "gofmt"`, `go.env "GOPROXY=off\nGOTOOLCHAIN=auto\n"`,
		`lib/`, `lib/time/`, `lib/time/zoneinfo.zip "z"`, `lib/wasm/`, `lib/wasm/go_js_wasm_exec* "#!"`,
		`pkg/`, `pkg/include/`, `pkg/include/x.h "h"`, `pkg/tool/`, `pkg/tool/linux_amd64/`, `pkg/tool/linux_amd64/compile* "compile"`,
		`src/`, `src/cmd/`, `src/cmd/go.mod "module cmd\n"`, `src/go.mod "module std\n"`, `src/make.bash "#!"`,
	}
	fetch := func(t *testing.T, f *Fetcher) digest.SHA256 {
		t.Helper()
		got, err := f.Fetch(t.Context(), input(t, ref), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, list(t, got.Path)); diff != "" {
			t.Errorf("tree (-want +got):\n%s", diff)
		}
		return got.NAR
	}
	server := serve(t, map[string][]byte{"/golang.org/toolchain/@v/" + m.Version + ".zip": zip})

	downloaded := newFetcher(t)
	downloaded.GoProxy = server.URL
	first := fetch(t, downloaded)

	installed := newFetcher(t)
	installed.Offline, installed.Toolchains = true, []string{"/nonexistent", goroot}
	if second := fetch(t, installed); second != first {
		t.Errorf("the installed toolchain is another tree than the downloaded one")
	}

	t.Run("exported from an installed one", func(t *testing.T) {
		archive := t.TempDir()
		in := input(t, ref)
		if err := installed.Export(t.Context(), []manifest.BuildInput{in}, "", archive); err != nil {
			t.Fatal(err)
		}
		f := newFetcher(t)
		f.Offline, f.Archives = true, []string{archive}
		fetch(t, f)
	})
	t.Run("module cache", func(t *testing.T) {
		f := newFetcher(t)
		f.Offline, f.GoModCache = true, t.TempDir()
		name, err := goFile(filepath.Join(f.GoModCache, "cache/download"), m, ".zip")
		if err != nil {
			t.Fatal(err)
		}
		put(t, name, zip)
		fetch(t, f)
	})
	t.Run("golang container image", func(t *testing.T) {
		image, _, _ := fakeToolchain(t)
		put(t, filepath.Join(image, "go.env"), []byte("GOPROXY=off\nGOTOOLCHAIN=local\n"))
		f := newFetcher(t)
		f.Offline, f.Toolchains = true, []string{image}
		fetch(t, f)
	})
	t.Run("changed installation", func(t *testing.T) {
		changed, _, _ := fakeToolchain(t)
		put(t, filepath.Join(changed, "src/evil.go"), []byte("package evil"))
		f := newFetcher(t)
		f.Toolchains, f.GoProxy = []string{changed}, server.URL
		var skipped []string
		f.Log = func(e Event) {
			if e.Kind == EventSkip {
				skipped = append(skipped, e.Detail)
			}
		}
		fetch(t, f)
		if len(skipped) != 1 || !strings.Contains(skipped[0], "the pin says h1:") {
			t.Errorf("skipped: %q", skipped)
		}
	})
	t.Run("installation with a link", func(t *testing.T) {
		linked, _, _ := fakeToolchain(t)
		os.Remove(filepath.Join(linked, "src/make.bash"))
		if err := os.Symlink("/etc/passwd", filepath.Join(linked, "src/make.bash")); err != nil {
			t.Fatal(err)
		}
		f := newFetcher(t)
		f.Toolchains, f.Offline, f.GoProxy = []string{linked}, true, "https://proxy.invalid"
		if _, err := f.Fetch(t.Context(), input(t, ref), "", nil); !strings.Contains(errText(err), "is missing") {
			t.Errorf("error is %v", err)
		}
	})
}

// The toolchain that runs this test, if it is the release whose module hash is known here.
func TestRealToolchain(t *testing.T) {
	const pin = "go:golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64#h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM="
	in := input(t, pin)
	goroot := goRoot(t)
	version, ok := parseToolchain(module.Version{Path: in.Ref.Location, Version: in.Ref.Version})
	if !ok || !version.installed(goroot) || runtime.GOARCH != "amd64" {
		t.Skip("cannot run here: go1.26.8 for linux/amd64 is not installed")
	}
	if testing.Short() {
		t.Skip("cannot run here: -short leaves out copying 240 MB")
	}
	f := newFetcher(t)
	f.Offline, f.Toolchains = true, []string{goroot}
	got, err := f.Fetch(t.Context(), in, "", nil)
	if err != nil {
		t.Skip("cannot run here: the installed toolchain is not the released one: " + err.Error())
	}
	out, err := exec.Command(filepath.Join(got.Path, "bin", "go"), "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "go version go1.26.8 ") {
		t.Errorf("go version: %q, %v", out, err)
	}
}

func TestGoProxyList(t *testing.T) {
	p := newProxy(t)
	d := p.add("example.com/m", "v1.0.0", "module example.com/m\n", nil)
	gone := serve(t, nil)
	broken := httptest.NewServer(status(500))
	defer broken.Close()
	tests := []struct{ list, err string }{
		{p.url(), ""},
		{gone.URL + "," + p.url(), ""},
		{broken.URL + "|" + p.url(), ""},
		{broken.URL + "," + p.url(), "500"},
		{gone.URL + ",direct", `GOPROXY entry "direct" cannot be asked`},
		{"off", `GOPROXY entry "off" cannot be asked`},
		{"ftp://x", `GOPROXY entry "ftp://x" is no URL`},
	}
	for _, tt := range tests {
		f := newFetcher(t)
		f.GoProxy = tt.list
		_, err := f.Fetch(t.Context(), input(t, "go:example.com/m@v1.0.0#"+h1(d)), "", nil)
		if tt.err == "" && err != nil || !strings.Contains(errText(err), tt.err) {
			t.Errorf("%s: error %q does not say %q", tt.list, errText(err), tt.err)
		}
	}
}

func TestHostileModuleZips(t *testing.T) {
	m := module.Version{Path: "example.com/m", Version: "v1.0.0"}
	tests := map[string]map[string]string{
		"path that leaves":   {"example.com/m@v1.0.0/../../x": "x"},
		"other module":       {"example.com/n@v1.0.0/x": "x"},
		"names but for case": {"example.com/m@v1.0.0/x": "x", "example.com/m@v1.0.0/X": "x"},
		"go.mod in upper":    {"example.com/m@v1.0.0/GO.MOD": "x"},
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			zip := zipFile(t, content)
			s := serve(t, map[string][]byte{"/example.com/m/@v/v1.0.0.zip": zip})
			f := newFetcher(t)
			f.GoProxy = s.URL
			_, err := f.Fetch(t.Context(), input(t, "go:"+m.String()+"#"+h1(digest.Of(zip))), "", nil)
			if err == nil || strings.Contains(err.Error(), "the pin says") {
				t.Errorf("error is %v, which is not the zip's", err)
			}
		})
	}
}

func TestSumDB(t *testing.T) {
	p := newProxy(t)
	d := p.add("example.com/m", "v1.0.0", "module example.com/m\n", nil)
	skey, vkey, err := note.GenerateKey(nil, "sum.example.org")
	if err != nil {
		t.Fatal(err)
	}
	database := sumdb.NewTestServer(skey, func(path, version string) ([]byte, error) {
		return []byte(strings.Join(p.sums, "\n") + "\n"), nil
	})
	handler := sumdb.NewServer(database)
	mux := http.NewServeMux()
	for _, path := range sumdb.ServerPaths {
		mux.Handle(path, handler)
	}
	direct := httptest.NewServer(mux)
	defer direct.Close()
	proxied := httptest.NewServer(http.StripPrefix("/sumdb/sum.example.org", mux))
	defer proxied.Close()
	otherKey, otherVerifier, err := note.GenerateKey(nil, "sum.example.org")
	if err != nil || otherKey == "" {
		t.Fatal(err)
	}
	want := "go:example.com/m@v1.0.0#" + h1(d)
	tests := []struct {
		name       string
		db, proxy  string
		want, fail string
	}{
		{name: "asked at its address", db: vkey + " " + direct.URL, proxy: p.url(), want: want},
		{name: "asked through the proxy", db: vkey, proxy: p.url() + "," + proxied.URL, want: want},
		{name: "another key", db: otherVerifier + " " + direct.URL, proxy: p.url(), fail: "ask the checksum database"},
		{name: "not reachable", db: vkey + " http://127.0.0.1:1", proxy: p.url(), fail: "ask the checksum database"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFetcher(t)
			f.GoProxy, f.GoSumDB, f.SumDB = tt.proxy, true, tt.db
			got, err := f.Resolve(t.Context(), "go:example.com/m@v1.0.0", "")
			if tt.fail == "" && err != nil || !strings.Contains(errText(err), tt.fail) {
				t.Fatalf("error %q does not say %q", errText(err), tt.fail)
			}
			if err == nil && got.String() != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestRealProxy downloads a small module from the Go module proxy, with the hash that the checksum database has.
func TestRealProxy(t *testing.T) {
	out, err := exec.Command("go", "env", "GOPROXY").Output()
	proxy := strings.TrimSpace(string(out))
	if err != nil || !strings.HasPrefix(proxy, "http") {
		t.Skip("cannot run here: no module proxy is configured")
	}
	f := newFetcher(t)
	f.GoProxy, f.GoSumDB = proxy, true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const want = "go:rsc.io/quote@v1.5.2#h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y="
	ref, err := f.Resolve(ctx, "go:rsc.io/quote@v1.5.2", "")
	if err != nil {
		t.Skip("cannot run here: the module proxy does not answer: " + err.Error())
	}
	if ref.String() != want {
		t.Errorf("resolved to %s, want %s", ref, want)
	}
	got, err := f.Fetch(ctx, input(t, want), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(got.Path, "quote.go")); err != nil {
		t.Error(err)
	}
}

// FuzzGoSum: every go.sum is refused or becomes the same pins again when they are written as one.
func FuzzGoSum(f *testing.F) {
	f.Add([]byte("rsc.io/quote v1.5.2 h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y=\nrsc.io/quote v1.5.2/go.mod h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=\n"))
	f.Add([]byte("x v1.0.0 h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y=\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pins, err := parseGoSum(b)
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, p := range pins {
			suffix := ""
			if p.mod {
				suffix = "/go.mod"
			}
			fmt.Fprintf(&again, "%s %s%s %s\n", p.Path, p.Version.Version, suffix, h1(p.hash))
		}
		second, err := parseGoSum(again.Bytes())
		if diff := cmp.Diff(pins, second, cmp.AllowUnexported(goPin{})); diff != "" || err != nil {
			t.Errorf("%v (-first +second):\n%s", err, diff)
		}
	})
}
