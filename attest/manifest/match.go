package manifest

// Matches matches a name or a location against a pattern of attestations, images and pinsOnly in a Policy: * is any run of
// characters but '/', ** any run. It takes time proportional to the product of the lengths.
func Matches(pattern, name string) bool {
	// can[i] says whether what was read of the pattern matches name[:i].
	can := make([]bool, len(name)+1)
	can[0] = true
	for p := 0; p < len(pattern); p++ {
		if pattern[p] != '*' {
			for i := len(name); i > 0; i-- {
				can[i] = can[i-1] && name[i-1] == pattern[p]
			}
			can[0] = false
			continue
		}
		deep := p+1 < len(pattern) && pattern[p+1] == '*'
		if deep {
			p++
		}
		for i := 1; i <= len(name); i++ {
			can[i] = can[i] || can[i-1] && (deep || name[i-1] != '/')
		}
	}
	return can[len(name)]
}
