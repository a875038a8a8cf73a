package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"arch.network/attest/digest"

	"github.com/google/go-cmp/cmp"
)

// What a job prints arrives whole however it is cut, and harmless where a terminal would act on it.
func TestStream(t *testing.T) {
	const text = "plain\n\x1b]0;owned\x07 ä€𝄞\u202e end"
	const head = `{"apiVersion":"arch.network/v1","kind":"JobOutput",`
	const safe = "plain\n\\x1b]0;owned\\x07 ä€𝄞\\u202e end"
	for _, tt := range []struct {
		name       string
		json, term bool
		out, err   string
	}{
		{"file", false, false, text, ""},
		{"terminal", false, true, safe, ""},
		{"json", true, false, "", head + `"stdout":"plain\n"}` + "\n" + head + `"stdout":"\u001b]0;owned\u0007 ä€𝄞\u202e end"}` + "\n"},
	} {
		for _, size := range []int{1, 2, 3, 7, len(text)} {
			var out, errout bytes.Buffer
			a := newApp(strings.NewReader(""), &out, &errout)
			a.json = tt.json
			s := newStream(a, "stdout", &out)
			s.safe = tt.term
			for rest := []byte(text); len(rest) > 0; {
				n := min(size, len(rest))
				if k, err := s.Write(rest[:n]); k != n || err != nil {
					t.Fatal(k, err)
				}
				rest = rest[n:]
			}
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.out, out.String()); diff != "" {
				t.Errorf("%s in pieces of %d: stdout (-want +got)\n%s", tt.name, size, diff)
			}
			if diff := cmp.Diff(tt.err, errout.String()); diff != "" {
				t.Errorf("%s in pieces of %d: stderr (-want +got)\n%s", tt.name, size, diff)
			}
			if p := s.printed(); p.Size != int64(len(text)) || p.Digest != digest.Of([]byte(text)) {
				t.Errorf("%s: printed %d bytes, %s", tt.name, p.Size, p.Digest)
			}
		}
	}
}

// A reader that has gone does not end the job; it is told of at the end.
func TestStreamWithoutReader(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	s := newStream(newApp(nil, w, w), "stdout", w)
	if n, err := s.Write([]byte("hello")); n != 5 || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	if s.flush() == nil {
		t.Error("nobody was told that the output went nowhere")
	}
}
