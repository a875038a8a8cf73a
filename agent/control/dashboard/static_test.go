package dashboard

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

// TestVendored holds the files that others wrote to the hashes of their releases at npm: htmx.org 4.0.1 and uplot 1.6.32.
func TestVendored(t *testing.T) {
	sums, err := files.ReadFile("static/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sums)) {
		want, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		data, err := files.ReadFile("static/" + name)
		if err != nil {
			t.Error(err)
		} else if got := fmt.Sprintf("%x", sha256.Sum256(data)); got != want {
			t.Errorf("%s has the hash %s, want %s", name, got, want)
		}
	}
}
