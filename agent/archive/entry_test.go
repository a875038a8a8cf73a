package archive_test

import (
	"archive/tar"
	"bytes"
	"path/filepath"
	"testing"

	"arch.network/agent"
	"arch.network/agent/archive"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/store"

	"github.com/google/go-cmp/cmp"
)

func sum(s string) digest.SHA256 { return digest.Of([]byte(s)) }

func entry() *archive.Entry {
	return &archive.Entry{
		Version: archive.Version, Job: sum("job"), Name: "count", Envelope: sum("envelope"), Result: sum("result"), Runs: []digest.SHA256{sum("run")},
		Outputs: []agent.Output{{Name: "x", NAR: sum("x"), Size: 5}}, Objects: []archive.Object{{Kind: store.Tree, Digest: sum("x")}},
		Node: "did:key:z",
	}
}

func TestDecode(t *testing.T) {
	data, err := entry().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := archive.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entry(), got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for name, change := range map[string]func(*archive.Entry){
		"version":      func(e *archive.Entry) { e.Version = 2 },
		"no job":       func(e *archive.Entry) { e.Job = digest.SHA256{} },
		"twice":        func(e *archive.Entry) { e.Objects = append(e.Objects, e.Objects[0]) },
		"unknown kind": func(e *archive.Entry) { e.Objects[0].Kind = "file" },
		"too many runs": func(e *archive.Entry) {
			e.Runs = make([]digest.SHA256, archive.MaxStatements)
		},
	} {
		e := entry()
		change(e)
		if _, err := e.Encode(); err == nil {
			t.Errorf("%s: it was encoded", name)
		}
	}
}

func TestSplit(t *testing.T) {
	sources := map[string][]digest.SHA256{
		"ghcr.io/secret/model@sha256:11":         {sum("a"), sum("b")},
		"https://example.org/data/1#sha256-xx":   {sum("c")},
		"https://example.org/public#sha256-yy":   {sum("d")},
		"https://example.org/data/x/y#sha256-zz": {sum("e")},
	}
	for _, tt := range []struct {
		patterns []string
		keep     []string
		pins     int
	}{
		{nil, []string{"a", "b", "c", "d", "e", "out"}, 0},
		{[]string{"ghcr.io/secret/**"}, []string{"c", "d", "e", "out"}, 1},
		{[]string{"https://example.org/data/*"}, []string{"a", "b", "d", "e", "out"}, 1},
		{[]string{"https://example.org/data/**"}, []string{"a", "b", "d", "out"}, 2},
		{[]string{"**"}, []string{"out"}, 4},
	} {
		policy := &manifest.Policy{Spec: manifest.PolicySpec{Retention: manifest.PolicyRetention{PinsOnly: tt.patterns}}}
		keep, pins := archive.Split(sources, []digest.SHA256{sum("out")}, policy)
		want := map[digest.SHA256]bool{}
		for _, k := range tt.keep {
			want[sum(k)] = true
		}
		got := map[digest.SHA256]bool{}
		for _, k := range keep {
			got[k] = true
		}
		if diff := cmp.Diff(want, got); diff != "" || len(pins) != tt.pins {
			t.Errorf("%q: pins %q\n%s", tt.patterns, pins, diff)
		}
	}
}

// FuzzDecode wants whatever is read as an entry to be written as the same bytes.
func FuzzDecode(f *testing.F) {
	data, err := entry().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := archive.Decode(in)
		if err != nil {
			return
		}
		out, err := e.Encode()
		if err != nil || !bytes.Equal(in, out) {
			t.Errorf("read %q, wrote %q: %v", in, out, err)
		}
	})
}

// FuzzImport reads anything, and takes nothing: a good file would need statements whose ids are hashes of what they hold, which is tried where
// there is a node.
func FuzzImport(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	data, err := entry().Encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"entry.json", "envelope.json"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
			f.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			f.Fatal(err)
		}
	}
	w.Close()
	f.Add(b.Bytes())
	s, err := store.Open(filepath.Join(f.TempDir(), "store"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := archive.Import(t.Context(), bytes.NewReader(in), s, archive.ImportOptions{MaxObject: 1 << 20}); err == nil {
			t.Error("it was taken")
		}
		if _, err := archive.Check(t.Context(), bytes.NewReader(in), archive.ImportOptions{MaxObject: 1 << 20}); err == nil {
			t.Error("it was found right")
		}
	})
}
