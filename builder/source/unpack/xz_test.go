package unpack

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"
)

// packXZ writes blocks of at most block bytes with the given check.
func packXZ(t testing.TB, b []byte, block int64, check byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.WriterConfig{BlockSize: block, CheckSum: check, NoCheckSum: check == xz.None, DictCap: 1 << 16}.NewWriter(&out)
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

func unpackXZ(packed []byte) ([]byte, error) {
	r, err := Decompress(bufio.NewReader(bytes.NewReader(packed)), XZ)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// xzPlain is neither easy nor impossible to compress, and fills several chunks.
func xzPlain() []byte {
	var b bytes.Buffer
	for i := range 6_000 {
		fmt.Fprintf(&b, "%x %d\n", i*i*2654435761, i)
	}
	return b.Bytes()
}

func TestXZ(t *testing.T) {
	plain := xzPlain()
	one := packXZ(t, plain, 1<<40, xz.CRC64)
	var odd []byte // sizes that need every padding
	for n := range 9 {
		odd = append(odd, packXZ(t, plain[:n], 1<<40, xz.CRC32)...)
	}
	for name, c := range map[string]struct{ packed, plain []byte }{
		"one block":        {one, plain},
		"many blocks":      {packXZ(t, plain, 1000, xz.CRC64), plain},
		"no check":         {packXZ(t, plain, 5000, xz.None), plain},
		"CRC32":            {packXZ(t, plain, 5000, xz.CRC32), plain},
		"SHA-256":          {packXZ(t, plain, 5000, xz.SHA256), plain},
		"nothing":          {packXZ(t, nil, 5000, xz.CRC64), nil},
		"streams":          {slices.Concat(one, one), slices.Concat(plain, plain)},
		"padding":          {slices.Concat(one, make([]byte, 8), one, make([]byte, 4)), slices.Concat(plain, plain)},
		"not compressible": {packXZ(t, one, 20_000, xz.CRC64), one},
		"odd sizes":        {odd, []byte(strings.Join([]string{string(plain[:1]), string(plain[:2]), string(plain[:3]), string(plain[:4]), string(plain[:5]), string(plain[:6]), string(plain[:7]), string(plain[:8])}, ""))},
	} {
		got, err := unpackXZ(c.packed)
		if err != nil || !bytes.Equal(got, c.plain) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(c.plain), err)
		}
		if _, err := unpackXZ(c.packed[:len(c.packed)-5]); err == nil {
			t.Errorf("%s: a cut file is accepted", name)
		}
	}
}

// A dictionary of a later block, or of a later stream, is as large as one of the first.
func TestXZDictionaries(t *testing.T) {
	plain := xzPlain()
	packed := packXZ(t, plain, 30_000, xz.CRC64)
	block := packed[12 : 12+(int(packed[12])+1)*4]
	at := bytes.Index(block, []byte{0x21, 1}) + 2
	spoil := func(n int) []byte {
		spoilt, from := bytes.Clone(packed), 0
		for range n {
			// The headers of all blocks begin alike; their sizes differ.
			from += bytes.Index(spoilt[from:], block[:at+1]) + 1
		}
		spoilt[from-1+at] = 40
		return spoilt
	}
	const refused = "archive exceeds the limit of 134217728 bytes of xz dictionary"
	for name, packed := range map[string][]byte{"first block": spoil(1), "second block": spoil(2), "second stream": slices.Concat(packed, spoil(1))} {
		_, err := unpackXZ(packed)
		if diff := cmp.Diff(refused, strings.TrimPrefix(errText(err), "decompress archive: ")); diff != "" {
			t.Errorf("%s: error (-want +got):\n%s", name, diff)
		}
	}
	g := &xzGuard{r: bufio.NewReader(bytes.NewReader(packed[12:])), dictionaries: maxDictionaries}
	if err := g.block(); errText(err) != "archive exceeds the limit of 274877906944 bytes of xz dictionaries together" {
		t.Errorf("error is %v", err)
	}
}

// FuzzXZ: the guard changes nothing, and what the library reads behind it is what it reads without.
func FuzzXZ(f *testing.F) {
	f.Add(packXZ(f, []byte("hello"), 3, xz.CRC64))
	f.Add(packXZ(f, nil, 3, xz.None))
	f.Add(slices.Concat(packXZ(f, []byte("a"), 3, xz.SHA256), make([]byte, 4), packXZ(f, []byte("b"), 3, xz.CRC32)))
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &xzGuard{r: bufio.NewReader(bytes.NewReader(b)), next: (*xzGuard).streamHeader}
		passed, err := io.ReadAll(g)
		if !bytes.HasPrefix(b, passed) || err == nil && len(passed) != len(b) {
			t.Fatalf("%d of %d bytes passed, %v", len(passed), len(b), err)
		}
		if g.dictionaries > 64<<20 {
			return // the library would take its time
		}
		guarded, err := unpackXZ(b)
		x, direct := xz.NewReader(bytes.NewReader(passed))
		var plain []byte
		if direct == nil {
			plain, direct = io.ReadAll(x)
		}
		if err == nil && (direct != nil || !bytes.Equal(plain, guarded)) {
			t.Errorf("behind the guard %q, without %q, %v", guarded, plain, direct)
		}
	})
}
