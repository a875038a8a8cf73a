package manifest

import (
	"maps"
	"regexp"
	"strings"
	"testing"
)

// TestPatternBounds holds each rule against its whole expression, as the schema has it, around its bounds.
func TestPatternBounds(t *testing.T) {
	rules := map[string]pattern{"ociTag": ociTag, "storeRef": storeRef}
	maps.Copy(rules, patterns)
	store := "/nix/store/" + strings.Repeat("0", 32) + "-"
	for name, p := range rules {
		whole := regexp.MustCompile(p.text)
		yes, no := 0, 0
		for _, n := range []int{0, 1, 2, 7, 8, 9, 62, 63, 64, 65, 127, 128, 129, 210, 211, 212, 255, 256, 257} {
			part := strings.Repeat("a", n)
			for _, s := range []string{
				part, part + "-", part + ".a", "a." + part, part + "." + part, "user:" + part, part + ":a", part + ":" + part,
				"a:b:" + part, store + part, "/" + part, part + "\n", part + "é",
			} {
				want := whole.MatchString(s)
				if got := p.match(s); got != want {
					t.Errorf("%s: match(%q) = %v, but its expression says %v", name, s, got, want)
				}
				if want {
					yes++
				} else {
					no++
				}
			}
		}
		if p.fits != nil && (yes == 0 || no == 0) {
			t.Errorf("%s: %d matched and %d did not: nothing is tried at its bounds", name, yes, no)
		}
	}
}
