package egress

import "net/netip"

// special are the special-purpose ranges of IPv4 (RFC 6890 and the IANA registry that it founded), multicast (RFC 5771) and
// what is reserved (RFC 1112). Cloud metadata services lie in 169.254.0.0/16.
var special = []netip.Prefix{
	prefix(0, 0, 0, 0, 8),
	prefix(10, 0, 0, 0, 8),
	prefix(100, 64, 0, 0, 10),
	prefix(127, 0, 0, 0, 8),
	prefix(169, 254, 0, 0, 16),
	prefix(172, 16, 0, 0, 12),
	prefix(192, 0, 0, 0, 24),
	prefix(192, 0, 2, 0, 24),
	prefix(192, 31, 196, 0, 24),
	prefix(192, 52, 193, 0, 24),
	prefix(192, 88, 99, 0, 24),
	prefix(192, 168, 0, 0, 16),
	prefix(192, 175, 48, 0, 24),
	prefix(198, 18, 0, 0, 15),
	prefix(198, 51, 100, 0, 24),
	prefix(203, 0, 113, 0, 24),
	prefix(224, 0, 0, 0, 4),
	prefix(240, 0, 0, 0, 4),
}

func prefix(a, b, c, d byte, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b, c, d}), bits)
}

// isSpecial reports whether no ordinary host of the internet has the address. Every address that is not of IPv4 is special.
func isSpecial(a netip.Addr) bool {
	if !a.Is4() {
		return true
	}
	for _, p := range special {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
