package canonical_test

import (
	"fmt"
	"strings"
	"testing"

	"arch.network/attest/canonical"
	"github.com/gowebpki/jcs"
)

// BenchmarkTransform shows, by MB/s that stay about the same, that the time is linear in the size whatever the input is; beside it
// gowebpki/jcs on the same input.
func BenchmarkTransform(b *testing.B) {
	shapes := map[string]func(n int) string{
		"document": func(n int) string {
			member := `{"uri": "https://example.com/a", "digest": {"sha256": "0123456789abcdef"}, "name": "n", "size": 1234},`
			return `{"spec": [` + strings.Repeat(member, n/len(member)) + `0], "kind": "Build"}`
		},
		"members in reverse": func(n int) string {
			var s strings.Builder
			for i := n / 12; i > 0; i-- {
				fmt.Fprintf(&s, `"%07d":0,`, i)
			}
			return "{" + s.String() + `"":0}`
		},
		"unsorted at every level": func(n int) string {
			const levels = canonical.MaxDepth - 1
			return strings.Repeat(`{"b":`, levels) + `"` + strings.Repeat("x", n) + `"` + strings.Repeat(`,"a":0}`, levels)
		},
		"empty arrays": func(n int) string { return "[" + strings.Repeat("[],", n/3) + "0]" },
		"escapes":      func(n int) string { return `"` + strings.Repeat(`\u0001`, n/6) + `"` },
		"numbers":      func(n int) string { return "[" + strings.Repeat("1.7976931348623157e308,", n/23) + "0]" },
	}
	for name, shape := range shapes {
		for _, size := range []int{2 << 10, 64 << 10, 8 << 20} {
			in := []byte(shape(size))
			for who, transform := range map[string]func([]byte) ([]byte, error){"ours": canonical.Transform, "jcs": jcs.Transform} {
				b.Run(fmt.Sprintf("%s/%dK/%s", name, size>>10, who), func(b *testing.B) {
					b.SetBytes(int64(len(in)))
					b.ReportAllocs()
					for b.Loop() {
						if _, err := transform(in); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
