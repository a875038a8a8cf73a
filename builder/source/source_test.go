package source

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/module"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
	"arch.network/builder/store"
)

// newFetcher is a Fetcher with an empty store, which never waits and knows no network but what a test gives it.
func newFetcher(t testing.TB) *Fetcher {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		nar.RemoveAll(dir) // its directories are read-only
	})
	return &Fetcher{
		Store: s, Platform: "linux/amd64", GoProxy: "off",
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
}

// serve is an HTTP server on loopback with fixed content by path.
func serve(t testing.TB, content map[string][]byte) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := content[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	t.Cleanup(s.Close)
	return s
}

// input is a BuildInput by its reference.
func input(t testing.TB, ref string) manifest.BuildInput {
	t.Helper()
	r, err := manifest.ParseRef(ref)
	if err != nil {
		t.Fatal(err)
	}
	return manifest.BuildInput{Name: "in", Ref: r, Mount: "/in"}
}

// list tells what is in a tree: one line an entry.
func list(t testing.TB, dir string) []string {
	t.Helper()
	var got []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			got = append(got, rel+" -> "+target)
			return err
		case d.IsDir():
			if rel != "." {
				got = append(got, rel+"/")
			}
			return nil
		}
		b, err := os.ReadFile(path)
		x := ""
		if info.Mode()&0o100 != 0 {
			x = "*"
		}
		got = append(got, fmt.Sprintf("%s%s %q", rel, x, b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// files writes a directory from a table of paths.
func files(t testing.TB, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func tarGz(t testing.TB, content map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(content)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipFile(t testing.TB, content map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(content)) {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func moduleZip(t testing.TB, m module.Version, content map[string]string) []byte {
	t.Helper()
	prefixed := map[string]string{}
	for name, body := range content {
		prefixed[m.Path+"@"+m.Version+"/"+name] = body
	}
	return zipFile(t, prefixed)
}

func tempFile(t testing.TB, b []byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

func h1Of(t testing.TB, m module.Version, zip []byte) digest.SHA256 {
	t.Helper()
	sum, err := goPin{Version: m}.sum(tempFile(t, zip))
	if err != nil {
		t.Fatal(err)
	}
	d, err := parseH1(sum)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func narOf(t testing.TB, path string) digest.SHA256 {
	t.Helper()
	d, _, err := nar.Hash(t.Context(), path, nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org", "GIT_AUTHOR_DATE=@0 +0000", "GIT_COMMITTER_DATE=@0 +0000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// repository makes a git repository with one commit, and returns its directory and the commit.
func gitRepository(t testing.TB, content map[string]string) (dir, commit string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("cannot run here: git is not installed")
	}
	dir = files(t, content)
	git(t, dir, "init", "-q", "-b", "main")
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "first")
	return dir, git(t, dir, "rev-parse", "HEAD")
}

// world holds one thing of each kind that a reference can name.
type world struct {
	f    *Fetcher
	refs map[string]manifest.BuildInput
	deps map[string][]attest.ResourceDescriptor
	want map[string][]string
}

var helloFiles = map[string]string{"hello-1.0/run": "#!/bin/sh\n", "hello-1.0/doc/README": "hi\n"}

func newWorld(t *testing.T) *world {
	t.Helper()
	f := newFetcher(t)
	w := &world{f: f, refs: map[string]manifest.BuildInput{}, deps: map[string][]attest.ResourceDescriptor{}, want: map[string][]string{}}
	tgz := tarGz(t, helloFiles)
	zipped := zipFile(t, helloFiles)
	plain := []byte("plain bytes\n")
	server := serve(t, map[string][]byte{"/hello.tar.gz": tgz, "/hello.zip": zipped, "/plain": plain})

	add := func(name, ref string, change func(*manifest.BuildInput), deps map[string]string, mediaType string, want ...string) {
		in := input(t, ref)
		in.Name = name
		if change != nil {
			change(&in)
		}
		w.refs[name], w.want[name] = in, want
		w.deps[name] = []attest.ResourceDescriptor{{Name: name, URI: ref, Digest: deps, MediaType: mediaType}}
	}
	sha := func(b []byte) map[string]string { return map[string]string{"sha256": digest.Of(b).Hex()} }
	add("url", server.URL+"/plain#"+digest.Of(plain).SRI(), nil, sha(plain), "", `. "plain bytes\n"`)
	add("tar", server.URL+"/hello.tar.gz#"+digest.Of(tgz).SRI(), func(in *manifest.BuildInput) { in.Unpack, in.Strip = "tar", 1 }, sha(tgz), "",
		`doc/`, `doc/README* "hi\n"`, `run* "#!/bin/sh\n"`)
	add("zip", server.URL+"/hello.zip#"+digest.Of(zipped).SRI(), func(in *manifest.BuildInput) { in.Unpack = "zip" }, sha(zipped), "",
		`hello-1.0/`, `hello-1.0/doc/`, `hello-1.0/doc/README "hi\n"`, `hello-1.0/run "#!/bin/sh\n"`)
	local := filepath.Join(files(t, map[string]string{"plain": "local\n"}), "plain")
	add("file", "file://"+local+"#"+digest.Of([]byte("local\n")).SRI(), nil, sha([]byte("local\n")), "", `. "local\n"`)

	dir, commit := gitRepository(t, map[string]string{"a": "x $Id$\r\n", "d/b": "y", ".gitattributes": "a -text ident export-ignore\n"})
	clean := files(t, map[string]string{"a": "x $Id$\r\n", "d/b": "y", ".gitattributes": "a -text ident export-ignore\n"})
	add("git", "git+file://"+dir+"@"+commit+"#"+narOf(t, clean).SRI(), nil,
		map[string]string{"sha256": narOf(t, clean).Hex(), "gitCommit": commit}, nar.MediaType,
		`.gitattributes "a -text ident export-ignore\n"`, `a "x $Id$\r\n"`, `d/`, `d/b "y"`)

	m := module.Version{Path: "example.com/Mod", Version: "v1.2.3"}
	mod := moduleZip(t, m, map[string]string{"go.mod": "module example.com/Mod\n", "x.go": "package x\n"})
	proxy := serve(t, map[string][]byte{"/example.com/!mod/@v/v1.2.3.zip": mod})
	f.GoProxy = proxy.URL
	add("go", "go:example.com/Mod@v1.2.3#"+h1(h1Of(t, m, mod)), nil, map[string]string{"dirHash": h1Of(t, m, mod).Hex()}, "",
		`go.mod "module example.com/Mod\n"`, `x.go "package x\n"`)

	i := newImage(t)
	add("oci", i.host+"/base/os:latest@"+i.index.String(), nil, nil, "", `etc/`, `etc/new "2"`, `lib -> /usr/lib`, `usr/`, `usr/lib/`, `usr/lib/x* "1"`)
	w.deps["oci"] = []attest.ResourceDescriptor{
		{Name: "oci", URI: i.host + "/base/os:latest@" + i.index.String(), Digest: map[string]string{"sha256": i.index.Hex()}, MediaType: imagespec.MediaTypeIndex},
		{Name: "oci", URI: i.host + "/base/os@" + i.manifest.String(), Digest: map[string]string{"sha256": i.manifest.Hex()}, MediaType: imagespec.MediaTypeManifest},
	}

	tree := files(t, map[string]string{"t": "tree"})
	archive := t.TempDir()
	writeNAR(t, archive, tree)
	model := []byte("model bytes")
	writeBlob(t, archive, model)
	f.Archives = []string{archive}
	add("tree", "tree:mine#"+narOf(t, tree).SRI(), nil, map[string]string{"sha256": narOf(t, tree).Hex()}, nar.MediaType, `t "tree"`)
	add("model", "onnx://org/model@"+digest.Of(model).String(), nil, sha(model), "", `. "model bytes"`)
	add("cid", "ipfs://"+digest.Of(model).CID(), nil, sha(model), "", `. "model bytes"`)
	return w
}

func writeNAR(t testing.TB, archive, tree string) {
	t.Helper()
	var b bytes.Buffer
	enc, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if err := nar.Dump(t.Context(), enc, tree, nar.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(archive, narDir, narOf(t, tree).Hex()+narSuffix), b.Bytes())
}

func writeBlob(t testing.TB, archive string, b []byte) {
	t.Helper()
	put(t, filepath.Join(archive, blobDir, digest.Of(b).Hex()), b)
}

func put(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFetchEveryKind(t *testing.T) {
	w := newWorld(t)
	for _, name := range slices.Sorted(maps.Keys(w.refs)) {
		t.Run(name, func(t *testing.T) {
			in := w.refs[name]
			got, err := w.f.Fetch(t.Context(), in, t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(w.want[name], list(t, got.Path)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(w.deps[name], got.Dependencies); diff != "" {
				t.Errorf("dependencies (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(in, got.Pinned); diff != "" {
				t.Errorf("pinned (-want +got):\n%s", diff)
			}
			if narOf(t, got.Path) != got.NAR {
				t.Errorf("the tree is not the one that its NAR hash names")
			}
			for _, d := range got.Dependencies {
				if err := d.Validate(); err != nil || !d.Pinned() {
					t.Errorf("dependency %v is not pinned: %v", d, err)
				}
			}

			// The second time the store answers, with the same result and without a network.
			offline := &Fetcher{Store: w.f.Store, Platform: w.f.Platform, Offline: true}
			again, err := offline.Fetch(t.Context(), in, t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("second time (-first +second):\n%s", diff)
			}
		})
	}
}

func TestWrongPin(t *testing.T) {
	w := newWorld(t)
	wrong := digest.Of([]byte("something else"))
	tests := map[string]string{
		"url": `the pin says sha256-`, "tar": `the pin says sha256-`, "zip": `the pin says sha256-`, "file": `the pin says sha256-`,
		"git": `the pin says sha256-`, "go": `the pin says h1:`, "oci": `404`,
		"tree": `is missing`, "model": `is missing`, "cid": `is missing`,
	}
	for _, name := range slices.Sorted(maps.Keys(w.refs)) {
		t.Run(name, func(t *testing.T) {
			in := w.refs[name]
			in.Ref.Digest = wrong
			if name == "cid" {
				in.Ref.Location = wrong.CID()
			}
			_, err := w.f.Fetch(t.Context(), in, t.TempDir(), nil)
			if !strings.Contains(errText(err), tests[name]) {
				t.Errorf("error %q does not say %q", errText(err), tests[name])
			}
			if !strings.HasPrefix(errText(err), `fetch input "`+name+`": `) {
				t.Errorf("error %q does not name the input", errText(err))
			}
			if _, ok := err.(interface{ Unwrap() error }); !ok {
				t.Errorf("error %q hides its cause", errText(err))
			}
			if _, ok := w.f.Store.TreePath(wrong); ok {
				t.Errorf("a tree became visible under the wrong pin")
			}
			if _, ok, _ := w.f.Store.Recall(pinKind, in.Ref.String()); ok {
				t.Errorf("the wrong pin was remembered")
			}
		})
	}
}

func TestOffline(t *testing.T) {
	w := newWorld(t)
	w.f.Offline = true
	w.f.Archives = nil
	w.f.HTTP = &http.Client{Transport: noNetwork{t}}
	var inputs []manifest.BuildInput
	for _, name := range []string{"url", "tar", "go", "oci", "tree", "model", "cid"} {
		inputs = append(inputs, w.refs[name])
	}
	inputs = append(inputs, manifest.BuildInput{Name: "modules", GoModules: &manifest.GoModules{Of: "url"}})
	_, err := w.f.FetchAll(t.Context(), inputs, t.TempDir())
	missing, ok := err.(*MissingError)
	if !ok {
		t.Fatalf("got %v, want a MissingError", err)
	}
	var names []string
	for _, in := range missing.Inputs {
		name, ref, _ := strings.Cut(in, " ")
		if w.refs[name].Ref.String() != strings.Trim(ref, "()") {
			t.Errorf("%s: %s is not the reference", name, ref)
		}
		names = append(names, name)
	}
	if diff := cmp.Diff([]string{"url", "tar", "go", "oci", "tree", "model", "cid"}, names); diff != "" {
		t.Errorf("missing inputs (-want +got):\n%s", diff)
	}
	if missing.Hint() == "" {
		t.Errorf("there is no hint")
	}
}

// noNetwork fails the test when anything is sent.
type noNetwork struct{ t *testing.T }

func (n noNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("offline, but %s was asked", r.URL)
	return nil, io.ErrClosedPipe
}

func TestExportIsEnoughOffline(t *testing.T) {
	w := newWorld(t)
	base := files(t, map[string]string{"src/main.go": "package main\n", "src/.git/HEAD": "x", "src/go.mod": "module m\n\ngo 1.24\n\nrequire example.com/Mod v1.2.3\n"})
	goRef := w.refs["go"].Ref
	modHash, err := sumGoMod(strings.NewReader("module example.com/Mod\n"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(base, "src/go.sum"), []byte("example.com/Mod v1.2.3 "+h1(goRef.Digest)+"\nexample.com/Mod v1.2.3/go.mod "+modHash+"\n"))
	inputs := []manifest.BuildInput{
		{Name: "modules", GoModules: &manifest.GoModules{Of: "src"}, Mount: "/m"},
		{Name: "src", Path: "src", Mount: "/build/src"},
	}
	for _, name := range slices.Sorted(maps.Keys(w.refs)) {
		inputs = append(inputs, w.refs[name])
	}
	archive := t.TempDir()
	if err := w.f.Export(t.Context(), inputs, base, archive); err != nil {
		t.Fatal(err)
	}
	first, err := w.f.FetchAll(t.Context(), inputs, base)
	if err != nil {
		t.Fatal(err)
	}

	for name, offline := range map[string]func(*Fetcher){
		"archive":     func(f *Fetcher) { f.Archives = []string{archive}; f.Offline = true },
		"file mirror": func(f *Fetcher) { f.Mirrors = []string{"file://" + archive}; f.Offline = true },
		"http mirror": func(f *Fetcher) {
			s := httptest.NewServer(http.FileServer(http.Dir(archive)))
			t.Cleanup(s.Close)
			f.Mirrors = []string{s.URL}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFetcher(t)
			offline(f)
			// What the receipt says of local paths is enough, too.
			pinned := slices.Clone(inputs)
			for i, in := range pinned {
				pinned[i] = first[in.Name].Pinned
			}
			got, err := f.FetchAll(t.Context(), pinned, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range first {
				if diff := cmp.Diff(want.NAR, got[name].NAR); diff != "" {
					t.Errorf("%s: NAR (-want +got):\n%s", name, diff)
				}
				if diff := cmp.Diff(want.Dependencies, got[name].Dependencies); diff != "" {
					t.Errorf("%s: dependencies (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

func TestArchivesAreNotTrusted(t *testing.T) {
	good, bad := t.TempDir(), t.TempDir()
	tree := files(t, map[string]string{"t": "tree"})
	writeNAR(t, good, tree)
	writeNAR(t, bad, files(t, map[string]string{"t": "evil"}))
	entries, err := filepath.Glob(filepath.Join(bad, narDir, "*"))
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	if err := os.Rename(entries[0], filepath.Join(bad, narDir, narOf(t, tree).Hex()+narSuffix)); err != nil {
		t.Fatal(err)
	}
	f := newFetcher(t)
	f.Archives = []string{bad, good}
	var skipped []string
	f.Log = func(e Event) {
		if e.Kind == EventSkip {
			skipped = append(skipped, e.Detail)
		}
	}
	in := input(t, "tree:x#"+narOf(t, tree).SRI())
	got, err := f.Fetch(t.Context(), in, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`t "tree"`}, list(t, got.Path)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	if len(skipped) != 1 || !strings.Contains(skipped[0], "the content is") {
		t.Errorf("skipped: %q", skipped)
	}
}

func TestCarried(t *testing.T) {
	tree := files(t, map[string]string{"t": "tree"})
	var plain bytes.Buffer
	if err := nar.Dump(t.Context(), &plain, tree, nar.Options{}); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"plain": plain.Bytes(), "zstd": enc.EncodeAll(plain.Bytes(), nil)} {
		t.Run(name, func(t *testing.T) {
			f := newFetcher(t)
			f.Offline = true
			f.Carried = map[digest.SHA256][]byte{narOf(t, tree): content}
			got, err := f.Fetch(t.Context(), input(t, "tree:x#"+narOf(t, tree).SRI()), "", nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{`t "tree"`}, list(t, got.Path)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range slices.Sorted(maps.Keys(w.refs)) {
		if _, err := w.f.Fetch(ctx, w.refs[name], "", nil); err == nil {
			t.Errorf("%s: fetched in spite of the cancelled context", name)
		}
	}
}

func TestLocalPath(t *testing.T) {
	base := files(t, map[string]string{"src/a": "1", "src/b.o": "2", "src/d/.git/x": "3", "src/keep.o": "4", "src/out/x": "5", "one.tar": string(tarGz(t, helloFiles))})
	if err := os.Symlink("/etc/passwd", filepath.Join(base, "src/link")); err != nil {
		t.Fatal(err)
	}
	f := newFetcher(t)
	tests := []struct {
		name string
		in   manifest.BuildInput
		want []string
		err  string
	}{
		{name: "tree", in: manifest.BuildInput{Name: "src", Path: "src", Ignore: []string{"*.o", "!keep.o", "/out"}}, want: []string{`a "1"`, `d/`, `keep.o "4"`, `link -> /etc/passwd`}},
		{name: "file", in: manifest.BuildInput{Name: "src", Path: "src/a"}, want: []string{`. "1"`}},
		{name: "archive", in: manifest.BuildInput{Name: "src", Path: "one.tar", Unpack: "tar", Strip: 1}, want: []string{`doc/`, `doc/README* "hi\n"`, `run* "#!/bin/sh\n"`}},
		{name: "absolute", in: manifest.BuildInput{Name: "src", Path: "/etc"}, err: `fetch input "src": path "/etc" is absolute`},
		{name: "bad pattern", in: manifest.BuildInput{Name: "src", Path: "src", Ignore: []string{"[a"}}, err: `fetch input "src": ignore pattern "[a" is malformed`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := f.Fetch(t.Context(), tt.in, base, nil)
			if diff := cmp.Diff(tt.err, errText(err)); diff != "" {
				t.Fatalf("error (-want +got):\n%s", diff)
			}
			if tt.err != "" {
				return
			}
			if diff := cmp.Diff(tt.want, list(t, got.Path)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			want := manifest.BuildInput{Name: "src", Ref: manifest.Ref{Scheme: manifest.RefTree, Location: "src", Digest: got.NAR}}
			if diff := cmp.Diff(want, got.Pinned); diff != "" {
				t.Errorf("pinned (-want +got):\n%s", diff)
			}
			deps := []attest.ResourceDescriptor{{Name: "src", URI: want.Ref.String(), Digest: map[string]string{"sha256": got.NAR.Hex()}, MediaType: nar.MediaType}}
			if diff := cmp.Diff(deps, got.Dependencies); diff != "" {
				t.Errorf("dependencies (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStorePath(t *testing.T) {
	tree := files(t, map[string]string{"bin/x": "1"})
	f := newFetcher(t)
	in := manifest.BuildInput{Name: "in", Ref: manifest.Ref{Scheme: manifest.RefStore, Location: tree, Digest: narOf(t, tree)}}
	got, err := f.Fetch(t.Context(), in, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`bin/`, `bin/x "1"`}, list(t, got.Path)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	in.Ref.Digest = digest.Of(nil)
	if _, err := f.Fetch(t.Context(), in, "", nil); !strings.Contains(errText(err), "the pin says sha256-47DEQp") {
		t.Errorf("wrong pin: %v", err)
	}
	in.Ref.Location = "/gnu/store/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-none"
	_, err = f.Fetch(t.Context(), in, "", nil)
	if !strings.Contains(errText(err), "is missing") {
		t.Errorf("no such path: %v", err)
	}
}
