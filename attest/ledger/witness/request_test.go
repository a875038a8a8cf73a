package witness

import (
	"fmt"
	"strings"
	"testing"
)

// Whatever is read as a request is written in one way only.
func FuzzParseRequest(f *testing.F) {
	const hash = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	f.Add("old 0\n\nlog.example\n0\n" + hash + "\n\n— x y\n")
	f.Add("old 3\n" + hash + "\n" + hash + "\n\nlog.example\n")
	f.Add("old 03\n\nx")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRequest([]byte(text))
		if err != nil {
			return
		}
		var b strings.Builder
		fmt.Fprintf(&b, "old %d\n", r.old)
		for _, h := range r.proof {
			fmt.Fprintln(&b, h)
		}
		if again := b.String() + "\n" + string(r.note); again != text {
			t.Errorf("%q was read, which is %q", text, again)
		}
	})
}
