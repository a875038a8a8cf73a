package runnertest

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"arch.network/runner"
	"arch.network/runner/egress"
)

// networks are the cases of runner.Spec.Network.
func networks() []testCase {
	return []testCase{
		{"only what is allowed is reached, and counted", func(h *harness) {
			tcp, udp, other := h.echoTCP(), h.echoUDP(), h.echoTCP()
			spec := h.spec("reach", "tcp:"+tcp.String(), "udp:"+udp.String(), "tcp:"+other.String(), "tcp:[2001:db8::1]:1")
			spec.Network.Egress = []runner.Egress{
				{Protocol: "tcp", Host: "127.0.0.1", Port: int(tcp.Port())}, {Protocol: "udp", Host: "127.0.0.1", Port: int(udp.Port())},
			}
			result, out := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			h.equal(lines(out), []string{
				"tcp:" + tcp.String() + ": hello", "udp:" + udp.String() + ": hello", "tcp:" + other.String() + ": ECONNREFUSED", "tcp:[2001:db8::1]:1: ENETUNREACH",
			})
			if result.Network == nil {
				h.Fatal("no traffic is reported")
			}
			h.equal([]int64{result.Network.Sent, result.Network.Received, result.Network.Connections}, []int64{10, 10, 2})
			h.keeps(result, "network-egress")
		}},
		{"refused attempts are an anomaly", func(h *harness) {
			spec := h.spec("reach", "tcp:93.184.216.34:25", "tcp:93.184.216.34:25", "tcp:169.254.169.254:80")
			spec.Network.Egress = []runner.Egress{{Protocol: "tcp", Port: 80}}
			result, out := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			h.equal(lines(out), []string{"tcp:93.184.216.34:25: ECONNREFUSED", "tcp:93.184.216.34:25: ECONNREFUSED", "tcp:169.254.169.254:80: reset"})
			isRefusal := func(a runner.Anomaly) bool { return a.Kind == runner.AnomalyRefusedNetwork && a.Evidence != "" }
			if result.Network == nil || result.Network.Refused < 1 || !slices.ContainsFunc(result.Anomalies, isRefusal) {
				h.Errorf("got traffic %+v, anomalies %+v", result.Network, result.Anomalies)
			}
		}},
		{"the host's own ports are out of reach", func(h *harness) {
			server := h.echoTCP()
			var spec runner.Spec
			args := []string{"reach"}
			for _, a := range h.hostAddresses() {
				args = append(args, "tcp:"+netip.AddrPortFrom(a, server.Port()).String())
			}
			spec = h.spec(args...)
			spec.Network.Egress = []runner.Egress{{Protocol: "tcp", Port: int(server.Port())}}
			result, out := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			for _, line := range lines(out) {
				if !strings.HasSuffix(line, ": reset") {
					h.Errorf("got %q", line)
				}
			}
		}},
		{"programs find the resolver", func(h *harness) {
			spec := h.spec("dump", "/etc")
			spec.Network.Egress = []runner.Egress{{Protocol: "tcp", Port: 443}}
			text := "nameserver " + egress.Resolver.String() + "\n"
			h.says(spec, "/etc drwxr-xr-x 1", fmt.Sprintf("/etc/resolv.conf -r--r--r-- 1 %q", text))
			root := h.tree("bin/", "build/", "etc/", "etc/resolv.conf->/run/elsewhere")
			linked := spec
			linked.Mounts = append([]runner.Mount{{Kind: runner.Bind, Source: root, Target: "/"}}, spec.Mounts...)
			linked.Commands = []runner.Command{h.command("exit", "0")}
			result, _ := h.run(linked)
			h.ended(result, runner.ReasonExit, 0)
			spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Data, Target: "/etc/resolv.conf", Content: []byte("own")})
			h.says(spec, "/etc drwxr-xr-x 1", `/etc/resolv.conf -r--r--r-- 1 "own"`)
		}},
		{"other names are not resolved", func(h *harness) {
			spec := h.spec("resolve", egress.Resolver.String(), "other.test", "localhost")
			spec.Network.Egress = []runner.Egress{{Protocol: "tcp", Host: "allowed.test", Port: 443}}
			h.says(spec, "other.test: server misbehaving", "localhost: server misbehaving")
		}},
		{"rules that make no sense are refused", func(h *harness) {
			for want, rule := range map[string]runner.Egress{
				`protocol "icmp"`: {Protocol: "icmp", Port: 1}, "port 0": {Protocol: "tcp"}, `host "a b"`: {Protocol: "tcp", Host: "a b", Port: 1},
			} {
				spec := h.spec("exit", "0")
				spec.Network.Egress = []runner.Egress{rule}
				if err := h.refused(spec); !strings.Contains(err.Error(), want) {
					h.Errorf("got %q, want it to contain %q", err, want)
				}
			}
		}},
	}
}

// echoTCP starts a server on loopback that repeats what it hears.
func (h *harness) echoTCP() netip.AddrPort {
	h.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		h.Skip("cannot run here: no loopback interface: ", err)
	}
	h.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), l.Addr().(*net.TCPAddr).AddrPort().Port())
}

// echoUDP starts a server on loopback that repeats what it hears.
func (h *harness) echoUDP() netip.AddrPort {
	h.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		h.Skip("cannot run here: no loopback interface: ", err)
	}
	h.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// hostAddresses lists the host's addresses of IPv4, loopback included.
func (h *harness) hostAddresses() []netip.Addr {
	h.Helper()
	list, err := net.InterfaceAddrs()
	if err != nil {
		h.Fatal(err)
	}
	var found []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			found = append(found, p.Addr())
		}
	}
	return found
}
