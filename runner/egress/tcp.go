package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
)

// accept takes connections until the gateway ends.
func (g *gateway) accept(file *os.File) {
	l, err := net.FileListener(file)
	file.Close()
	if err != nil {
		return // the port is closed then: whoever connects is reset
	}
	defer l.Close()
	defer g.closeAtEnd(l)()
	for {
		select {
		case g.connections <- struct{}{}:
		case <-g.ctx.Done():
			return
		}
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors for a moment, or reset before it was accepted
			<-g.connections
			continue
		}
		g.busy.Go(func() {
			defer func() { <-g.connections }()
			g.connection(conn.(*net.TCPConn))
		})
	}
}

// connection serves one accepted connection to its end. Its local address is the one that was meant.
func (g *gateway) connection(conn *net.TCPConn) {
	defer conn.Close()
	defer g.closeAtEnd(conn)()
	to := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if to == netip.AddrPortFrom(Resolver, dnsPort) {
		g.questionsByTCP(conn)
		return
	}
	if !g.policy.allows("tcp", to) {
		g.policy.refused("tcp", to.Addr().String(), int(to.Port()))
		reset(conn)
		return
	}
	ctx, cancel := context.WithTimeout(g.ctx, dialTimeout)
	defer cancel()
	far, err := g.reach.dial(ctx, "tcp4", to.String())
	if err != nil {
		reset(conn)
		return
	}
	defer far.Close()
	defer g.closeAtEnd(far)()
	g.policy.connected()
	g.relay(conn, far)
}

// reset closes conn so that the other side sees an error, not an end.
func reset(conn *net.TCPConn) {
	conn.SetLinger(0)
	conn.Close()
}

// relay copies both ways until both have ended, or one has failed.
func (g *gateway) relay(near *net.TCPConn, far net.Conn) {
	var both sync.WaitGroup
	both.Go(func() { g.pass(far, near, near, func(n int64) { g.policy.moved(n, 0) }) })
	both.Go(func() { g.pass(near, far, near, func(n int64) { g.policy.moved(0, n) }) })
	both.Wait()
}

// counted is how many bytes are passed before they are counted.
const counted = 1 << 20

// pass copies from one side to the other, and its end as well; an error resets near.
func (g *gateway) pass(to, from net.Conn, near *net.TCPConn, count func(int64)) {
	for {
		n, err := io.CopyN(to, from, counted)
		count(n)
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			reset(near)
			to.Close()
			from.Close()
			return
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
		return
	}
}
