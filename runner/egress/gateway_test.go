package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// world is a gateway in this process, whose way out is made up: addresses of the internet lead to servers on loopback.
type world struct {
	*job
	policy *policy
}

// names that the made-up world has.
var names = map[string][]netip.Addr{
	"allowed.test":  {netip.MustParseAddr("93.184.216.34")},
	"other.test":    {netip.MustParseAddr("93.184.216.35")},
	"rebound.test":  {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254")},
	"mixed.test":    {netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("93.184.216.36")},
	"own.test":      {netip.MustParseAddr("8.8.4.4")},
	"many.test":     manyAddresses(100),
	"upper.example": {netip.MustParseAddr("93.184.216.37")},
}

func manyAddresses(n int) (list []netip.Addr) {
	for i := range n {
		list = append(list, netip.AddrFrom4([4]byte{93, 184, 217, byte(i)}))
	}
	return list
}

func newWorld(t *testing.T, n runner.Network, servers map[string]netip.AddrPort) world {
	t.Helper()
	p := newPolicy(n, func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("8.8.4.4")} })
	r := reach{
		dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			server, ok := servers[network[:3]+" "+address]
			if !ok {
				return nil, fmt.Errorf("%s %s: %w", network, address, unix.ECONNREFUSED)
			}
			var d net.Dialer
			return d.DialContext(ctx, network, server.String())
		},
		resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			if list, ok := names[name]; ok {
				return list, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		},
	}
	near, far, err := pair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	link, err := unix.Dup(int(far.Fd())) // blocking, as the gateway process has it
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveLink(ctx, p, r, os.NewFile(uintptr(link), "link")) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	j := startJob(t, n, near)
	near.Close()
	return world{j, p}
}

