package egress

import (
	"net/netip"
	"os"
	"strings"
)

// maxResolvers is how many name servers count, as in resolv.conf(5).
const maxResolvers = 3

// hostResolvers reads the name servers from a file as resolv.conf(5) describes it. Without one there are none, and no name has
// an address.
func hostResolvers(name string) []netip.AddrPort {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	var list []netip.AddrPort
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(list) == maxResolvers {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a, dnsPort))
		}
	}
	return list
}
