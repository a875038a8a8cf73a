package archive

import (
	"maps"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// Split says what of a job's objects an entry keeps: the outputs, and what each reference became, by the reference's text; but
// nothing of a reference that one of the policy's pinsOnly matches: of that its pin stands for it.
func Split(sources map[string][]digest.SHA256, outputs []digest.SHA256, policy *manifest.Policy) (keep []digest.SHA256, pins []string) {
	keep = slices.Clone(outputs)
	for _, ref := range slices.Sorted(maps.Keys(sources)) {
		if slices.ContainsFunc(policy.Spec.Retention.PinsOnly, func(p string) bool { return matches(p, ref) || matches(p, location(ref)) }) {
			pins = append(pins, ref)
			continue
		}
		keep = append(keep, sources[ref]...)
	}
	slices.SortFunc(keep, func(a, b digest.SHA256) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(keep), pins
}

// location is a reference's text without its pin.
func location(ref string) string {
	if i := strings.LastIndexAny(ref, "#@"); i >= 0 {
		return ref[:i]
	}
	return ref
}

// matches reports whether text matches a pattern in which '*' stands for any run of characters but '/', and "**" for any run. It takes
// time in the product of both lengths at most.
func matches(pattern, text string) bool {
	at := make([]bool, len(text)+1) // which beginnings of text the pattern so far matches
	at[0] = true
	for i := 0; i < len(pattern); i++ {
		next := make([]bool, len(text)+1)
		switch {
		case pattern[i] == '*':
			deep := i+1 < len(pattern) && pattern[i+1] == '*'
			if deep {
				i++
			}
			for j := range next {
				next[j] = at[j] || j > 0 && next[j-1] && (deep || text[j-1] != '/')
			}
		default:
			for j := range text {
				next[j+1] = at[j] && text[j] == pattern[i]
			}
		}
		at = next
	}
	return at[len(text)]
}
