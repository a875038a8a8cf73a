package diff

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"arch.network/attest/digest/nar"
)

// compare compares two files with these contents.
func compare(t *testing.T, a, b []byte, opts Options) *Report {
	t.Helper()
	dir := t.TempDir()
	pathA, pathB := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must(t, os.WriteFile(pathA, a, 0o644))
	must(t, os.WriteFile(pathB, b, 0o644))
	report, err := Compare(t.Context(), pathA, pathB, opts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// brief writes differences as "path » member: cause @offset+count".
func brief(list []Difference) []string {
	var lines []string
	for _, d := range list {
		line := fmt.Sprintf("%s: %s", Name(d.Path, d.Members), d.Cause)
		if d.Offset >= 0 {
			line += fmt.Sprintf(" @%d+%d", d.Offset, d.Count)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestFiles(t *testing.T) {
	random := func(seed uint64, n int) []byte {
		b := make([]byte, n)
		r := rand.NewChaCha8([32]byte{byte(seed)})
		_, _ = r.Read(b)
		return b
	}
	text := strings.Repeat("some text that packs well\n", 400)
	at := func(h tar.Header, change func(*tar.Header)) tar.Header { change(&h); return h }
	goID := func(c string) string { return strings.Repeat(c, 20) + strings.Repeat("/"+strings.Repeat(c, 20), 3) }
	pyc := func(mtime uint32) []byte {
		b := binary.LittleEndian.AppendUint32([]byte("\x6f\x0d\x0d\x0a\x00\x00\x00\x00"), mtime)
		return append(append(b, 9, 0, 0, 0), 0xe3, 0, 0, 0, 0, 1)
	}
	tests := []struct {
		name     string
		a, b     []byte
		want     []string
		sentence string // in the first one
	}{
		{name: "equal", a: []byte("x"), b: []byte("x")},
		{"one empty", []byte("abc"), nil, []string{"the file itself: content @0+3"}, "The second is empty."},
		{"text", []byte("one\ntwo\nthree\n"), []byte("one\ntwe\nthree\n"), []string{"the file itself: content @6+1"}, `Line 2 differs: "two\n" and "twe\n".`},
		{"line only in one", []byte("a\nb\nc\nd\n"), []byte("a\nc\nd\n"), []string{"the file itself: content @2+2"}, `Line 2 is only in the first: "b\n".`},
		{"last newline", []byte("a\nb\n"), []byte("a\nb"), []string{"the file itself: content @3+1"}, `Line 2 differs: "b\n" and "b".`},
		{"ISO date", []byte("built 2026-11-22T10:00:00Z by\n"), []byte("built 2026-11-22T10:00:07Z by\n"), []string{"the file itself: timestamp-in-content @24+1"}, "Line 1 differs only in a date or time"},
		{"ctime", []byte("x\nSun Nov 22 10:00:00 UTC 2026\n"), []byte("x\nMon Nov 23 01:00:00 UTC 2026\n"), []string{"the file itself: timestamp-in-content @2+13"}, "Line 2"},
		{"date of the C preprocessor", []byte("Nov 22 2026"), []byte("Nov  3 2026"), []string{"the file itself: timestamp-in-content @4+2"}, ""},
		{"Unix time", []byte("epoch=1795341600;"), []byte("epoch=1795345200;"), []string{"the file itself: timestamp-in-content @12+2"}, ""},
		{"number that is no time", []byte("epoch=1795341600;"), []byte("epoch=3795341600;"), []string{"the file itself: content @6+1"}, ""},
		{"path", []byte("# 1 \"/tmp/build-1/src/a.c\"\n"), []byte("# 1 \"/home/you/src/a.c\"\n"), []string{"the file itself: path @6+11"}, ""},
		{"path and date", []byte("/tmp/b1/x at 2026-11-22"), []byte("/tmp/b2/x at 2026-11-23"), []string{"the file itself: path @6+17", "the file itself: timestamp-in-content @6+17"}, "among other things in the path"},
		{"UUID", []byte("id: 123e4567-e89b-12d3-a456-426614174000"), []byte("id: 00ff4567-e89b-12d3-a456-426614174000"), []string{"the file itself: randomness @4+4"}, ""},
		{"order of lines", []byte("b\na\nc\n"), []byte("a\nb\nc\n"), []string{"the file itself: order @0+2"}, "The same lines"},
		{"order of JSON members", []byte(`{"a":1,"b":[1,2]}`), []byte(`{"b":[1,2],"a":1}`), []string{"the file itself: order @2+12"}, "The JSON values are equal"},
		{"binary", []byte("\x00\x01\x02\x03"), []byte("\x00\x01\xff\x03"), []string{"the file itself: content @2+1"}, "no sign of a cause"},
		{"binary time", pyc(1795341600), pyc(1795345200), []string{"the file itself: timestamp-in-content @8+2"}, "is 2026-11-22T10:00:00Z in the first and 2026-11-22T11:00:00Z in the second"},
		{"bit in random data", random(1, 4096), flip(random(1, 4096), 1000), []string{"the file itself: content @1000+1"}, ""},
		{"random piece", slices.Concat(make([]byte, 100), random(1, 32), make([]byte, 100)), slices.Concat(make([]byte, 100), random(2, 32), make([]byte, 100)), []string{"the file itself: randomness @100+32"}, "32 bytes look random"},
		{"text in binary", []byte("\x00\x01/build/one/main.c\x00\xfe"), []byte("\x00\x01/build/two/main.c\x00\xfe"), []string{"the file itself: path @9+3"}, ""},
		{"longer text in binary", []byte("\x00\x01/build/one/main.c\x00\xfe"), []byte("\x00\x01/build/three/main.c\x00\xfe"), []string{"the file itself: path @9+4"}, ""},
		{"Go build id", []byte("\x00\xff Go build ID: \"" + goID("a") + "\"\n\x00"), []byte("\x00\xff Go build ID: \"" + goID("b") + "\"\n\x00"), []string{"the file itself: build-id @17+80"}, ""},
		{
			"shifted binary with a date", slices.Concat(random(1, 5000), []byte("\x00made 2026-11-22 10:00\x00"), random(3, 100)), slices.Concat(random(2, 4990), []byte("\x00made 2026-11-23 11:30\x00"), random(4, 100)),
			[]string{"the file itself: timestamp-in-content @0+5111"},
			"Among what differs is a text. It differs only in a date or time",
		},
		{"gzip header", gzipOf(t, []byte(text), 6, noon), gzipOf(t, []byte(text), 6, noon.Add(time.Second)), []string{"the file itself: mtime"}, `modification time of the gzip header differs: "2026-11-22T12:00:00Z"`},
		{"gzip level", gzipOf(t, []byte(text), gzip.HuffmanOnly, noon), gzipOf(t, []byte(text), 6, noon), []string{"the file itself: compressor @10+" + fmt.Sprint(len(gzipOf(t, []byte(text), gzip.HuffmanOnly, noon))-10)}, "The unpacked content is equal"},
		{"gzip content", gzipOf(t, []byte("a\n"), 6, noon), gzipOf(t, []byte("b\n"), 6, noon), []string{"content of the gzip: content @0+1"}, ""},
		{"zstd content", zstdOf(t, []byte("a\n"), zstd.SpeedDefault), zstdOf(t, []byte("b\n"), zstd.SpeedDefault), []string{"content of the zstd: content @0+1"}, ""},
		{"xz content", xzOf(t, []byte("a\n")), xzOf(t, []byte("b\n")), []string{"content of the xz: content @0+1"}, ""},
		{"tar", tarOf(t, file("a", "x"), file("b", "y")), tarOf(t, file("a", "x"), file("b", "z")), []string{"b: content @0+1"}, ""},
		{"tar time", tarOf(t, file("a", "x")), tarOf(t, at(file("a", "x"), func(h *tar.Header) { h.ModTime = noon.Add(time.Hour) })), []string{"a: mtime"}, "2026-11-22T13:00:00Z"},
		{"tar owner", tarOf(t, file("a", "x")), tarOf(t, at(file("a", "x"), func(h *tar.Header) { h.Uid, h.Uname = 1000, "me" })), []string{"a: owner"}, `"1000 me"`},
		{"tar mode", tarOf(t, file("a", "x")), tarOf(t, at(file("a", "x"), func(h *tar.Header) { h.Mode = 0o755 })), []string{"a: mode"}, `"0644" and "0755"`},
		{"tar order", tarOf(t, file("a", "x"), file("b", "y")), tarOf(t, file("b", "y"), file("a", "x")), []string{"the file itself: order"}, `from here on: "a" and "b"`},
		{"tar member missing", tarOf(t, file("a", "x"), file("b", "y")), tarOf(t, file("b", "y")), []string{"a: missing"}, "Only the first has this member."},
		{"tar link", tarOf(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "a"}), tarOf(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "b"}), []string{"l: symlink-target"}, ""},
		{"tar type", tarOf(t, file("a", "")), tarOf(t, at(file("a", ""), func(h *tar.Header) { h.Typeflag = tar.TypeFifo })), []string{"a: type"}, `"file" and "FIFO"`},
		{"tar member twice", tarOf(t, file("a", "x"), file("a", "y")), tarOf(t, file("a", "x"), file("a", "z")), []string{"a: content @0+1"}, ""},
		{"tar format", tarOf(t, file("a", "x")), tarOf(t, at(file("a", "x"), func(h *tar.Header) { h.Format = tar.FormatGNU })), []string{"the file itself: compressor @152+4"}, "Everything in this tar is equal"},
		{"nested", gzipOf(t, tarOf(t, file("in.gz", string(gzipOf(t, []byte("a"), 6, noon)))), 6, noon), gzipOf(t, tarOf(t, file("in.gz", string(gzipOf(t, []byte("b"), 6, noon)))), 6, noon), []string{"content of the gzip » in.gz » in: content @0+1"}, ""},
		{"zip content", zipOf(t, zip.Deflate, noon, "a=x", "b=y"), zipOf(t, zip.Deflate, noon, "a=x", "b=z"), []string{"b: content @0+1"}, ""},
		{"zip time", zipOf(t, zip.Store, noon, "a=x"), zipOf(t, zip.Store, noon.Add(time.Minute), "a=x"), []string{"a: mtime", "a: mtime", "a: mtime"}, ""},
		{"zip order", zipOf(t, zip.Store, noon, "a=x", "b=y"), zipOf(t, zip.Store, noon, "b=y", "a=x"), []string{"the file itself: order"}, ""},
		{"zip method", zipOf(t, zip.Store, noon, "a="+text), zipOf(t, zip.Deflate, noon, "a="+text), []string{"a: compressor", "a: compressor @0+10399"}, "compression method"},
		{"ar", arOf(1, "a.o/=x", "b.o/=yy"), arOf(1, "a.o/=x", "b.o/=yz"), []string{"b.o: content @1+1"}, ""},
		{"ar time", arOf(1, "a.o/=x"), arOf(2, "a.o/=x"), []string{"a.o: mtime"}, `"1970-01-01T00:00:02Z"`},
		{"deb", arOf(1, "debian-binary=2.0\n", "data.tar.xz="+string(xzOf(t, tarOf(t, file("./usr/x", "1"))))), arOf(1, "debian-binary=2.0\n", "data.tar.xz="+string(xzOf(t, tarOf(t, file("./usr/x", "2"))))), []string{"data.tar.xz » data.tar » ./usr/x: content @0+1"}, ""},
		{"NAR", narOf(t, tree{"a": "x", "b": "y", "l": "→a"}), narOf(t, tree{"a*": "x", "b": "z", "l": "→b"}), []string{"a: mode", "b: content @0+1", "l: symlink-target"}, `"false" and "true"`},
		{"wasm", wasmOf("name=a", "producers=go 1.26", "build_id=\x04abcd"), wasmOf("name=a", "producers=go 1.27", "build_id=\x04abce"), []string{"custom section build_id: build-id @4+1", "custom section producers: content @6+1"}, ""},
		{"ELF", elfOf(t, ".text=code", ".note.gnu.build-id=aaaa"), elfOf(t, ".text=code", ".note.gnu.build-id=aaab"), []string{".note.gnu.build-id: build-id @3+1"}, ""},
		{"ELF sections", elfOf(t, ".text=code", ".rodata=2026-11-22"), elfOf(t, ".text=kode", ".rodata=2026-11-23"), []string{".rodata: timestamp-in-content @9+1", ".text: content @0+1"}, ""},
		{"ELF section missing", elfOf(t, ".text=code", ".debug_x=d"), elfOf(t, ".text=code"), []string{".debug_x: missing", ".shstrtab: content @8+18"}, ""},
		{"another format", gzipOf(t, []byte("a"), 6, noon), xzOf(t, []byte("a")), []string{"the file itself: content @0+59"}, ""},
		{"damaged archive", []byte("!<arch>\nrubbish"), []byte("!<arch>\nrubbing"), []string{"the file itself: content @13+2"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			report := compare(t, test.a, test.b, Options{})
			if diff := cmp.Diff(test.want, brief(report.Differences)); diff != "" {
				t.Errorf("differences (-want +got):\n%s", diff)
			}
			if report.Equal != (len(test.want) == 0) || report.Total != len(test.want) {
				t.Errorf("Equal is %v, Total %d", report.Equal, report.Total)
			}
			if len(report.Differences) > 0 && !strings.Contains(report.Differences[0].Sentence, test.sentence) {
				t.Errorf("the sentence is %q; want one with %q", report.Differences[0].Sentence, test.sentence)
			}
		})
	}
}

func flip(b []byte, at int) []byte {
	b[at] ^= 1
	return b
}

func TestTrees(t *testing.T) {
	tests := []struct {
		name string
		a, b tree
		want []string
	}{
		{name: "equal", a: tree{"d/a": "x", "l": "→d"}, b: tree{"d/a": "x", "l": "→d"}},
		{"content", tree{"d/a": "x", "d/b": "same"}, tree{"d/a": "y", "d/b": "same"}, []string{"d/a: content @0+1"}},
		{"missing", tree{"a": "x", "only/x": "1"}, tree{"a": "x", "z": ""}, []string{"only: missing", "z: missing"}},
		{"type", tree{"a": "x"}, tree{"a/": ""}, []string{"a: type"}},
		{"link", tree{"a": "→x"}, tree{"a": "→y"}, []string{"a: symlink-target"}},
		{"executable", tree{"a*": "x"}, tree{"a": "x"}, []string{"a: mode"}},
		{"order of a NAR", tree{"a/b": "1", "a-b": "1"}, tree{"a/b": "2", "a-b": "2"}, []string{"a/b: content @0+1", "a-b: content @0+1"}},
		{"hostile name", tree{"\x1b[2Jx": "1"}, tree{"\x1b[2Jx": "2"}, []string{`"\x1b[2Jx": content @0+1`}},
		{
			"OCI layer", layoutOf(t, `{"a":1}`, string(tarOf(t, file("etc/x", "1")))), layoutOf(t, `{"a":1}`, string(tarOf(t, file("etc/x", "2")))),
			[]string{"index.json » manifest 1 » layer 1 » etc/x: content @0+1"},
		},
		{
			"OCI config", layoutOf(t, `{"created":"2026-11-22T10:00:00Z"}`, "layer"), layoutOf(t, `{"created":"2026-11-22T10:00:09Z"}`, "layer"),
			[]string{"index.json » manifest 1 » config: timestamp-in-content @30+1"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, b := test.a.write(t, t.TempDir()), test.b.write(t, t.TempDir())
			report, err := Compare(t.Context(), a, b, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, brief(report.Differences)); diff != "" {
				t.Errorf("differences (-want +got):\n%s", diff)
			}
			again, err := Compare(t.Context(), a, b, Options{Parallel: 7})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(report, again); diff != "" {
				t.Errorf("the second report is another (-first +second):\n%s", diff)
			}
		})
	}
}

func TestMetadata(t *testing.T) {
	a, b := tree{"f": "x"}.write(t, t.TempDir()), tree{"f": "x"}.write(t, t.TempDir())
	for dir, at := range map[string]time.Time{a: noon, b: noon.Add(time.Second)} {
		must(t, os.Chtimes(filepath.Join(dir, "f"), at, at))
		must(t, os.Chtimes(dir, noon, noon))
	}
	must(t, os.Chmod(filepath.Join(b, "f"), 0o600))
	for metadata, want := range map[bool][]string{false: nil, true: {"f: mode", "f: mtime"}} {
		report, err := Compare(t.Context(), a, b, Options{Metadata: metadata})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, brief(report.Differences)); diff != "" {
			t.Errorf("metadata %v (-want +got):\n%s", metadata, diff)
		}
	}
}

// Files whose digests are given are not read: that one differs goes unseen when its digest is said to be equal.
func TestListings(t *testing.T) {
	a, b := tree{"f": "x", "g": "1"}.write(t, t.TempDir()), tree{"f": "y", "g": "2"}.write(t, t.TempDir())
	_, listing, err := nar.HashListing(t.Context(), a, nar.Options{FileDigests: true})
	if err != nil {
		t.Fatal(err)
	}
	other := slices.Clone(listing)
	other[2].Digest[0]++
	report, err := Compare(t.Context(), a, b, Options{ListingA: listing, ListingB: other})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"g: content @0+1"}, brief(report.Differences)); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
}

