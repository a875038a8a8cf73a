package egress

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
)

// onLoopback allows TCP to server, which lies on the host's loopback interface.
func onLoopback(server netip.AddrPort) runner.Network {
	return runner.Network{Egress: []runner.Egress{
		{Protocol: "tcp", Host: "127.0.0.1", Port: int(server.Port())},
		{Protocol: "udp", Host: "127.0.0.1", Port: int(server.Port())},
		{Protocol: "tcp", Host: "allowed.test", Port: 443},
	}}
}

func startGateway(t *testing.T, n runner.Network) *Gateway {
	t.Helper()
	g, err := Start(n, Options{Resolvers: []netip.AddrPort{nameServer(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Stop()
		if left := children(t); len(left) > 0 {
			t.Errorf("processes are left: %q", left)
		}
	})
	return g
}

func children(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/thread-self/children")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// nameServer answers every query for an address with 93.184.216.34.
func nameServer(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Skip("cannot run here: no loopback interface: ", err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, maxQuery)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if q, err := parseQuery(b[:n]); err == nil {
				c.WriteToUDPAddrPort(q.answer(codeOK, []netip.Addr{netip.MustParseAddr("93.184.216.34")}, maxUDP), from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestGatewayProcess(t *testing.T) {
	server := echoServer(t, "tcp")
	g := startGateway(t, onLoopback(server))
	j := startJob(t, onLoopback(server), g.Link())
	g.Unlink()
	for _, s := range []struct{ do, want string }{
		{"echo tcp " + server.String(), "hello"},
		{"echo tcp 127.0.0.1:1", "ECONNREFUSED"},
		{"dns udp allowed.test", "[93.184.216.34] <nil>"},
		{"dns udp other.test", "server misbehaving"},
		{"parallel " + server.String() + " 100", "100 of 100"},
	} {
		if got := j.do(s.do); got != s.want {
			t.Errorf("%s: got %q, want %q", s.do, got, s.want)
		}
	}
	if got := j.do("bulk " + server.String() + " 50000000"); !strings.HasPrefix(got, "ok ") {
		t.Errorf("got %q", got)
	}
	j.in.Close()
	j.cmd.Wait()
	traffic, err := g.Stop()
	if err != nil {
		t.Fatal(err)
	}
	want := runner.Traffic{Sent: 50000000 + 101*5, Received: 50000000 + 101*5, Connections: 102, Refused: 2, RefusedTo: []string{"dns:other.test:53"}}
	if diff := cmp.Diff(want, traffic); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if list := Refusals(traffic, 1); len(list) != 1 || list[0].Evidence != `2 attempts to reach what is not allowed, to "dns:other.test:53"; none is expected` {
		t.Errorf("got %+v", list)
	}
}

func TestGatewayProcessKilled(t *testing.T) {
	server := echoServer(t, "tcp")
	g := startGateway(t, onLoopback(server))
	j := startJob(t, onLoopback(server), g.Link())
	g.Unlink()
	if got := j.do("echo tcp " + server.String()); got != "hello" {
		t.Errorf("got %q", got)
	}
	g.cmd.Process.Kill()
	g.cmd.Process.Wait()
	for _, do := range []string{"echo tcp " + server.String(), "echo udp " + server.String()} {
		if got := j.do(do); got != "ECONNREFUSED" {
			t.Errorf("%s: got %q", do, got)
		}
	}
	if traffic, err := g.Stop(); err == nil {
		t.Errorf("got %+v and no error", traffic)
	}
}

// TestGatewayIsConfined looks at the process from outside.
func TestGatewayIsConfined(t *testing.T) {
	server := echoServer(t, "tcp")
	g := startGateway(t, onLoopback(server))
	j := startJob(t, onLoopback(server), g.Link())
	j.do("echo tcp " + server.String()) // it serves, so it is confined by now
	data, err := os.ReadFile("/proc/" + strconv.Itoa(g.cmd.Process.Pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapEff:\t0000000000000000\n"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%q is not in\n%s", want, data)
		}
	}
	if os.Geteuid() == 0 && !strings.Contains(string(data), "Uid:\t65534\t65534\t65534\t65534\n") {
		t.Errorf("it runs as\n%s", data)
	}
}
