package egress

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// attempt is what the first bytes of a packet tell.
type attempt struct {
	protocol string // "tcp", "udp", or "ip-" and a number (IANA protocol numbers)
	to       netip.AddrPort
}

// parseAttempt reads the beginning of an IPv4 packet.
func parseAttempt(packet []byte) (attempt, bool) {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return attempt{}, false
	}
	length := int(packet[0]&0xf) * 4
	if length < 20 {
		return attempt{}, false
	}
	addr := netip.AddrFrom4([4]byte(packet[16:20]))
	a := attempt{"ip-" + strconv.Itoa(int(packet[9])), netip.AddrPortFrom(addr, 0)}
	switch packet[9] {
	case unix.IPPROTO_TCP:
		a.protocol = "tcp"
	case unix.IPPROTO_UDP:
		a.protocol = "udp"
	case unix.IPPROTO_ICMP: // what the kernel says of a refused packet
		return attempt{}, false
	default:
		return a, true
	}
	if len(packet) < length+4 {
		return attempt{}, false
	}
	a.to = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(packet[length+2:]))
	return a, true
}

// watch counts the attempts that no socket takes: those to ports that are not allowed at all. It returns when the socket
// is closed.
func (g *gateway) watch(observer int) {
	served := map[port]bool{}
	for _, p := range g.ports {
		served[port{p.Protocol, p.Number}] = true
	}
	file := pollable(observer, "observer")
	defer file.Close()
	stop := g.closeAtEnd(file)
	defer stop()
	packet := make([]byte, observed)
	for {
		n, err := file.Read(packet)
		if err != nil {
			return
		}
		a, ok := parseAttempt(packet[:n])
		if !ok || served[port{a.protocol, int(a.to.Port())}] || g.isAnswer(a) {
			continue
		}
		g.policy.refused(a.protocol, a.to.Addr().String(), int(a.to.Port()))
	}
}

// isAnswer reports whether a goes to the confined processes themselves: what they say to each other over the loopback
// interface, and answers by UDP from the Gateway.
func (g *gateway) isAnswer(a attempt) bool {
	return a.to.Addr() == Address || a.to.Addr().IsLoopback()
}
