package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// e is one entry of an archive of a test.
type e struct {
	name string
	typ  byte // zero: a regular file
	body string
	link string
	mode int64 // zero: 0644
	pax  map[string]string
}

func tarOf(t testing.TB, entries ...e) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.typ, Linkname: e.link, Mode: e.mode, Size: int64(len(e.body)), PAXRecords: e.pax}
		if e.typ == tar.TypeXGlobalHeader {
			h = &tar.Header{Typeflag: e.typ, PAXRecords: e.pax}
		}
		if e.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		if e.mode == 0 && e.typ != tar.TypeXGlobalHeader {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// list tells everything that is in dir, one entry a line: path, kind and, as it may be, target or content.
func list(t testing.TB, dir string) []string {
	t.Helper()
	var got []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			got = append(got, rel+" -> "+target)
			return err
		case d.IsDir():
			if info.Mode() != fs.ModeDir|0o755 {
				rel += " " + info.Mode().String()
			}
			got = append(got, rel+"/")
			return nil
		}
		b, err := os.ReadFile(path)
		got = append(got, fmt.Sprintf("%s %v %q", rel, info.Mode(), b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// arena is a directory "in" to unpack into, beside a canary that must stay as it is.
func arena(t testing.TB) (in string, check func()) {
	t.Helper()
	top := t.TempDir()
	in = filepath.Join(top, "in")
	canary := filepath.Join(top, "canary")
	for _, d := range []string{in, canary} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(canary, "secret"), []byte("s"), 0o644); err != nil {
		t.Fatal(err)
	}
	return in, func() {
		t.Helper()
		want := []string{`canary/`, `canary/secret -rw-r--r-- "s"`}
		var got []string
		for _, l := range list(t, top) {
			if !strings.HasPrefix(l, "in/") {
				got = append(got, l)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("outside of the tree (-want +got):\n%s", diff)
		}
	}
}

func newTree(t testing.TB, dir string, mode Mode, l Limits) *Tree {
	t.Helper()
	tree, err := New(dir, mode, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestTar(t *testing.T) {
	long := strings.Repeat("x", 256)
	tests := []struct {
		name    string
		mode    Mode
		strip   int
		limits  Limits
		entries []e
		want    []string
		err     string
	}{
		{
			name: "modes are 0644 and 0755, setuid is dropped", entries: []e{
				{name: "d/", typ: tar.TypeDir, mode: 0o7700}, {name: "d/a", mode: 0o4755, body: "a"}, {name: "d/b", mode: 0o000}, {name: "c", mode: 0o666, body: "c"},
			},
			want: []string{`c -rw-r--r-- "c"`, `d/`, `d/a -rwxr-xr-x "a"`, `d/b -rw-r--r-- ""`},
		},
		{
			name: "missing parents are made", entries: []e{{name: "./a//b/./c", body: "x"}},
			want: []string{`a/`, `a/b/`, `a/b/c -rw-r--r-- "x"`},
		},
		{
			name: "strip", strip: 1, entries: []e{
				{name: "p-1.0/", typ: tar.TypeDir}, {name: "p-1.0/a", body: "1"}, {name: "top"}, {name: "p-1.0/l", typ: tar.TypeLink, link: "p-1.0/a"}, {name: "p-1.0/s", typ: tar.TypeSymlink, link: "p-1.0/a"},
			},
			want: []string{`a -rw-r--r-- "1"`, `l -rw-r--r-- "1"`, `s -> p-1.0/a`},
		},
		{name: "strip too much", strip: 9, entries: []e{{name: "a/b"}}, err: `strip 9 leaves nothing of the archive`},
		{
			name: "a later file replaces an earlier one, not its hard link", entries: []e{{name: "a", body: "1"}, {name: "b", typ: tar.TypeLink, link: "a"}, {name: "a", body: "2"}},
			want: []string{`a -rw-r--r-- "2"`, `b -rw-r--r-- "1"`},
		},
		{
			name: "git archive's global header", entries: []e{{typ: tar.TypeXGlobalHeader, pax: map[string]string{"comment": "id"}}, {name: "a"}},
			want: []string{`a -rw-r--r-- ""`},
		},

		{name: "absolute name", entries: []e{{name: "/etc/x"}}, err: `archive entry "/etc/x": absolute name`},
		{name: "absolute name in a root file system", mode: RootFS, entries: []e{{name: "/etc/x"}}, want: []string{`etc/`, `etc/x -rw-r--r-- ""`}},
		{name: "dot dot", entries: []e{{name: "../x"}}, err: `archive entry "../x": ".." in the name`},
		{name: "dot dot inside", mode: RootFS, entries: []e{{name: "a/../../x"}}, err: `archive entry "a/../../x": ".." in the name`},
		{name: "dot dot that strip would drop", strip: 1, entries: []e{{name: "../x"}}, err: `archive entry "../x": ".." in the name`},
		{
			name: "file through a relative link", entries: []e{{name: "l", typ: tar.TypeSymlink, link: "../canary"}, {name: "l/x"}},
			err: `archive entry "l/x": leads through the symbolic link "l"`,
		},
		{
			name: "file through an absolute link", entries: []e{{name: "l", typ: tar.TypeSymlink, link: "/tmp"}, {name: "l/x"}},
			err: `archive entry "l/x": leads through the symbolic link "l"`,
		},
		{
			name: "relative link stops at the root of a root file system", mode: RootFS, entries: []e{{name: "l", typ: tar.TypeSymlink, link: "../../canary"}, {name: "l/x"}},
			want: []string{`canary/`, `canary/x -rw-r--r-- ""`, `l -> ../../canary`},
		},
		{
			name: "absolute link means the image's root", mode: RootFS, entries: []e{
				{name: "usr/lib64/", typ: tar.TypeDir}, {name: "lib64", typ: tar.TypeSymlink, link: "/usr/lib64"}, {name: "lib64/ld.so", body: "x"},
			},
			want: []string{`lib64 -> /usr/lib64`, `usr/`, `usr/lib64/`, `usr/lib64/ld.so -rw-r--r-- "x"`},
		},
		{
			name: "chain of links", mode: RootFS, entries: []e{
				{name: "a", typ: tar.TypeSymlink, link: "b/./c"}, {name: "b", typ: tar.TypeSymlink, link: "//x/y/.."}, {name: "a/f"},
			},
			want: []string{`a -> b/./c`, `b -> //x/y/..`, `x/`, `x/c/`, `x/c/f -rw-r--r-- ""`, `x/y/`},
		},
		{
			name: "link loop", mode: RootFS, entries: []e{{name: "a", typ: tar.TypeSymlink, link: "b"}, {name: "b", typ: tar.TypeSymlink, link: "a"}, {name: "a/x"}},
			err: `archive entry "a/x": leads through too many symbolic links`,
		},
		{
			name: "file onto a link", entries: []e{{name: "l", typ: tar.TypeSymlink, link: "../canary/secret"}, {name: "l", body: "evil"}},
			err: `archive entry "l": replaces the symbolic link of the same name`,
		},
		{
			name: "file onto a link in a root file system replaces the link", mode: RootFS, entries: []e{{name: "l", typ: tar.TypeSymlink, link: "../canary/secret"}, {name: "l", body: "evil"}},
			want: []string{`l -rw-r--r-- "evil"`},
		},
		{
			name: "directory onto a link", entries: []e{{name: "l", typ: tar.TypeSymlink, link: "../canary"}, {name: "l/", typ: tar.TypeDir}},
			err: `archive entry "l": replaces the symbolic link of the same name`,
		},
		{name: "file onto a directory", entries: []e{{name: "d/x"}, {name: "d"}}, err: `archive entry "d": replaces the directory of the same name`},
		{name: "file below a file", entries: []e{{name: "d"}, {name: "d/x"}}, err: `archive entry "d/x": replaces the file of the same name`},
		{
			name: "types change in a root file system", mode: RootFS, entries: []e{{name: "d/x"}, {name: "d", body: "f"}, {name: "f"}, {name: "f/x"}},
			want: []string{`d -rw-r--r-- "f"`, `f/`, `f/x -rw-r--r-- ""`},
		},

		{name: "hard link out by dot dot", entries: []e{{name: "h", typ: tar.TypeLink, link: "../canary/secret"}}, err: `archive entry "../canary/secret": ".." in the name`},
		{name: "hard link out by an absolute name", entries: []e{{name: "h", typ: tar.TypeLink, link: "/etc/passwd"}}, err: `archive entry "/etc/passwd": absolute name`},
		{
			name: "hard link to an absolute name stays inside", mode: RootFS, entries: []e{{name: "h", typ: tar.TypeLink, link: "/etc/passwd"}},
			err: `archive entry "h": hard link to "etc/passwd", which is no file of the archive so far`,
		},
		{
			name: "hard link through a link", entries: []e{{name: "l", typ: tar.TypeSymlink, link: "../canary"}, {name: "h", typ: tar.TypeLink, link: "l/secret"}},
			err: `archive entry "h": leads through the symbolic link "l"`,
		},
		{
			name: "hard link through a link in a root file system", mode: RootFS, entries: []e{{name: "l", typ: tar.TypeSymlink, link: "../canary"}, {name: "h", typ: tar.TypeLink, link: "l/secret"}},
			err: `archive entry "h": hard link to "l/secret", which is no file of the archive so far`,
		},
		{
			name: "hard link to a link", entries: []e{{name: "l", typ: tar.TypeSymlink, link: "../canary/secret"}, {name: "h", typ: tar.TypeLink, link: "l"}},
			err: `archive entry "h": hard link to "l", which is no file of the archive so far`,
		},
		{
			name: "hard link to a link in a root file system is the link again", mode: RootFS, entries: []e{{name: "l", typ: tar.TypeSymlink, link: "../canary/secret"}, {name: "h", typ: tar.TypeLink, link: "l"}},
			want: []string{`h -> ../canary/secret`, `l -> ../canary/secret`},
		},
		{
			name: "hard link to a directory", mode: RootFS, entries: []e{{name: "d/", typ: tar.TypeDir}, {name: "h", typ: tar.TypeLink, link: "d"}},
			err: `archive entry "h": hard link to "d", which is no file of the archive so far`,
		},
		{name: "hard link to itself", mode: RootFS, entries: []e{{name: "a"}, {name: "a", typ: tar.TypeLink, link: "a"}}, err: `archive entry "a": hard link to itself`},
		{
			name: "hard link that replaces its target's directory", mode: RootFS, entries: []e{{name: "a/b"}, {name: "a", typ: tar.TypeLink, link: "a/b"}},
			err: `archive entry "a": hard link to "a/b", which is no file of the archive so far`,
		},
		{
			name: "hard links count as bytes", limits: Limits{Bytes: 10}, entries: []e{{name: "a", body: "1234"}, {name: "b", typ: tar.TypeLink, link: "a"}, {name: "c", typ: tar.TypeLink, link: "a"}},
			err: `archive exceeds the limit of 10 bytes`,
		},

		{name: "device", entries: []e{{name: "null", typ: tar.TypeChar}}, err: `archive entry "null": device or FIFO`},
		{name: "devices are left out of a root file system", mode: RootFS, entries: []e{
			{name: "dev/null", typ: tar.TypeChar}, {name: "dev/sda", typ: tar.TypeBlock}, {name: "p", typ: tar.TypeFifo}, {name: "a"},
		}, want: []string{`a -rw-r--r-- ""`}},
		{name: "empty link", entries: []e{{name: "l", typ: tar.TypeSymlink}}, err: `archive entry "l": symbolic link without a target`},
		{name: "long link", entries: []e{{name: "l", typ: tar.TypeSymlink, link: strings.Repeat("x/", 2048)}}, err: `archive exceeds the limit of 4095 bytes in a symbolic link's target`},
		{name: "root replaced by a file", mode: RootFS, entries: []e{{name: "./.", typ: tar.TypeSymlink, link: "x"}}, err: `archive entry "./.": names the root of the tree`},
		{name: "root is a link", entries: []e{{name: ".", typ: tar.TypeSymlink, link: "x"}}, err: `archive entry ".": names the root of the tree`},
		{name: "long name", entries: []e{{name: long}}, err: `archive exceeds the limit of 255 bytes in a name`},
		{name: "long path", entries: []e{{name: strings.Repeat("x/", 2048) + "y"}}, err: `archive exceeds the limit of 4095 bytes in a path`},
		{name: "deep path", limits: Limits{Depth: 3}, entries: []e{{name: "a/b/c/d"}}, err: `archive exceeds the limit of 3 path elements`},
		{name: "deep path through links", mode: RootFS, limits: Limits{Depth: 3}, entries: []e{{name: "l", typ: tar.TypeSymlink, link: "a/b/c/d"}, {name: "l/x"}}, err: `archive exceeds the limit of 3 path elements`},
		{name: "too many entries", limits: Limits{Files: 2}, entries: []e{{name: "a"}, {name: "b"}, {name: "c"}}, err: `archive exceeds the limit of 2 entries`},
		{name: "too many entries that make nothing", mode: RootFS, limits: Limits{Files: 2}, entries: []e{{name: "a", typ: tar.TypeFifo}, {name: "b", typ: tar.TypeFifo}, {name: "c", typ: tar.TypeFifo}}, err: `archive exceeds the limit of 2 entries`},
		{name: "implied directories count", limits: Limits{Files: 3}, entries: []e{{name: "a/b/c/d"}}, err: `archive exceeds the limit of 3 entries`},
		{name: "too many bytes", limits: Limits{Bytes: 3}, entries: []e{{name: "a", body: "1234"}}, err: `archive exceeds the limit of 3 bytes`},
		{name: "whiteouts mean nothing in a plain archive", entries: []e{{name: "a"}, {name: ".wh.a"}}, want: []string{`.wh.a -rw-r--r-- ""`, `a -rw-r--r-- ""`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, check := arena(t)
			tree := newTree(t, in, tt.mode, tt.limits)
			err := tree.Tar(t.Context(), bytes.NewReader(tarOf(t, tt.entries...)), tt.strip)
			if diff := cmp.Diff(tt.err, errText(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if tt.err == "" {
				if diff := cmp.Diff(tt.want, list(t, in)); diff != "" {
					t.Errorf("tree (-want +got):\n%s", diff)
				}
			}
			check()
		})
	}
}

func TestUmaskDoesNotMatter(t *testing.T) {
	in, _ := arena(t)
	old := umask(0o077)
	defer umask(old)
	tree := newTree(t, in, Strict, Limits{})
	if err := tree.Tar(t.Context(), bytes.NewReader(tarOf(t, e{name: "d/x", mode: 0o755})), 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`d/`, `d/x -rwxr-xr-x ""`}, list(t, in)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

// squeeze packs b in each way.
func squeeze(t testing.TB, c Compression, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch c {
	case None:
		return b
	case Gzip:
		w = gzip.NewWriter(&out)
	case XZ:
		w, err = xz.NewWriter(&out)
	case Zstd:
		w, err = zstd.NewWriter(&out)
	default:
		t.Fatalf("no writer for %s", c)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// helloBzip2 is a tar with the file "a" that holds "x", packed by bzip2 1.0.8, in base64.
const helloBzip2 = "QlpoOTFBWSZTWUXJq5IAAG97hMmAAEBgAGWAAADgAJ5AAACACCAAVDSNAANDQIqZTQBoAdfcZzKIe1VE3pbEtplU2oqEBSO4IlXkyDcTQOqbzCZoOBH7VwVfQIiA+LuSKcKEgi5NXJA="

func TestBzip2(t *testing.T) {
	packed, err := base64.StdEncoding.DecodeString(helloBzip2)
	if err != nil {
		t.Fatal(err)
	}
	in, _ := arena(t)
	if err := newTree(t, in, Strict, Limits{}).Tar(t.Context(), bytes.NewReader(packed), 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`a -rw-r--r-- "x"`}, list(t, in)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestCompressions(t *testing.T) {
	plain := tarOf(t, e{name: "a", body: strings.Repeat("hello ", 1000)})
	for _, c := range []Compression{None, Gzip, XZ, Zstd} {
		t.Run("whole "+string(c), func(t *testing.T) {
			in, _ := arena(t)
			tree := newTree(t, in, Strict, Limits{})
			if err := tree.Tar(t.Context(), bytes.NewReader(squeeze(t, c, plain)), 0); err != nil {
				t.Fatal(err)
			}
			if tree.Bytes() != 6000 {
				t.Errorf("unpacked %d bytes, want 6000", tree.Bytes())
			}
		})
		if c == None {
			continue
		}
		t.Run("cut "+string(c), func(t *testing.T) {
			packed := squeeze(t, c, plain)
			// Even where all entries are complete, the missing end must be noticed: it holds the checksum.
			for cut := 7; cut < len(packed); cut += 1 + len(packed)/50 {
				in, _ := arena(t)
				tree := newTree(t, in, Strict, Limits{})
				if err := tree.Tar(t.Context(), bytes.NewReader(packed[:cut]), 0); err == nil {
					t.Errorf("no error for %d of %d bytes", cut, len(packed))
				}
			}
		})
	}
}

func TestBombs(t *testing.T) {
	small := Limits{Slack: 1 << 20}
	zeros := tarOf(t, e{name: "zeros", body: strings.Repeat("\x00", 3<<20)})
	for _, c := range []Compression{Gzip, XZ, Zstd} {
		t.Run(string(c), func(t *testing.T) {
			in, _ := arena(t)
			err := newTree(t, in, Strict, small).Tar(t.Context(), bytes.NewReader(squeeze(t, c, zeros)), 0)
			if diff := cmp.Diff("expands to more than 200 times its size", tail(errText(err), 39)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("skipped entries count", func(t *testing.T) {
		in, _ := arena(t)
		err := newTree(t, in, Strict, small).Tar(t.Context(), bytes.NewReader(squeeze(t, Zstd, zeros)), 1)
		if diff := cmp.Diff("expands to more than 200 times its size", tail(errText(err), 39)); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
		}
	})
	t.Run("bytes after the end count", func(t *testing.T) {
		in, _ := arena(t)
		packed := squeeze(t, Zstd, append(tarOf(t, e{name: "a"}), make([]byte, 3<<20)...))
		err := newTree(t, in, Strict, small).Tar(t.Context(), bytes.NewReader(packed), 0)
		if diff := cmp.Diff("expands to more than 200 times its size", tail(errText(err), 39)); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
		}
	})
	t.Run("zip", func(t *testing.T) {
		in, _ := arena(t)
		z := zipOf(t, e{name: "zeros", body: strings.Repeat("\x00", 3<<20)})
		err := newTree(t, in, Strict, small).Zip(t.Context(), bytes.NewReader(z), int64(len(z)), 0)
		if diff := cmp.Diff("expands to more than 200 times its size", tail(errText(err), 39)); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
		}
	})
	t.Run("sparse file", func(t *testing.T) {
		in, _ := arena(t)
		err := newTree(t, in, Strict, Limits{}).Tar(t.Context(), bytes.NewReader(sparse(t, "8000000000")), 0)
		if diff := cmp.Diff("expands to more than 200 times its size", tail(errText(err), 39)); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
		}
	})
	t.Run("sparse file beyond the byte limit", func(t *testing.T) {
		in, _ := arena(t)
		err := newTree(t, in, Strict, Limits{}).Tar(t.Context(), bytes.NewReader(sparse(t, "8000000000000")), 0)
		if diff := cmp.Diff("archive exceeds the limit of 17179869184 bytes", errText(err)); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
		}
	})
	t.Run("xz dictionary", func(t *testing.T) {
		packed := squeeze(t, XZ, zeros)
		at := bytes.IndexByte(packed[12:], 0x21) + 12 + 2
		packed[at] = 40 // 4 GiB - 1
		in, _ := arena(t)
		err := newTree(t, in, Strict, Limits{}).Tar(t.Context(), bytes.NewReader(packed), 0)
		if diff := cmp.Diff("read archive: archive exceeds the limit of 134217728 bytes of xz dictionary", errText(err)); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
		}
	})
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// sparse is a tar with a GNU sparse 0.1 file without any data: its whole size is a hole.
func sparse(t testing.TB, size string) []byte {
	t.Helper()
	var record bytes.Buffer
	for _, kv := range []string{"GNU.sparse.size=" + size, "GNU.sparse.numblocks=1", "GNU.sparse.map=0,0"} {
		n := len(kv) + 2
		for len(fmt.Sprint(n))+len(kv)+2 != n {
			n++
		}
		fmt.Fprintf(&record, "%d %s\n", n, kv)
	}
	var b bytes.Buffer
	b.Write(rawHeader("x", 'x', record.Len()))
	b.Write(record.Bytes())
	b.Write(make([]byte, (512-record.Len()%512)%512))
	b.Write(rawHeader("hole", '0', 0))
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

// rawHeader is a USTAR header, for what archive/tar refuses to write.
func rawHeader(name string, typ byte, size int) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        ", size))
	h[156] = typ
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func zipOf(t testing.TB, entries ...e) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		mode := fs.FileMode(e.mode)
		if mode == 0 {
			mode = 0o644
		}
		switch e.typ {
		case tar.TypeSymlink:
			mode |= fs.ModeSymlink
		case tar.TypeFifo:
			mode |= fs.ModeNamedPipe
		}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, e.body+e.link); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestZip(t *testing.T) {
	tests := []struct {
		name    string
		strip   int
		entries []e
		change  func([]byte) []byte
		want    []string
		err     string
	}{
		{
			name: "files, links, modes", strip: 1, entries: []e{{name: "p/", typ: tar.TypeDir}, {name: "p/a", mode: 0o4711, body: "a"}, {name: "p/l", typ: tar.TypeSymlink, link: "a"}, {name: "p/d/"}},
			want: []string{`a -rwxr-xr-x "a"`, `d/`, `l -> a`},
		},
		{name: "dot dot", entries: []e{{name: "../x"}}, err: `archive entry "../x": ".." in the name`},
		{name: "absolute", entries: []e{{name: "/x"}}, err: `archive entry "/x": absolute name`},
		{name: "backslash", entries: []e{{name: `..\x`}}, err: `archive entry "..\\x": backslash in the name`},
		{name: "through a link", entries: []e{{name: "l", typ: tar.TypeSymlink, link: "../canary"}, {name: "l/x"}}, err: `archive entry "l/x": leads through the symbolic link "l"`},
		{name: "twice", entries: []e{{name: "a"}, {name: "./a"}}, err: `archive entry "./a": occurs twice`},
		{name: "fifo", entries: []e{{name: "p", typ: tar.TypeFifo}}, err: `archive entry "p": neither file, directory nor symbolic link`},
		{name: "no zip", change: func([]byte) []byte { return []byte("hello") }, err: `read archive: zip: not a valid zip file`},
		{name: "wrong checksum", entries: []e{{name: "a", body: "hello hello hello"}}, change: func(b []byte) []byte {
			b[bytes.LastIndex(b, []byte("PK\x01\x02"))+16] ^= 1
			return b
		}, err: `archive entry "a": zip: checksum error`},
		{name: "longer than promised", entries: []e{{name: "a", body: "hello hello hello"}}, change: func(b []byte) []byte {
			b[bytes.LastIndex(b, []byte("PK\x01\x02"))+24]--
			return b
		}, err: `archive entry "a": zip: not a valid zip file`},
		{name: "shorter than promised", entries: []e{{name: "a", body: "hello hello hello"}}, change: func(b []byte) []byte {
			b[bytes.LastIndex(b, []byte("PK\x01\x02"))+24]++
			return b
		}, err: `archive entry "a": unexpected EOF`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, check := arena(t)
			tree := newTree(t, in, Strict, Limits{})
			b := zipOf(t, tt.entries...)
			if tt.change != nil {
				b = tt.change(b)
			}
			err := tree.Zip(t.Context(), bytes.NewReader(b), int64(len(b)), tt.strip)
			if diff := cmp.Diff(tt.err, errText(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if tt.err == "" {
				if diff := cmp.Diff(tt.want, list(t, in)); diff != "" {
					t.Errorf("tree (-want +got):\n%s", diff)
				}
			}
			check()
		})
	}
}

func TestLayers(t *testing.T) {
	base := []e{{name: "a/1"}, {name: "a/2"}, {name: "b/c/3"}, {name: "lib", typ: tar.TypeSymlink, link: "/usr/lib"}, {name: "usr/lib/x"}}
	tests := []struct {
		name   string
		layers [][]e
		want   []string
		err    string
	}{
		{name: "whiteout of a file", layers: [][]e{base, {{name: "a/.wh.1"}}}, want: []string{"a/", "a/2", "b/", "b/c/", "b/c/3", "lib -> /usr/lib", "usr/", "usr/lib/", "usr/lib/x"}},
		{name: "whiteout of a directory", layers: [][]e{base, {{name: ".wh.b"}, {name: "./.wh.lib"}}}, want: []string{"a/", "a/1", "a/2", "usr/", "usr/lib/", "usr/lib/x"}},
		{name: "whiteout does not hide its own layer", layers: [][]e{base, {{name: "b/new"}, {name: ".wh.b"}, {name: ".wh.a"}, {name: ".wh.lib"}, {name: ".wh.usr"}}}, want: []string{"b/", "b/new"}},
		{name: "opaque directory, whiteout last", layers: [][]e{base, {{name: "a/", typ: tar.TypeDir}, {name: "a/new"}, {name: "a/.wh..wh..opq"}, {name: ".wh.b"}, {name: ".wh.lib"}, {name: ".wh.usr"}}}, want: []string{"a/", "a/new"}},
		{name: "opaque directory, whiteout first", layers: [][]e{base, {{name: "b/.wh..wh..opq"}, {name: "b/c/new"}, {name: ".wh.a"}, {name: ".wh.lib"}, {name: ".wh.usr"}}}, want: []string{"b/", "b/c/", "b/c/new"}},
		{name: "opaque root", layers: [][]e{base, {{name: ".wh..wh..opq"}, {name: "x"}}}, want: []string{"x"}},
		{name: "whiteout through a link stays inside", layers: [][]e{{{name: "l", typ: tar.TypeSymlink, link: "../canary"}, {name: "k", typ: tar.TypeSymlink, link: "/d"}, {name: "d/gone"}}, {{name: "l/.wh.secret"}, {name: "k/.wh.gone"}}}, want: []string{"d/", "k -> /d", "l -> ../canary"}},
		{name: "opaque through a link stays inside", layers: [][]e{{{name: "l", typ: tar.TypeSymlink, link: "/../../canary"}}, {{name: "l/.wh..wh..opq"}}}, want: []string{"l -> /../../canary"}},
		{name: "a directory replaces a link", layers: [][]e{base, {{name: "lib/", typ: tar.TypeDir}, {name: "lib/y"}, {name: ".wh.a"}, {name: ".wh.b"}}}, want: []string{"lib/", "lib/y", "usr/", "usr/lib/", "usr/lib/x"}},
		{name: "a file replaces a directory", layers: [][]e{{{name: "a/1"}}, {{name: "a"}}}, want: []string{"a"}},
		{name: "hard link to a lower layer", layers: [][]e{{{name: "a"}}, {{name: "b", typ: tar.TypeLink, link: "a"}, {name: ".wh.a"}}}, want: []string{"b"}},
		{name: "hard link to what was hidden", layers: [][]e{{{name: "a"}}, {{name: ".wh.a"}, {name: "b", typ: tar.TypeLink, link: "a"}}}, err: `archive entry "b": hard link to "a", which is no file of the archive so far`},
		{name: "notes of aufs", layers: [][]e{{{name: ".wh..wh.aufs"}, {name: ".wh..wh.plnk/", typ: tar.TypeDir}}}},
		{name: "whiteout of nothing there", layers: [][]e{{{name: "x/.wh.y"}, {name: "a"}}}, want: []string{"a"}},
		{name: "whiteout of the parent", layers: [][]e{{{name: ".wh..."}}}, err: `archive entry ".wh...": whiteout of nothing`},
		{name: "whiteout of the directory", layers: [][]e{{{name: "a/.wh.."}}}, err: `archive entry "a/.wh..": whiteout of nothing`},
		{name: "whiteout of no name", layers: [][]e{{{name: ".wh."}}}, err: `archive entry ".wh.": whiteout of nothing`},
		{name: "whiteout with dot dot", layers: [][]e{{{name: "../canary/.wh.secret"}}}, err: `archive entry "../canary/.wh.secret": ".." in the name`},
		{name: "below a whiteout", layers: [][]e{{{name: ".wh.../x"}}}, err: `archive entry ".wh.../x": lies below a whiteout`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, check := arena(t)
			tree := newTree(t, in, RootFS, Limits{})
			var err error
			for _, l := range tt.layers {
				if err = tree.Layer(t.Context(), bytes.NewReader(squeeze(t, Gzip, tarOf(t, l...))), Gzip, nil); err != nil {
					break
				}
			}
			if diff := cmp.Diff(tt.err, errText(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if tt.err == "" {
				var got []string
				for _, l := range list(t, in) {
					got = append(got, strings.TrimSuffix(l, ` -rw-r--r-- ""`))
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("tree (-want +got):\n%s", diff)
				}
			}
			check()
		})
	}
	t.Run("media type and compression differ", func(t *testing.T) {
		in, _ := arena(t)
		err := newTree(t, in, RootFS, Limits{}).Layer(t.Context(), bytes.NewReader(squeeze(t, Gzip, tarOf(t))), Zstd, nil)
		if diff := cmp.Diff(`archive is compressed with "gzip", but said to be with "zstd"`, errText(err)); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
		}
	})
}

// arOf is an ar archive of the members, given as name and content in turn.
func arOf(members ...string) []byte {
	b := []byte(arMagic)
	for i := 0; i < len(members); i += 2 {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", members[i], 0, 0, 0, "100644", len(members[i+1]), members[i+1])
		if len(members[i+1])%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}

func TestDeb(t *testing.T) {
	data := string(squeeze(t, XZ, tarOf(t, e{name: "./", typ: tar.TypeDir}, e{name: "./lib/", typ: tar.TypeDir}, e{name: "./lib/x", mode: 0o755}, e{name: "./doc", body: "d"})))
	tests := []struct {
		name string
		deb  []byte
		want []string
		err  string
	}{
		{name: "whole", deb: arOf("debian-binary", "2.0\n", "control.tar.xz", "odd", "data.tar.xz", data), want: []string{`doc -rw-r--r-- "d"`, `lib -> usr/lib`, `usr/`, `usr/lib/`, `usr/lib/x -rwxr-xr-x ""`}},
		{name: "names with a slash", deb: arOf("debian-binary/", "2.0\n", "control.tar.xz/", "", "data.tar.xz/", data), want: []string{`doc -rw-r--r-- "d"`, `lib -> usr/lib`, `usr/`, `usr/lib/`, `usr/lib/x -rwxr-xr-x ""`}},
		{name: "no ar", deb: []byte("hello, world"), err: "read package: not an ar archive"},
		{name: "other ar", deb: arOf("x.o", "2.0\n"), err: `read package: first member is "x.o", not "debian-binary"`},
		{name: "version", deb: arOf("debian-binary", "3.0\n"), err: `read package: format version "3.0\n" is unknown`},
		{name: "no data", deb: arOf("debian-binary", "2.0\n"), err: `read package: no data.tar member`},
		{name: "cut header", deb: arOf("debian-binary", "2.0\n", "data.tar", "")[:100], err: `read package: unexpected EOF`},
		{name: "cut data", deb: arOf("debian-binary", "2.0\n", "data.tar.xz", data)[:200], err: `read archive: unexpected EOF`},
		{name: "bad size", deb: bytes.Replace(arOf("debian-binary", "2.0\n"), []byte("4         `"), []byte("-4        `"), 1), err: `read package: ar member size "-4        " is no number`},
		{name: "many members", deb: arOf(append([]string{"debian-binary", "2.0\n"}, make([]string, 40)...)...), err: `archive exceeds the limit of 16 package members`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, check := arena(t)
			tree := newTree(t, in, RootFS, Limits{})
			if err := tree.Dir("usr/lib"); err != nil {
				t.Fatal(err)
			}
			if err := tree.Symlink("lib", "usr/lib"); err != nil {
				t.Fatal(err)
			}
			err := tree.Deb(t.Context(), bytes.NewReader(tt.deb), 0)
			if diff := cmp.Diff(tt.err, errText(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if tt.err == "" {
				if diff := cmp.Diff(tt.want, list(t, in)); diff != "" {
					t.Errorf("tree (-want +got):\n%s", diff)
				}
			}
			check()
		})
	}
}
