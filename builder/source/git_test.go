package source

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// gitServer serves a directory over git's HTTP protocol.
func gitServer(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("cannot run here: git is not installed")
	}
	backend := filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("cannot run here: git http-backend is not installed")
	}
	s := httptest.NewServer(&cgi.Handler{Path: backend, Env: []string{
		"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}})
	t.Cleanup(s.Close)
	return s.URL
}

func TestGitOverHTTP(t *testing.T) {
	dir, first := gitRepository(t, map[string]string{"a": "1"})
	put(t, filepath.Join(dir, "a"), []byte("2"))
	git(t, dir, "commit", "-q", "-a", "-m", "second")
	second := git(t, dir, "rev-parse", "HEAD")
	url := "git+" + gitServer(t, dir) + "/.git"
	for _, tt := range []struct {
		name   string
		config []string // of the server
		commit string
		want   string
	}{
		{"tip", nil, second, `a "2"`},
		{"old commit that the server gives", []string{"uploadpack.allowAnySHA1InWant", "true"}, first, `a "1"`},
		{"old commit out of everything", []string{"uploadpack.allowAnySHA1InWant", "false"}, first, `a "1"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.config != nil {
				git(t, dir, append([]string{"config"}, tt.config...)...)
			}
			f := newFetcher(t)
			want := narOf(t, files(t, map[string]string{"a": strings.Trim(tt.want[2:], `"`)}))
			got, err := f.Fetch(t.Context(), input(t, url+"@"+tt.commit+"#"+want.SRI()), "", nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{tt.want}, list(t, got.Path)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGitRefused(t *testing.T) {
	dir, commit := gitRepository(t, map[string]string{"a": "1"})
	sub, _ := gitRepository(t, map[string]string{"s": "1"})
	git(t, dir, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", sub, "sub")
	git(t, dir, "commit", "-q", "-m", "submodule")
	withSub := git(t, dir, "rev-parse", "HEAD")
	var big strings.Builder // that does not compress
	for i := range 300 {
		big.WriteString(digest.Of([]byte{byte(i), byte(i >> 8)}).SRI())
	}
	bigDir, bigCommit := gitRepository(t, map[string]string{"a": big.String()})
	tests := []struct {
		name   string
		dir    string
		commit string
		change func(*Fetcher)
		err    string
		hint   string
	}{
		{name: "no such commit", dir: dir, commit: strings.Repeat("1", 40), err: "has no commit " + strings.Repeat("1", 40), hint: "check the commit id"},
		{name: "submodule", dir: dir, commit: withSub, err: `"sub" is a submodule`, hint: "give each its own input"},
		{name: "no repository", dir: t.TempDir(), commit: commit, err: "git fetch: "},
		{name: "too large", dir: bigDir, commit: bigCommit, change: func(f *Fetcher) { f.MaxDownload = 1000 }, err: "larger than the limit of 1000 bytes"},
		{name: "too large when unpacked", dir: bigDir, commit: bigCommit, change: func(f *Fetcher) { f.Limits.Bytes = 100 }, err: "exceeds the limit of 100 bytes"},
		{name: "git is not there", dir: dir, commit: commit, change: func(f *Fetcher) { f.Git = "/nonexistent/git" }, err: "git is needed", hint: "install git"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFetcher(t)
			if tt.change != nil {
				tt.change(f)
			}
			_, err := f.Fetch(t.Context(), input(t, "git+file://"+tt.dir+"@"+tt.commit+"#"+digest.Of(nil).SRI()), "", nil)
			if !strings.Contains(errText(err), tt.err) {
				t.Errorf("error %q does not say %q", errText(err), tt.err)
			}
			if !strings.Contains(hintOf(err), tt.hint) {
				t.Errorf("hint %q does not say %q", hintOf(err), tt.hint)
			}
		})
	}
}

// hintOf finds the hint as a command does.
func hintOf(err error) string {
	for err != nil {
		if h, ok := err.(interface{ Hint() string }); ok {
			return h.Hint()
		}
		switch u := err.(type) {
		case interface{ Unwrap() error }:
			err = u.Unwrap()
		case interface{ Unwrap() []error }:
			for _, e := range u.Unwrap() {
				if h := hintOf(e); h != "" {
					return h
				}
			}
			return ""
		default:
			return ""
		}
	}
	return ""
}

// What is configured on the machine, in the repository, or in the commit must not run and must not change a byte.
func TestGitRunsNothing(t *testing.T) {
	dir, commit := gitRepository(t, map[string]string{"a": "1\n", ".gitattributes": "* filter=evil diff=evil\n", ".gitmodules": "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c touch% /tmp/x\n"})
	marker := filepath.Join(t.TempDir(), "ran")
	script := filepath.Join(t.TempDir(), "evil")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ntouch "+marker+"\ncat\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	put(t, filepath.Join(home, ".gitconfig"), []byte("[core]\n\tfsmonitor = "+script+"\n\thooksPath = "+filepath.Dir(script)+"\n[filter \"evil\"]\n\tsmudge = "+script+"\n[url \"file:///nonexistent/\"]\n\tinsteadOf = file://\n"))
	t.Setenv("HOME", home)
	t.Setenv("GIT_SSH_COMMAND", script)
	t.Setenv("GIT_EXTERNAL_DIFF", script)
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "url.file:///nonexistent/.insteadOf")
	t.Setenv("GIT_CONFIG_VALUE_0", "file://")
	f := newFetcher(t)
	f.Limits.Files = 100
	ref := manifest.Ref{Scheme: manifest.RefGit, Location: "git+file://" + dir, Version: commit, Digest: narOf(t, files(t, map[string]string{
		"a": "1\n", ".gitattributes": "* filter=evil diff=evil\n", ".gitmodules": "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c touch% /tmp/x\n",
	}))}
	if _, err := f.Fetch(t.Context(), manifest.BuildInput{Name: "in", Ref: ref}, "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Errorf("a program of the configuration was run")
	}
	ref.Location = "git+ext::sh -c 'touch " + marker + "'"
	if _, err := f.Fetch(t.Context(), manifest.BuildInput{Name: "in", Ref: manifest.Ref{Scheme: ref.Scheme, Location: ref.Location, Version: commit, Digest: digest.Of(nil)}}, "", nil); !strings.Contains(errText(err), "transport 'ext' not allowed") {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Errorf("the ext transport was run")
	}
}

func TestResolve(t *testing.T) {
	dir, commit := gitRepository(t, map[string]string{"a": "1"})
	tree := narOf(t, files(t, map[string]string{"a": "1"}))
	git(t, dir, "tag", "-a", "v1", "-m", "one")
	image := newImage(t)
	proxy := newProxy(t)
	sum := proxy.add("example.com/Mod", "v1.2.0", "module example.com/Mod\n", nil)
	server := serve(t, map[string][]byte{"/x": []byte("x")})
	gone := httptest.NewServer(http.NotFoundHandler())
	defer gone.Close()
	goPinned := "go:example.com/Mod@v1.2.0#" + h1(sum)
	gitPinned := "git+file://" + dir + "@" + commit + "#" + tree.SRI()
	tests := []struct{ in, want, err string }{
		{in: "./src"},
		{in: "../src"},
		{in: "."},
		{in: image.host + "/base/os:latest", want: image.host + "/base/os:latest@" + image.index.String()},
		{in: image.host + "/base/os", want: image.host + "/base/os:latest@" + image.index.String()},
		{in: "oci:" + image.host + "/base/os:latest", want: image.host + "/base/os:latest@" + image.index.String()},
		{in: image.host + "/base/os:none", err: "404"},
		{in: server.URL + "/x", want: server.URL + "/x#" + digest.Of([]byte("x")).SRI()},
		{in: gone.URL + "/x", err: "404"},
		{in: "go:example.com/Mod@v1.2.0", want: goPinned},
		{in: "go:example.com/Mod@latest", want: goPinned},
		{in: "go:example.com/Mod", want: goPinned},
		{in: "go:example.com/none@latest", err: "no such file"},
		{in: "git+file://" + dir, want: gitPinned},
		{in: "git+file://" + dir + "@main", want: gitPinned},
		{in: "git+file://" + dir + "@v1", want: gitPinned},
		{in: "git+file://" + dir + "@" + commit, want: gitPinned},
		{in: "git+file://" + dir + "@none", err: `has no branch or tag "none"`},
		{in: goPinned, want: goPinned},
		{in: "onnx://org/model", err: `"onnx:" says where nothing can be asked`},
		{in: "docker://x", err: "unknown scheme docker"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			f := newFetcher(t)
			f.GoProxy = proxy.url()
			got, err := f.Resolve(t.Context(), tt.in, "")
			if tt.err == "" && err != nil || !strings.Contains(errText(err), tt.err) {
				t.Fatalf("error %q does not say %q", errText(err), tt.err)
			}
			if diff := cmp.Diff(tt.want, got.String()); diff != "" {
				t.Errorf("pin (-want +got):\n%s", diff)
			}
			if tt.want == "" {
				return
			}
			// A pin that was just made can be fetched.
			if _, err := f.Fetch(t.Context(), manifest.BuildInput{Name: "in", Ref: got}, "", nil); err != nil {
				t.Error(err)
			}
		})
	}
}
