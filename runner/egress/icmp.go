package egress

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes and numbers of ICMP (RFC 792, RFC 1812 5.2.7.1) and of what it quotes (RFC 791, RFC 768).
const (
	icmpUnreachable = 3
	icmpProhibited  = 13 // communication administratively prohibited: EHOSTUNREACH to who sent the packet
	icmpHeader      = 8
	ipHeader        = 20
	udpHeader       = 8
)

// prohibited makes the message that says that a packet of UDP from one address to the other was refused. It quotes the beginning of
// that packet, by which the kernel finds the socket.
func prohibited(from, to netip.AddrPort) []byte {
	msg := make([]byte, icmpHeader+ipHeader+udpHeader)
	msg[0], msg[1] = icmpUnreachable, icmpProhibited
	ip := msg[icmpHeader:]
	ip[0] = 4<<4 | ipHeader/4
	binary.BigEndian.PutUint16(ip[2:], ipHeader+udpHeader)
	ip[8], ip[9] = 64, unix.IPPROTO_UDP // time to live
	copy(ip[12:], from.Addr().AsSlice())
	copy(ip[16:], to.Addr().AsSlice())
	udp := ip[ipHeader:]
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], udpHeader)
	binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	return msg
}

// checksum is the one's complement of the one's complement sum of b (RFC 1071), which has an even length.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// prohibit tells a confined process that its packet was refused. A message that cannot be sent at once is lost, as packets may be.
func (g *gateway) prohibit(from, to netip.AddrPort) {
	unix.Sendto(g.icmp, prohibited(from, to), unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: from.Addr().As4()})
}
