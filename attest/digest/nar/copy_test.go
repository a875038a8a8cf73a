package nar_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/digest/nar"
)

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a": "", "b": strings.Repeat("text\n", 30_000)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var archive bytes.Buffer
	if err := nar.Dump(t.Context(), &archive, dir, nar.Options{}); err != nil {
		t.Fatal(err)
	}
	whole := archive.Bytes()
	for _, test := range []struct {
		name   string
		data   string
		limits nar.Limits
		want   string // in the error; empty: there is none
	}{
		{"whole, and something else", string(whole) + "rest", nar.Limits{}, ""},
		{"cut", string(whole[:len(whole)-1]), nar.Limits{}, "too early"},
		{"over a limit", string(whole), nar.Limits{Size: 1000}, "1000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := bufio.NewReaderSize(strings.NewReader(test.data), 64<<10)
			var got bytes.Buffer
			err := nar.Copy(&got, in, test.limits)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want one with %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), whole) {
				t.Error("the copy differs")
			}
			if rest, err := io.ReadAll(in); string(rest) != "rest" || err != nil {
				t.Errorf("behind it is %q, %v", rest, err)
			}
		})
	}
}
