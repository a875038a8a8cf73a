package tests

import (
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// testC makes an image of Debian packages, and compiles a C program in it.
func testC(t *testing.T, w *world) {
	needServer(t, "https://deb.debian.org/debian/dists/bookworm/InRelease")
	image := w.builder.build(t, example(t, "c-env"))
	dir := image.path(t, "c-env")
	pinned := readText(t, filepath.Join(example(t, "c-hello"), "build.yaml"))
	if digest := image.Outputs[0].OCI; !strings.Contains(pinned, "/c-env@"+digest+"\n") {
		t.Fatalf("c-env comes out as %s, which is not what c-hello pins", digest)
	}
	want := "hello from hello.c, line 5, compiled by gcc 12.2.0\n"

	made := w.builder.build(t, example(t, "c-hello"), "--archive", dir)
	program := made.path(t, "c-hello")
	if got := command(t, ".", nil, program); got != want {
		t.Errorf("c-hello says %q, want %q", got, want)
	}
	cosigned := w.rebuilder.reproduce(t, made.Receipt, "--offline", "--archive", dir)
	wantReproduced(t, w.agree(t, program, made.Receipt, cosigned))

	t.Run("registry", func(t *testing.T) { testRegistry(t, w, dir, image.Outputs[0].OCI, program) })
	t.Run("clock", func(t *testing.T) { testClock(t, w, dir) })
}

func readText(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// copyExample copies c-hello and replaces text in its files: pairs of file, old and new.
func copyExample(t *testing.T, edits ...[3]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(example(t, "c-hello"))); err != nil {
		t.Fatal(err)
	}
	for _, e := range edits {
		path := filepath.Join(dir, e[0])
		text := readText(t, path)
		if !strings.Contains(text, e[1]) {
			t.Fatalf("%s does not contain %q", e[0], e[1])
		}
		if err := os.WriteFile(path, []byte(strings.Replace(text, e[1], e[2], 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// testRegistry serves the image by a tag. A tag is refused until it is pinned, and then the image comes from the registry
// to someone who has nothing of it.
func testRegistry(t *testing.T, w *world, dir, digest, program string) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	push(t, dir, host+"/c-env:bookworm")

	example := copyExample(t, [3]string{"build.yaml", "127.0.0.1:5000/c-env@" + digest, host + "/c-env:bookworm"})
	manifest := filepath.Join(example, "build.yaml")
	before := readText(t, manifest)
	stranger := w.person(t, "stranger")
	if got := stranger.try(t, "build", example); got.status != 1 || !strings.Contains(got.stderr, "arch pin") {
		t.Errorf("build from a tag: exit status %d, want 1 and a hint to arch pin\n%s", got.status, got.stderr)
	}
	stranger.run(t, "pin", manifest)
	want := strings.Replace(before, "/c-env:bookworm", "/c-env:bookworm@"+digest, 1)
	if got := readText(t, manifest); got != want {
		t.Errorf("arch pin wrote\n%s\nwant\n%s", got, want)
	}
	made := stranger.build(t, example)
	if got, want := sum(t, made.path(t, "c-hello")), sum(t, program); got != want {
		t.Errorf("with the image from a registry: %s, from a directory: %s", got, want)
	}
}

// push copies the image of a layout to a registry.
func push(t *testing.T, dir, to string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
}

// testClock has the program hold the time of its compilation, although the build is told another one: gcc takes
// __DATE__ and __TIME__ from SOURCE_DATE_EPOCH unless that is taken away.
func testClock(t *testing.T, w *world, dir string) {
	deaf := [3]string{"build.yaml", "argv: [gcc-12,", "argv: [env, -u, SOURCE_DATE_EPOCH, gcc-12,"}
	// The date changes only with the clock that is set, the time also while the tests run: both are the clock's doing.
	// They end in a word because the linker would else let strings such as "7" share the end of a time.
	const moment = `__DATE__ " " __TIME__ " o'clock"`
	const factors = "time,path,uid,hostname,locale,umask,cpus,order" // and not tz, in which it may be tomorrow
	for name, macro := range map[string]string{"date": "__DATE__", "time": moment} {
		t.Run(name, func(t *testing.T) {
			example := copyExample(t, deaf, [3]string{"src/hello.c", "__VERSION__", macro})
			got := w.builder.try(t, "build", "--attest", "--vary", factors, "--out", t.TempDir(), "--archive", dir, example)
			if got.status != 5 || !strings.HasSuffix(got.message(t), "; guilty: time") {
				t.Errorf("exit status %d, want 5 and the time named alone: %s", got.status, got.stdout+got.stderr)
			}
			if entries, err := os.ReadDir(example); err != nil || len(entries) != 2 {
				t.Errorf("the build left something beside its manifest: %v, %v", entries, err)
			}
		})
	}
	t.Run("diff", func(t *testing.T) {
		example := copyExample(t, deaf, [3]string{"src/hello.c", "__VERSION__", moment})
		first := laterBuild(t, w, dir, example, "")
		second := laterBuild(t, w, dir, example, first)
		got := w.builder.try(t, "diff", first, second)
		var report struct{ Differences []struct{ Cause string } }
		decode(t, got.stdout, &report)
		causes := map[string]bool{}
		for _, d := range report.Differences {
			causes[d.Cause] = true
		}
		want := map[string]bool{"timestamp-in-content": true, "build-id": true}
		if diff := cmp.Diff(want, causes); diff != "" || got.status != 5 {
			t.Errorf("arch diff ended with %d, want 5; causes (-want +got):\n%s", got.status, diff)
		}
	})
}

// laterBuild builds until the result is another than before, which takes a second at most: the clock of the program
// counts them.
func laterBuild(t *testing.T, w *world, dir, example, before string) string {
	t.Helper()
	for range 100 {
		made := w.builder.build(t, example, "--once", "--force", "--archive", dir)
		if path := made.path(t, "c-hello"); before == "" || sum(t, path) != sum(t, before) {
			return path
		}
	}
	t.Fatal("the time does not pass")
	return ""
}
