package nar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func dump(t testing.TB, path string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := nar.Dump(t.Context(), &b, path, nar.Options{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDumpAndHash(t *testing.T) {
	trees := map[string][]node{
		"sample":          sample(),
		"file":            {file("", "content")},
		"program":         {program("", "#!/bin/sh")},
		"link to nothing": {link("", "/nowhere")},
		"empty directory": {dir("")},
		// Around the sizes of the buffers of Dump (256 KiB) and Hash (256 KiB).
		"256 KiB":     {file("", strings.Repeat("x", 256<<10))},
		"almost":      {dir(""), file("a", strings.Repeat("x", 512<<10-345)), file("b", "y")},
		"large":       {dir(""), file("a", strings.Repeat("large", 1<<20)), file("b", strings.Repeat("y", 40<<10))},
		"long target": {link("", strings.Repeat("t/", 2047))},
		"long name":   {dir(""), dir(strings.Repeat("n", 255)), file(strings.Repeat("n", 255)+"/"+strings.Repeat("m", 255), "")},
	}
	for name, tree := range trees {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tree")
			plant(t, path, tree)
			want := encode(t, tree)
			if !bytes.Equal(want, dump(t, path)) {
				t.Error("Dump differs from what Writer writes for the same tree")
			}
			sum, size, err := nar.Hash(t.Context(), path, nar.Options{})
			if err != nil || sum != digest.Of(want) || size != int64(len(want)) {
				t.Errorf("Hash = %v, %d, %v; want %v, %d", sum, size, err, digest.Of(want), len(want))
			}
		})
	}
}

// Every length of content around a buffer's end is read once and whole.
func TestDumpAroundBufferEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	const frame = 96 // before the content
	for _, end := range []int{32 << 10, 256 << 10, 512 << 10} {
		for size := end - frame - 20; size < end-frame+20; size++ {
			content := strings.Repeat("c", size)
			plant(t, path, []node{file("", content)})
			want := digest.Of([]byte(archive(regularNode(content))))
			if got := digest.Of(dump(t, path)); got != want {
				t.Errorf("Dump of %d bytes: %v, want %v", size, got, want)
			}
			if got, _, err := nar.Hash(t.Context(), path, nar.Options{}); got != want || err != nil {
				t.Errorf("Hash of %d bytes: %v, %v, want %v", size, got, err, want)
			}
		}
	}
}

