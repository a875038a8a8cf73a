// Package egress lets confined processes make the outgoing connections that a runner.Network names, and no others.
//
// A job with network access has a network namespace of its own, and in it nothing but a loopback interface on which every
// IPv4 address of the world is local ("AnyIP": a route of type local to 0.0.0.0/0). For each allowed port one socket listens there
// on all addresses. It is made inside by Inside, and passed out to the Gateway, a process of its own, which accepts each
// connection, looks at the address that was meant (getsockname), and makes the real connection from the host's network, or
// resets; a packet of UDP to an address that is not allowed is answered by ICMP (administratively prohibited). No other
// socket listens: the kernel resets whatever else is tried. So packets are parsed by the kernel alone, no
// user-space network stack is needed, nor /dev/net/tun, nor any privilege on the host; and bytes pass without being
// copied through user space (splice(2)).
//
// What it promises: only what Rules allow leaves; names are resolved by the Gateway, which answers for allowed names only, at
// the address Resolver, port 53; an address that a name resolves to is reached only if the Gateway itself has resolved it;
// special-purpose addresses (RFC 6890) and the host's own are refused unless a rule names them as addresses, whatever a
// name resolves to; each attempt is counted, and the first refused ones are listed. The Gateway has no file system, no privileges, and few
// system calls. When it ends, the namespace has no way out any more.
//
// What can be noticed inside: a connection that is allowed but fails outside, or that is refused for its address on an allowed
// port, is accepted first and then reset; an allowed port cannot be listened on; there is no IPv6; names have addresses of
// IPv4 alone, and no other records.
//
// What it never does: decide what is allowed; look at what is said; reach anything by itself but the name servers it was given.
package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"arch.network/runner"
)

// Addresses inside, from a private range as most user-space networks have it.
var (
	// Resolver is the address inside at which names are resolved, by UDP and TCP, port 53: what /etc/resolv.conf should say.
	Resolver = netip.AddrFrom4([4]byte{10, 0, 2, 2})
	// Address is that of the confined processes.
	Address = netip.AddrFrom4([4]byte{10, 0, 2, 15})
)

// Bounds of what a Network may ask for.
const (
	MaxRules = 256
	MaxPorts = 64 // different pairs of protocol and port
)

// Validate reports what is wrong with n.
func Validate(n runner.Network) error {
	if len(n.Egress) > MaxRules {
		return fmt.Errorf("network: %d rules are more than %d", len(n.Egress), MaxRules)
	}
	for _, e := range n.Egress {
		if err := validateRule(e); err != nil {
			return fmt.Errorf("network: rule %s: %w", describe(e.Protocol, e.Host, e.Port), err)
		}
	}
	if ports := portsOf(n); len(ports) > MaxPorts {
		return fmt.Errorf("network: %d different ports are more than %d", len(ports), MaxPorts)
	}
	return nil
}

func validateRule(e runner.Egress) error {
	if e.Protocol != "tcp" && e.Protocol != "udp" {
		return fmt.Errorf("protocol %q is neither tcp nor udp", e.Protocol)
	}
	if e.Port < 1 || e.Port > 65535 {
		return fmt.Errorf("port %d is not between 1 and 65535", e.Port)
	}
	if e.Host == "" {
		return nil
	}
	if a, err := netip.ParseAddr(e.Host); err == nil {
		if !a.Is4() {
			return fmt.Errorf("address %s is not one of IPv4, which alone is offered", a)
		}
		return nil
	}
	if !validName(e.Host) {
		return fmt.Errorf("host %q is neither an address nor a DNS name", e.Host)
	}
	return nil
}

// validName reports whether name is a DNS name as RFC 1123 (2.1) has it, with underscores, and with or without a dot at its end.
func validName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		bad := func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
		}
		if len(label) == 0 || len(label) > 63 || strings.ContainsFunc(label, bad) {
			return false
		}
	}
	return true
}

// canonical is the form in which names are compared.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// port is what one socket inside stands for.
type port struct {
	Protocol string
	Number   int
}

// dnsPort is where names are resolved, by both protocols.
const dnsPort = 53

// portsOf lists, sorted, the sockets that n needs.
func portsOf(n runner.Network) []port {
	list := []port{{"tcp", dnsPort}, {"udp", dnsPort}}
	for _, e := range n.Egress {
		list = append(list, port{e.Protocol, e.Port})
	}
	slices.SortFunc(list, func(a, b port) int {
		if a.Protocol != b.Protocol {
			return strings.Compare(a.Protocol, b.Protocol)
		}
		return a.Number - b.Number
	})
	return slices.Compact(list)
}

func describe(protocol, host string, port int) string {
	return fmt.Sprintf("%s:%s:%d", protocol, host, port)
}