func TestLimits(t *testing.T) {
	nested := func(text string) []byte {
		b := []byte(text)
		for range 4 {
			b = gzipOf(t, b, 6, noon)
		}
		return b
	}
	bomb := func(last byte) []byte {
		return gzipOf(t, append(make([]byte, 1<<20), last), 9, noon)
	}
	many := func(text string) []byte { return tarOf(t, file("a", text), file("b", text), file("c", text)) }
	tests := []struct {
		name string
		a, b []byte
		opts Options
		want string // in the note
	}{
		{"depth", nested("a"), nested("b"), Options{Depth: 2}, "not opened: it lies in 2 archives already"},
		{"size", bomb(1), bomb(2), Options{Unpacked: 1000}, "not opened as gzip: first: it unpacks to more than 1000 bytes"},
		{"members", many("1"), many("2"), Options{Members: 2}, "not opened as tar: first: it has more than 2 members"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			report := compare(t, test.a, test.b, test.opts)
			if report.Equal || len(report.Notes) == 0 || !strings.Contains(report.Notes[0], test.want) {
				t.Errorf("equal is %v, notes are %q; want a difference and a note with %q", report.Equal, report.Notes, test.want)
			}
		})
	}
}

// A stream that would unpack to thousands of times its size is stopped at the ratio.
func TestRatio(t *testing.T) {
	u := unpacker{opts: Options{Ratio: 10, Unpacked: 1 << 40, TempDir: t.TempDir()}}
	defer u.close()
	_, err := u.unpack(t.Context(), zeros{}, 1000)
	if _, ok := errors.AsType[*limitError](err); !ok || u.total != ratioFrom+1 {
		t.Errorf("%v after %d bytes; want a limitError after %d", err, u.total, ratioFrom+1)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestLargeMemberIsUnpackedToDisk(t *testing.T) {
	large := func(last byte) []byte {
		b := make([]byte, inMemory+100)
		b[len(b)-1] = last
		return zstdOf(t, b, zstd.SpeedFastest)
	}
	dir := t.TempDir()
	report := compare(t, large(1), large(2), Options{TempDir: dir})
	want := []string{fmt.Sprintf("content of the zstd: content @%d+1", inMemory+99)}
	if diff := cmp.Diff(want, brief(report.Differences)); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Only the first differences are listed and explained, all are counted.
func TestManyDifferences(t *testing.T) {
	a, b := tree{}, tree{}
	for i := range 30 {
		a[fmt.Sprintf("%02d", i)], b[fmt.Sprintf("%02d", i)] = "x", "y"
	}
	report, err := Compare(t.Context(), a.write(t, t.TempDir()), b.write(t, t.TempDir()), Options{Differences: 3})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"00: content @0+1", "01: content @0+1", "02: content @0+1"}
	if diff := cmp.Diff(want, brief(report.Differences)); diff != "" || report.Total != 30 {
		t.Errorf("total %d, differences (-want +got):\n%s", report.Total, diff)
	}
	if diff := cmp.Diff([]CauseCount{{Content, 30}}, report.Causes); diff != "" {
		t.Errorf("causes (-want +got):\n%s", diff)
	}
}

// A Go program tells its settings, and its build id is known as such.
func TestGoProgram(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	setting := func(compiler string) []byte { return fmt.Appendf(nil, "build\t-compiler=%s", compiler) }
	b := bytes.ReplaceAll(a, setting("gc"), setting("gd"))
	if bytes.Equal(a, b) {
		t.Skip("cannot run here: this test binary has no build information")
	}
	var got []string
	for _, d := range compare(t, a, b, Options{}).Differences {
		if d.Members[0] == "Go build information" {
			got = append(got, d.Sentence)
		}
	}
	want := []string{`The setting -compiler differs: "gc" and "gd".`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("build information (-want +got):\n%s", diff)
	}
}

func TestErrors(t *testing.T) {
	dir := tree{"f": "x", "d/": ""}.write(t, t.TempDir())
	must(t, unix.Mkfifo(filepath.Join(dir, "p"), 0o600))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name string
		ctx  context.Context
		a, b string
		want string
	}{
		{"absent", t.Context(), "f", "absent", "no such file"},
		{"pipe", t.Context(), "p", "p", "is FIFO, which cannot be compared"},
		{"cancelled", cancelled, ".", "d", "context canceled"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Compare(test.ctx, filepath.Join(dir, test.a), filepath.Join(dir, test.b), Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v; want one with %q", err, test.want)
			}
		})
	}
	report, err := Compare(t.Context(), filepath.Join(dir, "f"), filepath.Join(dir, "d"), Options{})
	if err != nil || report.Total != 1 || report.Differences[0].Cause != Type {
		t.Errorf("a file and a directory: %+v, %v", report, err)
	}
}