func TestHashListing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree")
	plant(t, path, sample())
	archive := dump(t, path)
	var want nar.Listing
	for r := nar.NewReader(bytes.NewReader(archive), nar.Limits{}); ; {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, e)
	}
	for _, digests := range []bool{false, true} {
		sum, got, err := nar.HashListing(t.Context(), path, nar.Options{FileDigests: digests})
		if err != nil || sum != digest.Of(archive) {
			t.Fatalf("HashListing: %v, %v", sum, err)
		}
		if digests {
			for i, e := range want {
				if e.Type == nar.Regular {
					want[i].Digest = digest.Of(archive[e.Offset : e.Offset+e.Size])
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("listing, digests %t (-want +got):\n%s", digests, diff)
		}
	}
}

func TestFilter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree")
	plant(t, path, sample())
	// What is left out is not even opened: it may be anything.
	if err := unix.Mkfifo(filepath.Join(path, "b", "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	var asked []string
	var b bytes.Buffer
	err := nar.Dump(t.Context(), &b, path, nar.Options{Filter: func(rel string, dir bool) bool {
		asked = append(asked, fmt.Sprint(rel, " ", dir))
		return rel == "x" || rel == "b/pipe" || strings.HasPrefix(rel, "link")
	}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(&b, nar.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var want []node
	for _, n := range sample() {
		if !strings.HasPrefix(n.Path, "x") && n.Type != nar.Symlink {
			want = append(want, n)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	wantAsked := []string{
		"a false", "b true", "b/c false", "b/d false", "b/pipe false", "b- false", "b. false",
		"empty true", "link false", "link8 false", "x true", "z false",
	}
	if diff := cmp.Diff(wantAsked, asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
}

func TestDumpRefusesOtherTypes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree")
	plant(t, path, []node{dir(""), file("a", "")})
	pipe := filepath.Join(path, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tests := map[string]nar.TypeError{
		path:        {pipe, "named pipe"},
		pipe:        {pipe, "named pipe"},
		socket:      {socket, "socket"},
		"/dev/null": {"/dev/null", "character device"},
	}
	for path, want := range tests {
		err := nar.Dump(t.Context(), io.Discard, path, nar.Options{})
		got, ok := errors.AsType[*nar.TypeError](err)
		if !ok {
			t.Errorf("Dump(%q): %v, want a *TypeError", path, err)
			continue
		}
		if diff := cmp.Diff(want, *got); diff != "" {
			t.Errorf("Dump(%q) (-want +got):\n%s", path, diff)
		}
		if got.Hint() == "" {
			t.Error("no hint")
		}
	}
}

func TestDumpLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree")
	plant(t, path, sample())
	size := int64(len(dump(t, path)))
	exact := nar.Limits{Depth: 3, Name: 5, Target: 8, Entries: 14, Size: size}
	if _, _, err := nar.Hash(t.Context(), path, nar.Options{Limits: exact}); err != nil {
		t.Errorf("limits that are just kept: %v", err)
	}
	tests := map[string]struct {
		limits nar.Limits
		want   nar.LimitError
	}{
		"depth":   {nar.Limits{Depth: 2}, nar.LimitError{"x/y/ü\n\x1b", "depth", 2}},
		"name":    {nar.Limits{Name: 4}, nar.LimitError{"empty", "name", 4}},
		"target":  {nar.Limits{Target: 7}, nar.LimitError{"link8", "target", 7}},
		"entries": {nar.Limits{Entries: 13}, nar.LimitError{"z", "entries", 13}},
		"listing": {nar.Limits{Entries: 3}, nar.LimitError{"", "entries", 3}},
		"size":    {nar.Limits{Size: size - 1}, nar.LimitError{"", "size", size - 1}},
		"content": {nar.Limits{Size: size - 400}, nar.LimitError{"z", "size", size - 400}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := nar.Hash(t.Context(), path, nar.Options{Limits: test.limits})
			got, ok := errors.AsType[*nar.LimitError](err)
			if !ok {
				t.Fatalf("error %v, want a *LimitError", err)
			}
			if diff := cmp.Diff(test.want, *got); diff != "" {
				t.Errorf("limit (-want +got):\n%s", diff)
			}
		})
	}
}

// The path itself is never followed, whatever it ends with; links in its parents are.
func TestDumpDoesNotFollow(t *testing.T) {
	base := t.TempDir()
	plant(t, base, []node{dir("real"), file("real/secret", "secret"), link("link", "real")})
	want := archive(symlinkNode("real"))
	for _, path := range []string{"/link", "/link/", "/link/.", "/real/../link"} {
		if diff := cmp.Diff(want, string(dump(t, base+path))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	if diff := cmp.Diff(archive(regularNode("secret")), string(dump(t, base+"/link/secret"))); diff != "" {
		t.Errorf("link/secret (-want +got):\n%s", diff)
	}
}

func TestDumpErrors(t *testing.T) {
	base := t.TempDir()
	plant(t, base, []node{file("f", "x")})
	if err := nar.Dump(t.Context(), io.Discard, base+"/absent", nar.Options{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/absent") {
		t.Errorf("absent: %v", err)
	}
	cause := errors.New("pipe broken")
	if err := nar.Dump(t.Context(), failing{cause}, base, nar.Options{}); !errors.Is(err, cause) {
		t.Errorf("broken writer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := nar.Hash(ctx, base, nar.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A file that has another size than it said is an error that names it.
func TestDumpNoticesChange(t *testing.T) {
	t.Run("grows", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		plant(t, path, []node{file("", strings.Repeat("x", 1<<20))})
		grow := writerFunc(func(p []byte) (int, error) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return 0, err
			}
			defer f.Close()
			_, err = f.WriteString("more")
			return len(p), err
		})
		wantChanged(t, nar.Dump(t.Context(), grow, path, nar.Options{}), path, "grew beyond 1048576 bytes")
	})
	t.Run("shrinks", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		plant(t, path, []node{file("", strings.Repeat("x", 1<<20))})
		shrink := writerFunc(func(p []byte) (int, error) { return len(p), os.Truncate(path, 300<<10) })
		wantChanged(t, nar.Dump(t.Context(), shrink, path, nar.Options{}), path, "shrank to 307200 of 1048576 bytes")
	})
	t.Run("vanishes", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "d")
		plant(t, path, []node{dir(""), file("a", strings.Repeat("x", 1<<20)), file("b", "")})
		remove := writerFunc(func(p []byte) (int, error) { os.Remove(path + "/b"); return len(p), nil })
		wantChanged(t, nar.Dump(t.Context(), remove, path, nar.Options{}), path+"/b", "it vanished")
	})
	t.Run("becomes a link", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "d")
		plant(t, path, []node{dir(""), file("a", strings.Repeat("x", 1<<20)), file("b", "")})
		swap := writerFunc(func(p []byte) (int, error) {
			os.Remove(path + "/b")
			os.Symlink("/etc/passwd", path+"/b")
			return len(p), nil
		})
		wantChanged(t, nar.Dump(t.Context(), swap, path, nar.Options{}), path+"/b", "of another type now")
	})
	t.Run("becomes a pipe", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "d")
		plant(t, path, []node{dir(""), file("a", strings.Repeat("x", 1<<20)), file("b", "")})
		swap := writerFunc(func(p []byte) (int, error) {
			os.Remove(path + "/b")
			unix.Mkfifo(path+"/b", 0o600) // opening it must not wait for a writer
			return len(p), nil
		})
		wantChanged(t, nar.Dump(t.Context(), swap, path, nar.Options{}), path+"/b", "of another type now")
	})
	t.Run("claims to be empty", func(t *testing.T) {
		const path = "/proc/self/stat"
		wantChanged(t, nar.Dump(t.Context(), io.Discard, path, nar.Options{}), path, "grew beyond 0 bytes")
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func wantChanged(t *testing.T, err error, path, reason string) {
	t.Helper()
	got, ok := errors.AsType[*nar.ChangedError](err)
	switch {
	case !ok:
		t.Errorf("error %v, want a *ChangedError", err)
	case got.Path != path || !strings.Contains(got.Error(), reason):
		t.Errorf("error %v, want one of %s with %q", got, path, reason)
	case got.Hint() == "":
		t.Error("no hint")
	}
}

// A directory that is swapped all the time with a link to another place never leads there.
func TestDumpSwapRace(t *testing.T) {
	base := t.TempDir()
	plant(t, base, []node{
		dir("outside"), file("outside/secret", "SECRET"), dir("outside/sub"), file("outside/sub/secret", "SECRET"),
		dir("tree"), dir("tree/d"), file("tree/d/secret", "public"), dir("tree/d/sub"), file("tree/d/sub/secret", "public"),
		link("escape", base+"/outside"),
	})
	var swapper sync.WaitGroup
	stop := make(chan struct{})
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, base+"/escape", unix.AT_FDCWD, base+"/tree/d", unix.RENAME_EXCHANGE)
			}
		}
	})
	defer swapper.Wait()
	defer close(stop)
	whole, other := 0, 0
	for range 3000 {
		var b bytes.Buffer
		err := nar.Dump(t.Context(), &b, base+"/tree", nar.Options{})
		if strings.Contains(b.String(), "SECRET") {
			t.Fatalf("the content of another place is in the archive: %q", b.String())
		}
		if _, changed := errors.AsType[*nar.ChangedError](err); err != nil && !changed {
			t.Fatal(err)
		}
		if err == nil {
			whole++
		} else {
			other++
		}
	}
	t.Logf("%d dumps were of a directory or of a link, %d were refused", whole, other)
}
