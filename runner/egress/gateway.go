package egress

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// Bounds of what one job may keep the Gateway busy with. Above them, connections wait, and packets are lost.
const (
	maxConnections = 512
	maxSessions    = 256 // pairs of a job's UDP port and a destination
	maxQuestions   = 64  // names being resolved
)

// How long the Gateway waits.
const (
	dialTimeout    = 10 * time.Second
	resolveTimeout = 10 * time.Second
	sessionIdle    = time.Minute // RFC 4787 (4.3) asks for two minutes; DNS and NTP need seconds
)

// reach is how the Gateway gets out.
type reach struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	resolve func(ctx context.Context, name string) ([]netip.Addr, error) // a *net.DNSError if there is no such name
}

// gateway serves the sockets of one network namespace.
type gateway struct {
	policy *policy
	reach  reach
	ports  []port
	icmp   int // a socket

	ctx         context.Context
	busy        sync.WaitGroup
	connections chan struct{}
	questions   chan struct{}
}

// serve takes the sockets that sendSockets sent, and returns when ctx is done and everything is closed.
func serve(ctx context.Context, p *policy, r reach, ports []port, fds []int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := &gateway{
		policy: p, reach: r, ports: ports, icmp: fds[len(ports)+1], ctx: ctx,
		connections: make(chan struct{}, maxConnections), questions: make(chan struct{}, maxQuestions),
	}
	for n, p := range ports {
		file := pollable(fds[n], p.Protocol)
		if p.Protocol == "tcp" {
			g.busy.Go(func() { g.accept(file) })
		} else {
			g.busy.Go(func() { g.receive(file) })
		}
	}
	g.busy.Go(func() { g.watch(fds[len(ports)]) })
	<-ctx.Done()
	g.busy.Wait()
	unix.Close(g.icmp)
}

// pollable makes a file of fd that can be closed while it is read.
func pollable(fd int, name string) *os.File {
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// closer is what a blocked goroutine waits on.
type closer interface{ Close() error }

// closeAtEnd closes c when the gateway ends, unless stop is called before.
func (g *gateway) closeAtEnd(c closer) (stop func() bool) {
	return context.AfterFunc(g.ctx, func() { c.Close() })
}

// ownAddresses lists the addresses of the host's interfaces.
func ownAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, addr.Unmap())
			}
		}
	}
	return own, nil
}

// resolveBy returns a resolver that asks these name servers alone, in turn, and no file.
func resolveBy(servers []netip.AddrPort) func(ctx context.Context, name string) ([]netip.Addr, error) {
	return func(ctx context.Context, name string) (addrs []netip.Addr, err error) {
		err = &net.DNSError{Err: "there is no name server", Name: name}
		for _, server := range servers {
			r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, server.String())
			}}
			if addrs, err = r.LookupNetIP(ctx, "ip4", name+"."); err == nil || notFound(err) {
				return addrs, err
			}
		}
		return nil, err
	}
}

// outside is how the Gateway gets out where nothing else is said.
func outside(servers []netip.AddrPort) reach {
	d := &net.Dialer{Timeout: dialTimeout}
	return reach{dial: d.DialContext, resolve: resolveBy(servers)}
}

// Refusals makes an anomaly of what was refused, or none.
func Refusals(t runner.Traffic, at time.Duration) []runner.Anomaly {
	if t.Refused == 0 {
		return nil
	}
	return []runner.Anomaly{{Kind: runner.AnomalyRefusedNetwork, At: at, Evidence: evidence(t)}}
}
