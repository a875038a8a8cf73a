package nix

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// download is an address that Nix did not reach, and why.
type download struct{ url, reason string }

func (d download) String() string { return d.url + ": " + d.reason }

// notDownloaded is how Nix says so, since 2.4 at least: the reason is curl's, or an answer of HTTP.
var notDownloaded = regexp.MustCompile(`unable to download '([^'\s]+)': ([^;\n]+)`)

// unreachable finds in what Nix wrote the addresses that it needed and did not reach; and, in warnings, the substituters that it can do
// without. Each is there once, without the password that it may have.
func unreachable(output string) (needed, caches []download) {
	for line := range strings.Lines(output) {
		found := notDownloaded.FindStringSubmatch(line)
		if found == nil || strings.Contains(line, "; retrying in ") {
			continue
		}
		d := download{withoutPassword(found[1]), strings.TrimSpace(found[2])}
		list := &needed
		if strings.HasPrefix(line, "warning:") {
			list, d.url = &caches, strings.TrimSuffix(d.url, "/nix-cache-info")
		}
		if !slices.ContainsFunc(*list, func(o download) bool { return o.url == d.url }) {
			*list = append(*list, d)
		}
	}
	return needed, caches
}

func withoutPassword(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that is none"
	}
	return u.Redacted()
}
