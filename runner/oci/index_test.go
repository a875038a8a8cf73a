package oci

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"arch.network/attest/digest"
	"arch.network/builder/source/unpack"
)

// FuzzIndex: whatever is read as an index is written in one way only.
func FuzzIndex(f *testing.F) {
	w := newIndexWriter()
	for _, s := range []step{
		{LayerEntry: unpack.LayerEntry{Kind: unpack.LayerDir, Name: "d"}},
		{LayerEntry: unpack.LayerEntry{Kind: unpack.LayerFile, Name: "d/f", Size: 300}, Sum: digest.Of([]byte("f"))},
		{LayerEntry: unpack.LayerEntry{Kind: unpack.LayerFile, Name: "d/x", Executable: true}},
		{LayerEntry: unpack.LayerEntry{Kind: unpack.LayerSymlink, Name: "s", Target: "d/f"}},
		{LayerEntry: unpack.LayerEntry{Kind: unpack.LayerLink, Name: "h", Target: "d/f"}},
		{LayerEntry: unpack.LayerEntry{Kind: unpack.LayerWhiteout, Name: "w"}},
		{LayerEntry: unpack.LayerEntry{Kind: unpack.LayerOpaque, Name: "d"}},
	} {
		if err := w.add(s); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(w.buf)
	f.Add([]byte(indexMagic))
	f.Add([]byte(indexMagic + "f\x01a\x80\x00"))
	f.Add([]byte(indexMagic + "d\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		again := newIndexWriter()
		if err := decodeIndex(data, again.add); err == nil && !bytes.Equal(again.buf, data) {
			t.Errorf("%q was read, which is %q", data, again.buf)
		}
	})
}

// FuzzSeal: whatever lies where the seal of an object should, it is damaged, or a seal whose index is read only if it has that hash.
func FuzzSeal(f *testing.F) {
	index := []byte(indexMagic)
	good, err := json.Marshal(seal{Index: digest.Of(index), Boot: "b", Checked: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, index)
	f.Add(good, append(index, 'x'))
	f.Add(bytes.ReplaceAll(good, []byte("1"), []byte("-1e9")), index)
	f.Add([]byte(`{}`), index)
	f.Add([]byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, data, index []byte) {
		dir := t.TempDir()
		for name, content := range map[string][]byte{sealName: data, indexName: index} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := readSeal(dir)
		if err != nil {
			return
		}
		if s.Index.IsZero() || len(data) > maxSeal {
			t.Errorf("%q is the seal %+v", data, s)
		}
		if got, err := readIndex(dir, s); (err == nil) != (digest.Of(index) == s.Index) || err == nil && !bytes.Equal(got, index) {
			t.Errorf("%q is the index of %+v: %v", index, s, err)
		}
	})
}