func TestOnlyWhatIsAllowedLeaves(t *testing.T) {
	servers := map[string]netip.AddrPort{}
	tcp, udp := echoServer(t, "tcp"), echoServer(t, "udp")
	for _, a := range []string{"93.184.216.34:443", "93.184.216.35:443", "93.184.216.34:25", "169.254.169.254:80", "169.254.169.254:443", "127.0.0.1:443", "10.0.0.1:443", "8.8.4.4:443", "192.168.7.7:8443", "1.1.1.1:80"} {
		servers["tcp "+a], servers["udp "+a] = tcp, udp // everything could be reached
	}
	named := runner.Network{Egress: []runner.Egress{
		{Protocol: "tcp", Host: "allowed.test", Port: 443},
		{Protocol: "udp", Host: "allowed.test", Port: 443},
		{Protocol: "tcp", Host: "rebound.test", Port: 443},
		{Protocol: "tcp", Host: "mixed.test", Port: 443},
		{Protocol: "tcp", Host: "own.test", Port: 443},
		{Protocol: "tcp", Host: "192.168.7.7", Port: 8443},
		{Protocol: "tcp", Host: "1.1.1.1", Port: 80},
		{Protocol: "tcp", Host: "UPPER.Example.", Port: 443},
		{Protocol: "tcp", Host: "many.test", Port: 443},
	}}
	anyHost := runner.Network{Egress: []runner.Egress{{Protocol: "tcp", Port: 443}, {Protocol: "udp", Port: 443}}}
	type step struct{ do, want string }
	tests := []struct {
		name    string
		network runner.Network
		steps   []step
		want    runner.Traffic
	}{
		{"a name is reached once it was resolved", named, []step{
			{"echo tcp 93.184.216.34:443", "reset"},
			{"dns udp allowed.test", "[93.184.216.34] <nil>"},
			{"echo tcp 93.184.216.34:443", "hello"},
			{"echo udp 93.184.216.34:443", "hello"},
			{"echo tcp 93.184.216.34:25", "ECONNREFUSED"},
			{"echo tcp 93.184.216.35:443", "reset"},
		}, runner.Traffic{Sent: 10, Received: 10, Connections: 2, Refused: 3, RefusedTo: []string{"tcp:93.184.216.34:25", "tcp:93.184.216.34:443", "tcp:93.184.216.35:443"}}},
		{"only declared names are resolved", named, []step{
			{"dns tcp allowed.test", "[93.184.216.34] <nil>"},
			{"dns udp ALLOWED.test", "[93.184.216.34] <nil>"},
			{"dns udp upper.example", "[93.184.216.37] <nil>"},
			{"dns tcp other.test", "server misbehaving"},
			{"dns udp sub.allowed.test", "server misbehaving"},
		}, runner.Traffic{Refused: 4, RefusedTo: []string{"dns:other.test:53", "dns:sub.allowed.test:53"}}},
		{"a name does not lead to the host or its neighbours", named, []step{
			{"dns udp rebound.test", "server misbehaving"},
			{"dns udp own.test", "server misbehaving"},
			{"dns udp mixed.test", "[93.184.216.36] <nil>"},
			{"echo tcp 127.0.0.1:443", "reset"},
			{"echo tcp 8.8.4.4:443", "reset"},
		}, runner.Traffic{Refused: 6, RefusedTo: []string{"dns:own.test:53", "dns:rebound.test:53", "tcp:127.0.0.1:443", "tcp:8.8.4.4:443"}}},
		{"an address that is named is reached, be it special", named, []step{
			{"echo tcp 192.168.7.7:8443", "hello"},
			{"echo tcp 1.1.1.1:80", "hello"},
			{"echo tcp 192.168.7.7:443", "reset"},
			{"echo tcp 192.168.7.7:80", "reset"},
		}, runner.Traffic{Sent: 10, Received: 10, Connections: 2, Refused: 2, RefusedTo: []string{"tcp:192.168.7.7:443", "tcp:192.168.7.7:80"}}},
		{"any host is any host of the internet", anyHost, []step{
			{"echo tcp 93.184.216.34:443", "hello"},
			{"echo udp 93.184.216.35:443", "hello"},
			{"dns udp other.test", "[93.184.216.35] <nil>"},
			{"dns udp nowhere.test", "no such host"},
			{"echo tcp 169.254.169.254:443", "reset"},
			{"echo tcp 169.254.169.254:80", "ECONNREFUSED"},
			{"echo tcp 10.0.0.1:443", "reset"},
			{"echo tcp 127.0.0.1:443", "reset"},
			{"echo tcp 8.8.4.4:443", "reset"},
			{"echo udp 93.184.216.34:123", "ECONNREFUSED"},
			{"echo udp 169.254.169.254:443", "EHOSTUNREACH"},
			{"echo tcp [2001:db8::1]:443", "ENETUNREACH"},
		}, runner.Traffic{Sent: 10, Received: 10, Connections: 2, Refused: 7, RefusedTo: []string{
			"tcp:10.0.0.1:443", "tcp:127.0.0.1:443", "tcp:169.254.169.254:443", "tcp:169.254.169.254:80", "tcp:8.8.4.4:443", "udp:169.254.169.254:443", "udp:93.184.216.34:123",
		}}},
		{"what fails outside is reset inside", anyHost, []step{
			{"echo tcp 93.184.216.99:443", "reset"},
		}, runner.Traffic{}},
		{"more addresses than a packet holds", named, []step{
			{"dns udp many.test", fmt.Sprint(names["many.test"][:30], " <nil>")},
			{"dns tcp many.test", fmt.Sprint(names["many.test"], " <nil>")},
		}, runner.Traffic{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.network, servers)
			for _, s := range test.steps {
				if got := w.do(s.do); got != s.want {
					t.Errorf("%s: got %q, want %q", s.do, got, s.want)
				}
			}
			if diff := cmp.Diff(test.want, w.settled(test.want)); diff != "" {
				t.Errorf("traffic (-want +got):\n%s", diff)
			}
		})
	}
}

// settled returns what was counted, once it is want, or a second connection has been counted without that: the job hears an
// answer before its bytes are counted.
func (w world) settled(want runner.Traffic) runner.Traffic {
	w.t.Helper()
	var got runner.Traffic
	for range 1000 {
		if got = w.policy.sum(); cmp.Equal(got, want) {
			break
		}
		w.do("dns tcp " + "..") // costs time, counts nothing
	}
	return got
}
