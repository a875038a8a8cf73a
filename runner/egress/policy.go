package egress

import (
	"net/netip"
	"slices"
	"sync"

	"arch.network/runner"
)

// Bounds of what the Gateway remembers of a hostile job.
const (
	maxResolved  = 4096 // addresses that names were resolved to
	maxRefusedTo = 16   // see runner.Traffic
)

// policy decides what may leave, and counts. It may be used by several goroutines at once.
type policy struct {
	rules []runner.Egress
	own   func() []netip.Addr // the host's addresses

	mu       sync.Mutex // guards the rest
	resolved map[netip.Addr][]string
	traffic  runner.Traffic
}

func newPolicy(n runner.Network, own func() []netip.Addr) *policy {
	return &policy{rules: n.Egress, own: own, resolved: map[netip.Addr][]string{}}
}

// allows reports whether a rule lets a connection to addr through.
func (p *policy) allows(protocol string, to netip.AddrPort) bool {
	a := to.Addr().Unmap()
	ordinary := !isSpecial(a) && !slices.Contains(p.own(), a)
	for _, r := range p.rules {
		if r.Protocol != protocol || r.Port != int(to.Port()) {
			continue
		}
		named, err := netip.ParseAddr(r.Host)
		switch {
		case err == nil && named == a:
			return true
		case err == nil:
		case ordinary && (r.Host == "" || p.wasResolved(a, r.Host)):
			return true
		}
	}
	return false
}

func (p *policy) wasResolved(a netip.Addr, name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.resolved[a], canonical(name))
}

// mayResolve reports whether name may be asked for.
func (p *policy) mayResolve(name string) bool {
	return slices.ContainsFunc(p.rules, func(r runner.Egress) bool {
		return r.Host == "" || canonical(r.Host) == canonical(name)
	})
}

// admit remembers that name was resolved to addrs, and returns those that may be told: a name that points to a
// special-purpose address, or to the host itself, is an attack (DNS rebinding) unless a rule names the address as well.
func (p *policy) admit(name string, addrs []netip.Addr) []netip.Addr {
	own := p.own()
	var told []netip.Addr
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range addrs {
		a = a.Unmap()
		if !a.Is4() || (isSpecial(a) || slices.Contains(own, a)) && !p.names(a) {
			continue
		}
		told = append(told, a)
		if len(p.resolved) < maxResolved && !slices.Contains(p.resolved[a], canonical(name)) {
			p.resolved[a] = append(p.resolved[a], canonical(name))
		}
	}
	return told
}

// names reports whether a rule names the address.
func (p *policy) names(a netip.Addr) bool {
	return slices.ContainsFunc(p.rules, func(r runner.Egress) bool { return r.Host == a.String() })
}

// connected counts a connection that was let through.
func (p *policy) connected() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traffic.Connections++
}

// moved counts bytes of payload.
func (p *policy) moved(sent, received int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traffic.Sent += sent
	p.traffic.Received += received
}

// refused counts an attempt that was not let through.
func (p *policy) refused(protocol, host string, port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traffic.Refused++
	what := describe(protocol, host, port)
	if len(p.traffic.RefusedTo) < maxRefusedTo && !slices.Contains(p.traffic.RefusedTo, what) {
		p.traffic.RefusedTo = append(p.traffic.RefusedTo, what)
	}
}

// sum returns what was counted so far.
func (p *policy) sum() runner.Traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.traffic
	t.RefusedTo = slices.Sorted(slices.Values(t.RefusedTo))
	return t
}