// What was compared may try to write to the terminal or into the page.
func TestOutputs(t *testing.T) {
	name := "<script>alert(1)</script>\x1b[2J\u202e"
	a := tree{name: "<b>one</b> \x1b]0;t\x07\n", "t.tar": string(tarOf(t, file("\x1b[31mred", "1")))}
	b := tree{name: "<b>two</b> \x1b]0;t\x07\n", "t.tar": string(tarOf(t, file("\x1b[31mred", "2")))}
	report, err := Compare(t.Context(), a.write(t, t.TempDir()), b.write(t, t.TempDir()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var text, page, data bytes.Buffer
	must(t, errors.Join(report.Text(&text), report.HTML(&page), report.JSON(&data)))
	for kind, out := range map[string]string{"text": text.String(), "HTML": page.String()} {
		for _, bad := range []string{"\x1b", "\x07", "\u202e", "<script", "<b>"} {
			if strings.Contains(out, bad) && (kind == "HTML" || bad[0] != '<') {
				t.Errorf("the %s holds %q:\n%s", kind, bad, out)
			}
		}
		if !strings.Contains(out, "content") || !strings.Contains(out, "red") {
			t.Errorf("the %s does not tell:\n%s", kind, out)
		}
	}
	var back Report
	dec := json.NewDecoder(&data)
	dec.DisallowUnknownFields()
	must(t, dec.Decode(&back))
	if diff := cmp.Diff(*report, back, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}

func TestText(t *testing.T) {
	report := compare(t, []byte("a\nb\n"), []byte("a\nc\n"), Options{})
	report.A, report.B = "one", "two"
	var out strings.Builder
	must(t, report.Text(&out))
	want := `one and two have 1 difference (1 file, 4 bytes): content 1.

the file itself
  content: Line 2 differs: "b\n" and "c\n".
  at byte 2, 1 differing byte, sizes 4 and 4
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

func FuzzAr(f *testing.F) {
	f.Add(arOf(1, "a.o/=x", "b.o/=yy"))
	f.Add(arOf(1, "//=long/\nname/\n", "/5=x", "#1/4=nameX"))
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := parseAr(bytesContent(data), 100)
		if err != nil {
			return
		}
		end := int64(len(arMagic))
		for _, m := range members {
			if m.offset < end || m.size < 0 || m.offset+m.size > int64(len(data)) {
				t.Fatalf("member %q has bytes %d+%d of %d", m.name, m.offset, m.size, len(data))
			}
			end = m.offset + m.size
		}
	})
}

func FuzzWasm(f *testing.F) {
	f.Add(wasmOf("name=a", "producers="))
	f.Add([]byte(wasmMagic + "\x01\x00\x00\x00\x01\x80\x80\x80\x80\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sections, err := parseWasm(bytesContent(data), 100)
		if err != nil {
			return
		}
		end := int64(wasmHeader)
		for _, s := range sections {
			if s.offset < end || s.size < 0 || s.offset+s.size > int64(len(data)) {
				t.Fatalf("section %q has bytes %d+%d of %d", s.name, s.offset, s.size, len(data))
			}
			end = s.offset + s.size
		}
	})
}

// FuzzCompare finds a difference if and only if there is one.
func FuzzCompare(f *testing.F) {
	f.Add([]byte("one\n"), []byte("two\n"))
	f.Add(arOf(1, "a/=x"), arOf(2, "a/=x"))
	f.Add(wasmOf("a=1"), wasmOf("a=2"))
	f.Add(tarOf(f, file("a", "1")), tarOf(f, file("a", "2")))
	f.Add(elfOf(f, ".text=1"), elfOf(f, ".text=2"))
	f.Add(gzipOf(f, []byte("a"), 6, noon), gzipOf(f, []byte("b"), 6, noon))
	f.Add(zipOf(f, zip.Deflate, noon, "a=x"), zipOf(f, zip.Deflate, noon, "a=y"))
	opts := Options{Unpacked: 1 << 20, Members: 100}.withDefaults()
	f.Fuzz(func(t *testing.T, a, b []byte) {
		e := &explainer{ctx: t.Context(), opts: opts, store: unpacker{opts: opts}}
		defer e.store.close()
		if err := e.contents(place{}, bytesContent(a), bytesContent(b), 0); err != nil {
			t.Fatal(err)
		}
		if equal := bytes.Equal(a, b); equal != (len(e.found) == 0) {
			t.Errorf("equal is %v, differences are %v", equal, brief(e.found))
		}
	})
}
