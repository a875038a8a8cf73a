package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/builder/guix/archive"
	"arch.network/builder/guix/signature"
)

const (
	realPath = "/gnu/store/p0gj8d94sd81swjvvp8zgrzgx82m9afj-arch-node-agent.yaml"
	realRef  = "/gnu/store/1r6ffg0d0b9p0f4qv3q76rcqddn4xcx3-policy.yaml"
	realDrv  = "/gnu/store/mh1vrjxih3mzn8hxcplxjkhqbrwgp9ia-arch-node-agent.yaml.drv"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func realKeys(t testing.TB) signature.Keys {
	t.Helper()
	keys, err := signature.ParseKeys(string(read(t, "../signature/testdata/signing-key.pub")))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// collect reads an archive, and the NAR of each of its items.
func collect(ctx context.Context, data []byte, o archive.Options) (items []archive.Item, nars []string, err error) {
	err = archive.Read(ctx, bytes.NewReader(data), o, func(i archive.Item) error {
		content, err := io.ReadAll(i.Open())
		items, nars = append(items, i), append(nars, string(content))
		return err
	})
	return items, nars, err
}

func TestReal(t *testing.T) {
	data := read(t, "testdata/export.nar")
	scratch := t.TempDir()
	items, nars, err := collect(t.Context(), data, archive.Options{Keys: realKeys(t), Scratch: scratch})
	if err != nil {
		t.Fatal(err)
	}
	sum, err := digest.Parse("sha256:13hlpk5by2awv0inxhcx76znrcd8imshj52y61h5yxcy2w1apnmd") // the narinfo says it, too
	if err != nil {
		t.Fatal(err)
	}
	want := []archive.Item{{Path: realPath, References: []string{realRef}, Deriver: realDrv, NAR: sum, Size: 272}}
	if diff := cmp.Diff(want, items, cmpopts.IgnoreUnexported(archive.Item{}), cmpopts.IgnoreFields(archive.Item{}, "Key")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !realKeys(t)[items[0].Key] {
		t.Errorf("the key is %X", items[0].Key[:])
	}
	if diff := cmp.Diff([]string{string(data[8 : 8+272])}, nars); diff != "" {
		t.Errorf("NAR (-want +got):\n%s", diff)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// An archive of six items, by the key of package signature's tests.
func TestRealSeveral(t *testing.T) {
	key, err := signature.ParsePrivateKey(string(read(t, "../signature/testdata/signing.sec")))
	if err != nil {
		t.Fatal(err)
	}
	items, nars, err := collect(t.Context(), read(t, "testdata/several.nar"), archive.Options{Keys: signature.Keys{key.Public(): true}, Scratch: t.TempDir()})
	if err != nil || len(items) != 6 {
		t.Fatalf("%d items, %v", len(items), err)
	}
	for i, item := range items {
		if !strings.Contains(nars[i], item.Path[len(item.Path)-1:]+"\n") { // det3 says 3
			t.Errorf("%s has %q", item.Path, nars[i])
		}
	}
}

// Every byte that is changed, and every end that is too early, is noticed; and nothing is handed over.
func TestEveryByte(t *testing.T) {
	data := read(t, "testdata/export.nar")
	o := archive.Options{Keys: realKeys(t), Scratch: t.TempDir()}
	for i := range data {
		changed := slices.Clone(data)
		changed[i] ^= 1
		// Letter case of hexadecimal digits and white space in the signature are all that may differ.
		items, _, err := collect(t.Context(), changed, o)
		if err == nil && !sameSignature(t, data, changed) || err != nil && len(items) > 0 && i < len(data)-8 {
			t.Errorf("byte %d is %q instead of %q: %d items, %v", i, changed[i], data[i], len(items), err)
		}
		if items, _, err := collect(t.Context(), data[:i], o); err == nil || len(items) > 0 && i < len(data)-8 {
			t.Errorf("%d bytes of it: %d items, %v", i, len(items), err)
		}
	}
	if _, _, err := collect(t.Context(), append(slices.Clone(data), 0), o); err == nil {
		t.Error("something follows it, and nobody notices")
	}
}

func sameSignature(t *testing.T, a, b []byte) bool {
	t.Helper()
	const from = 528 // the text of the signature
	parse := func(data []byte) signature.Signature {
		s, err := signature.Parse(strings.Trim(string(data[from:len(data)-8]), "\x00"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return bytes.Equal(a[:from], b[:from]) && parse(a) == parse(b)
}

// maker writes archives as Guix does.
type maker struct {
	bytes.Buffer
	key signature.PrivateKey
}

func (m *maker) number(n uint64) { m.Write(binary.LittleEndian.AppendUint64(nil, n)) }

func (m *maker) text(s string) {
	m.number(uint64(len(s)))
	m.WriteString(s + "\x00\x00\x00\x00\x00\x00\x00"[:-len(s)&7])
}

// item signs and adds an item. change may change what is signed.
func (m *maker) item(t testing.TB, content, path, deriver string, change func([]byte) []byte, refs ...string) {
	t.Helper()
	inner := &maker{}
	w := nar.NewWriter(inner, nar.Limits{})
	err := w.WriteEntry(nar.Entry{Type: nar.Regular, Size: int64(len(content))})
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	inner.number(0x4558494e)
	inner.text(path)
	inner.number(uint64(len(refs)))
	for _, r := range refs {
		inner.text(r)
	}
	inner.text(deriver)
	signed := inner.Bytes()
	if change != nil {
		signed = change(signed)
	}
	m.number(1)
	m.Write(signed)
	m.number(1)
	m.text(m.key.SignHash(sha256.Sum256(signed)).String())
}

func newMaker(t testing.TB) (*maker, archive.Options) {
	t.Helper()
	key, err := signature.GeneratePrivateKey(strings.NewReader(strings.Repeat("a key for tests ", 2)))
	if err != nil {
		t.Fatal(err)
	}
	return &maker{key: key}, archive.Options{Keys: signature.Keys{key.Public(): true}, Scratch: t.TempDir()}
}

func TestSeveral(t *testing.T) {
	m, o := newMaker(t)
	m.item(t, "one", realRef, "", nil)
	m.item(t, strings.Repeat("two", 1<<20), realPath, realDrv, nil, realRef)
	m.item(t, "", realRef+"x", "", nil, realRef, realPath)
	m.number(0)
	items, nars, err := collect(t.Context(), m.Bytes(), o)
	if err != nil || len(items) != 3 {
		t.Fatalf("%d items, %v", len(items), err)
	}
	for i, item := range items {
		if digest.Of([]byte(nars[i])) != item.NAR || int64(len(nars[i])) != item.Size {
			t.Errorf("item %d: %d bytes of NAR are not its own", i, len(nars[i]))
		}
	}
	if diff := cmp.Diff([]string{realRef, realPath}, items[2].References); diff != "" {
		t.Errorf("references (-want +got):\n%s", diff)
	}
	stop := errors.New("enough")
	err = archive.Read(t.Context(), bytes.NewReader(m.Bytes()), o, func(archive.Item) error { return stop })
	if item, ok := errors.AsType[*archive.ItemError](err); !errors.Is(err, stop) || !ok || item.Index != 0 || item.Path != realRef {
		t.Errorf("stopped: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := collect(ctx, m.Bytes(), o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, _, err := collect(t.Context(), m.Bytes(), archive.Options{Keys: o.Keys, Scratch: o.Scratch + "/absent"}); err == nil {
		t.Error("there is no directory, and nobody notices")
	}
}

func TestRefused(t *testing.T) {
	replace := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
	}
	u64 := func(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }
	for name, tt := range map[string]struct {
		make func(t *testing.T, m *maker)
		err  string
	}{
		"nothing at all":  {func(*testing.T, *maker) {}, "unexpected EOF"},
		"no item, no end": {func(_ *testing.T, m *maker) { m.number(2) }, "0 or 1 is due"},
		"no signature":    {func(t *testing.T, m *maker) { m.item(t, "", realPath, "", nil); m.cut(t, realPath); m.number(0) }, "it is not signed"},
		"another magic":   {func(t *testing.T, m *maker) { m.item(t, "", realPath, "", replace("NIXE", "NIXF")) }, "no item"},
		"another store":   {func(t *testing.T, m *maker) { m.item(t, "", "/nix"+realPath[4:], "", nil) }, "is no item of /gnu/store"},
		"a path below":    {func(t *testing.T, m *maker) { m.item(t, "", realPath+"/x", "", nil) }, "is no item"},
		"a path with dots": {func(t *testing.T, m *maker) {
			m.item(t, "", "/gnu/store/../../etc/passwd/aaaaaaaaaaaaaaaaaaaaaaaaaaa", "", nil)
		}, "is no item"},
		"a relative path": {func(t *testing.T, m *maker) { m.item(t, "", realPath[1:], "", nil) }, "is no item"},
		"a bad reference": {func(t *testing.T, m *maker) { m.item(t, "", realPath, "", nil, "/etc/passwd") }, "is no item"},
		"a bad deriver":   {func(t *testing.T, m *maker) { m.item(t, "", realPath, "/etc/passwd", nil) }, "is no item"},
		"a huge count": {func(t *testing.T, m *maker) {
			m.item(t, "", realPath, "", replace(u64(1)+u64(uint64(len(realRef))), u64(1<<40)+u64(uint64(len(realRef)))), realRef)
		}, "more than 65536"},
		"a huge text": {func(t *testing.T, m *maker) {
			m.item(t, "", realPath, "", replace(u64(uint64(len(realPath)))+realPath, u64(1<<62)+realPath))
		}, "more than 8192"},
		"a largest text": {func(t *testing.T, m *maker) {
			m.item(t, "", realPath, "", replace(u64(uint64(len(realPath)))+realPath, u64(1<<64-1)+realPath))
		}, "more than 8192"},
		"padding":      {func(t *testing.T, m *maker) { m.item(t, "", realRef, "", replace(realRef+"\x00", realRef+"\x01")) }, "padding"},
		"no NAR":       {func(t *testing.T, m *maker) { m.item(t, "", realPath, "", replace("nix-archive-1", "nix-archive-2")) }, "magic of a Nix archive"},
		"another type": {func(t *testing.T, m *maker) { m.item(t, "", realPath, "", replace("regular", "regulas")) }, "read nar"},
	} {
		t.Run(name, func(t *testing.T) {
			m, o := newMaker(t)
			tt.make(t, m)
			items, _, err := collect(t.Context(), m.Bytes(), o)
			if err == nil || !strings.Contains(err.Error(), tt.err) || len(items) > 0 {
				t.Errorf("%d items, %v, want %q", len(items), err, tt.err)
			}
		})
	}
	m, o := newMaker(t)
	m.item(t, "", realPath, "", nil)
	m.number(0)
	_, _, err := collect(t.Context(), m.Bytes(), archive.Options{Scratch: o.Scratch})
	if _, ok := errors.AsType[*signature.UntrustedError](err); !ok {
		t.Errorf("without a key: %v", err)
	}
	small := o
	small.Limits = nar.Limits{Size: 100}
	if _, _, err := collect(t.Context(), m.Bytes(), small); err == nil || !strings.Contains(err.Error(), "size") {
		t.Errorf("over the limit: %v", err)
	}
}

// cut takes away the signature of the last item.
func (m *maker) cut(t *testing.T, path string) {
	t.Helper()
	i := bytes.Index(m.Bytes(), []byte("(signature"))
	if i < 0 {
		t.Fatalf("%s is not signed", path)
	}
	m.Truncate(i - 16)
	m.number(0)
}

// FuzzRead: nothing is handed over but what the key signed, which is the one item that it ever signed.
func FuzzRead(f *testing.F) {
	data := read(f, "testdata/export.nar")
	keys := realKeys(f)
	f.Add(data)
	f.Add(data[:300])
	f.Add(binary.LittleEndian.AppendUint64(nil, 0))
	f.Fuzz(func(t *testing.T, fuzzed []byte) {
		items, nars, _ := collect(t.Context(), fuzzed, archive.Options{Keys: keys, Limits: nar.Limits{Size: 1 << 20}})
		for i := range items {
			if items[i].Path != realPath || nars[i] != string(data[8:8+272]) {
				t.Errorf("%+v is handed over", items[i])
			}
		}
	})
}
