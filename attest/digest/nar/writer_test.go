package nar_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"arch.network/attest/digest/nar"

	"github.com/google/go-cmp/cmp"
)

func TestWriterRefuses(t *testing.T) {
	root := nar.Entry{Type: nar.Directory}
	in := func(path string) nar.Entry { return nar.Entry{Path: path, Type: nar.Regular} }
	d := func(path string) nar.Entry { return nar.Entry{Path: path, Type: nar.Directory} }
	tests := map[string]struct {
		limits  nar.Limits
		entries []nar.Entry
		reason  string
	}{
		"no root":              {entries: nil, reason: "has no root"},
		"root with a name":     {entries: []nar.Entry{in("a")}, reason: "must be the root"},
		"two roots":            {entries: []nar.Entry{root, d("")}, reason: "an empty name"},
		"entry below a file":   {entries: []nar.Entry{root, in("a"), in("a/b")}, reason: "was not begun"},
		"entry of a file root": {entries: []nar.Entry{in(""), in("a")}, reason: "was not begun"},
		"missing directory":    {entries: []nar.Entry{root, in("a/b")}, reason: "was not begun"},
		"finished directory":   {entries: []nar.Entry{root, d("a"), in("b"), in("a/b")}, reason: "was not begun"},
		"duplicate":            {entries: []nar.Entry{root, in("a"), in("a")}, reason: "two entries"},
		"order":                {entries: []nar.Entry{root, in("b"), in("a")}, reason: "comes after"},
		"absolute":             {entries: []nar.Entry{root, in("/a")}, reason: "absolute"},
		"dot dot":              {entries: []nar.Entry{root, in("..")}, reason: "another directory"},
		"trailing slash":       {entries: []nar.Entry{root, d("a"), in("a/")}, reason: "an empty name"},
		"NUL":                  {entries: []nar.Entry{root, in("a\x00")}, reason: "NUL"},
		"long name":            {entries: []nar.Entry{root, in(strings.Repeat("n", 256))}, reason: "too long"},
		"type":                 {entries: []nar.Entry{{Type: "fifo"}}, reason: `unknown type "fifo"`},
		"negative size":        {entries: []nar.Entry{{Type: nar.Regular, Size: -1}}, reason: "size -1"},
		"missing content":      {entries: []nar.Entry{root, {Path: "a", Type: nar.Regular, Size: 3}, in("b")}, reason: "lacks 3 bytes"},
		"missing last content": {entries: []nar.Entry{{Type: nar.Regular, Size: 3}}, reason: "lacks 3 bytes"},
		"link without target":  {entries: []nar.Entry{{Type: nar.Symlink}}, reason: "an empty link target"},
		"target with NUL":      {entries: []nar.Entry{{Type: nar.Symlink, Target: "\x00"}}, reason: "NUL"},
		"long target":          {entries: []nar.Entry{{Type: nar.Symlink, Target: strings.Repeat("t", 4096)}}, reason: "too long"},
		"file with target":     {entries: []nar.Entry{{Type: nar.Regular, Target: "x"}}, reason: "link target"},
		"executable directory": {entries: []nar.Entry{{Type: nar.Directory, Executable: true}}, reason: "executable bit"},
		"depth":                {limits: nar.Limits{Depth: 1}, entries: []nar.Entry{root, d("a"), in("a/b")}, reason: "depth limit of 1"},
		"entries":              {limits: nar.Limits{Entries: 1}, entries: []nar.Entry{root, d("a")}, reason: "entries limit of 1"},
		"size":                 {limits: nar.Limits{Size: 111}, entries: []nar.Entry{{Type: nar.Regular}}, reason: "size limit of 111"},
		"size of a large file": {limits: nar.Limits{Size: 111}, entries: []nar.Entry{{Type: nar.Regular, Size: 200}}, reason: "size limit of 111"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := nar.NewWriter(io.Discard, test.limits)
			var err error
			for _, e := range test.entries {
				if err = w.WriteEntry(e); err != nil {
					break
				}
			}
			if closed := w.Close(); err == nil {
				err = closed
			} else if closed != err {
				t.Errorf("Close: %v, want the first error, %v", closed, err)
			}
			if err == nil || !strings.Contains(err.Error(), test.reason) {
				t.Errorf("error %v, want one with %q", err, test.reason)
			}
		})
	}
}

func TestWriterRefusesExcessContent(t *testing.T) {
	w := nar.NewWriter(io.Discard, nar.Limits{})
	if err := w.WriteEntry(nar.Entry{Type: nar.Regular, Size: 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "four"); err == nil || !strings.Contains(err.Error(), "1 bytes of content more") {
		t.Errorf("error %v", err)
	}
}

func TestWriterReportsTheStream(t *testing.T) {
	cause := errors.New("pipe broken")
	w := nar.NewWriter(failing{cause}, nar.Limits{})
	if err := w.WriteEntry(nar.Entry{Type: nar.Directory}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, cause) {
		t.Errorf("Close: %v, want %v", err, cause)
	}
	if err := nar.NewWriter(io.Discard, nar.Limits{}).Close(); err == nil {
		t.Error("an empty archive is no error")
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestWriterIsClosedOnce(t *testing.T) {
	var b bytes.Buffer
	w := nar.NewWriter(&b, nar.Limits{})
	w.WriteEntry(nar.Entry{Type: nar.Directory})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteEntry(nar.Entry{Path: "a", Type: nar.Directory}); err == nil {
		t.Error("an entry after Close is no error")
	}
	if diff := cmp.Diff(archive(directoryNode()), b.String()); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
}

// Sorting paths by Compare gives an order that Writer takes.
func TestCompare(t *testing.T) {
	want := []string{"", "a", "a/b", "a/b/c", "a/b-", "a-", "a-/x", "a.b", "ab", "b", "é"}
	got := slices.Clone(want)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
	slices.SortFunc(got, nar.Compare)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	for i, a := range want {
		for j, b := range want {
			if got := nar.Compare(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("Compare(%q, %q) = %d", a, b, got)
			}
		}
	}
}
