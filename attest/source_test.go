package attest

import (
	"bytes"
	"fmt"
	"testing"
)

// The decoder refuses to work within less memory than its smallest window, so small sources are a case of their own.
func TestSourceSizes(t *testing.T) {
	for _, size := range []int{0, 1, 700, 1023, 1024, 1025, 70_000, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			content := bytes.Repeat([]byte("abcdefgh\n"), size/9+1)[:size]
			s, err := NewSource(MediaNARZstd, "src", content)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Open()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, content) {
				t.Errorf("opened %d bytes, which are not the %d that were packed", len(got), len(content))
			}
		})
	}
}
