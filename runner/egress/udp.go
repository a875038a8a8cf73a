package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxPacket is the largest payload of UDP.
const maxPacket = 65507

// packets is the socket inside of one UDP port.
type packets struct {
	g    *gateway
	conn *net.UDPConn

	mu       sync.Mutex // guards sessions
	sessions map[session]net.Conn
}

// session is who talks with whom.
type session struct{ from, to netip.AddrPort }

// receive takes packets until the gateway ends.
func (g *gateway) receive(file *os.File) {
	c, err := net.FilePacketConn(file)
	file.Close()
	if err != nil {
		return
	}
	conn := c.(*net.UDPConn)
	defer conn.Close()
	defer g.closeAtEnd(conn)()
	p := &packets{g: g, conn: conn, sessions: map[session]net.Conn{}}
	port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	packet, control := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))
	for {
		n, cn, _, from, err := conn.ReadMsgUDPAddrPort(packet, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		addr, ok := meant(control[:cn])
		if !ok {
			continue
		}
		p.packet(session{netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), netip.AddrPortFrom(addr, port)}, packet[:n])
	}
}

// meant returns the destination of a packet (IP_PKTINFO, ip(7)).
func meant(control []byte) (netip.Addr, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo {
			return netip.AddrFrom4([4]byte(m.Data[8:12])), true // ipi_addr
		}
	}
	return netip.Addr{}, false
}

// packet deals with one packet from inside.
func (p *packets) packet(s session, data []byte) {
	if s.to == netip.AddrPortFrom(Resolver, dnsPort) {
		query := append([]byte(nil), data...)
		p.g.ask(query, maxUDP, func(answer []byte) { p.reply(s, answer) })
		return
	}
	if !p.g.policy.allows("udp", s.to) {
		p.g.policy.refused("udp", s.to.Addr().String(), int(s.to.Port()))
		p.g.prohibit(s.from, s.to)
		return
	}
	if far := p.session(s); far != nil {
		if n, err := far.Write(data); err == nil {
			p.g.policy.moved(int64(n), 0)
		}
	}
}

// session returns the socket outside for s, or nil if there cannot be one.
func (p *packets) session(s session) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	far := p.sessions[s]
	if far == nil && len(p.sessions) < maxSessions {
		var err error
		if far, err = p.g.reach.dial(p.g.ctx, "udp4", s.to.String()); err != nil {
			return nil
		}
		p.sessions[s] = far
		p.g.policy.connected()
		p.g.busy.Go(func() { p.answers(s, far) })
	}
	if far != nil {
		far.SetReadDeadline(time.Now().Add(sessionIdle))
	}
	return far
}

// answers passes on what comes back, until nothing has moved for long.
func (p *packets) answers(s session, far net.Conn) {
	defer func() {
		p.mu.Lock()
		delete(p.sessions, s)
		p.mu.Unlock()
		far.Close()
	}()
	defer p.g.closeAtEnd(far)()
	packet := make([]byte, maxPacket)
	for {
		n, err := far.Read(packet)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.Canceled) {
			return
		}
		if err != nil { // nobody listens there: the next packet asks again
			continue
		}
		far.SetReadDeadline(time.Now().Add(sessionIdle))
		p.g.policy.moved(0, int64(n))
		p.reply(s, packet[:n])
	}
}

// reply sends data inside, from the address that was meant.
func (p *packets) reply(s session, data []byte) {
	p.conn.WriteMsgUDPAddrPort(data, source(s.to.Addr()), s.from)
}

// source is the control message that makes a packet come from a.
func source(a netip.Addr) []byte {
	control := make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
	h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	copy(control[unix.CmsgLen(0)+4:], a.AsSlice()) // ipi_spec_dst
	return control
}
