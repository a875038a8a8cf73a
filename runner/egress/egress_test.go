package egress

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"arch.network/runner"
)

func TestValidate(t *testing.T) {
	tests := []struct {
		rule runner.Egress
		want string
	}{
		{runner.Egress{Protocol: "tcp", Port: 443}, ""},
		{runner.Egress{Protocol: "udp", Host: "time.example.org.", Port: 123}, ""},
		{runner.Egress{Protocol: "tcp", Host: "_x.a-b.example", Port: 1}, ""},
		{runner.Egress{Protocol: "sctp", Port: 443}, `protocol "sctp" is neither tcp nor udp`},
		{runner.Egress{Protocol: "tcp"}, "port 0 is not between 1 and 65535"},
		{runner.Egress{Protocol: "tcp", Port: 65536}, "port 65536"},
		{runner.Egress{Protocol: "tcp", Host: "a b", Port: 1}, `host "a b" is neither`},
		{runner.Egress{Protocol: "tcp", Host: "*.example.org", Port: 1}, `host "*.example.org" is neither`},
		{runner.Egress{Protocol: "tcp", Host: "..", Port: 1}, "is neither"},
		{runner.Egress{Protocol: "tcp", Host: strings.Repeat("a", 64) + ".org", Port: 1}, "is neither"},
		{runner.Egress{Protocol: "tcp", Host: "2001:db8::1", Port: 1}, "not one of IPv4"},
	}
	for _, test := range tests {
		err := Validate(runner.Network{Egress: []runner.Egress{test.rule}})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want %q", test.rule, err, test.want)
		}
	}
	var many runner.Network
	for n := range MaxRules + 1 {
		many.Egress = append(many.Egress, runner.Egress{Protocol: "tcp", Port: n + 1})
	}
	if err := Validate(many); err == nil || !strings.Contains(err.Error(), "257 rules are more than 256") {
		t.Errorf("got %v", err)
	}
	many.Egress = many.Egress[:100]
	if err := Validate(many); err == nil || !strings.Contains(err.Error(), "101 different ports are more than 64") {
		t.Errorf("got %v", err)
	}
}

func TestSpecialAddresses(t *testing.T) {
	for a, want := range map[string]bool{
		"0.0.0.0": true, "10.255.0.1": true, "100.64.0.1": true, "100.128.0.1": false, "127.9.9.9": true, "169.254.169.254": true,
		"172.15.0.1": false, "172.31.255.255": true, "192.0.0.8": true, "192.0.2.1": true, "192.168.0.1": true, "198.19.0.1": true,
		"224.0.0.1": true, "255.255.255.255": true, "8.8.8.8": false, "93.184.216.34": false, "::1": true, "2606:4700::1": true,
	} {
		if got := isSpecial(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: got %v", a, got)
		}
	}
}

func TestHostResolvers(t *testing.T) {
	name := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver x\nnameserver 2001:db8::1\noptions ndots:2\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	want := []netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:53"), netip.MustParseAddrPort("192.0.2.2:53"),
	}
	if diff := cmp.Diff(want, hostResolvers(name), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := hostResolvers(name + ".none"); got != nil {
		t.Errorf("got %v", got)
	}
}

// query is a question for the A record of a.b, with identifier 0x1234.
const query = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x01b\x00\x00\x01\x00\x01"

func TestParseQueryRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":           "",
		"half a header":     query[:11],
		"an answer":         query[:2] + "\x81" + query[3:],
		"another operation": query[:2] + "\x11" + query[3:],
		"two questions":     query[:5] + "\x02" + query[6:],
		"an answer section": query[:7] + "\x01" + query[8:],
		"no end of name":    query[:16],
		"a pointer":         query[:12] + "\xc0\x0c" + query[17:],
		"a long label":      query[:12] + "\x40" + query[13:],
		"the root":          query[:12] + query[16:],
		"a dot in a label":  query[:12] + "\x01." + query[14:],
		"a zero in a label": query[:12] + "\x01\x00" + query[14:],
		"another class":     query[:19] + "\x03",
		"no class":          query[:19],
		"a long message":    query + strings.Repeat("x", maxQuery),
	} {
		if q, err := parseQuery([]byte(in)); err == nil {
			t.Errorf("%s: got %+v", name, q)
		}
	}
}

func TestAnswer(t *testing.T) {
	q, err := parseQuery([]byte(query + "\x00\x00\x29")) // the beginning of an EDNS option
	if err != nil || q.name != "a.b" || q.kind != typeA {
		t.Fatalf("got %+v, %v", q, err)
	}
	want := "\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + query[12:] + "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04"
	if got := string(q.answer(codeOK, []netip.Addr{netip.MustParseAddr("1.2.3.4")}, maxUDP)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzQuery checks that whatever is asked, the answer fits, and repeats the question exactly.
func FuzzQuery(f *testing.F) {
	f.Add([]byte(query))
	f.Add([]byte(query[:12] + "\xc0\x0c" + query[16:]))
	f.Add([]byte(query[:12] + strings.Repeat("\x3f"+strings.Repeat("a", 63), 4) + query[16:]))
	f.Fuzz(func(t *testing.T, in []byte) {
		q, err := parseQuery(in)
		if err != nil {
			return
		}
		out := q.answer(codeOK, manyAddresses(256), maxUDP)
		if len(out) > maxUDP || string(out[dnsHeader:dnsHeader+len(q.raw)]) != string(in[dnsHeader:dnsHeader+len(q.raw)]) {
			t.Errorf("answer of %d bytes: %q", len(out), out)
		}
		again := append([]byte(nil), out...)
		again[2] &^= 0x80 // a query again
		again[6], again[7] = 0, 0
		if q2, err := parseQuery(again[:dnsHeader+len(q.raw)]); err != nil || q2.name != q.name || q2.kind != q.kind {
			t.Errorf("got %+v, %v, want %+v", q2, err, q)
		}
	})
}

// FuzzAttempt checks that no beginning of a packet breaks the observer.
func FuzzAttempt(f *testing.F) {
	f.Add([]byte("\x45\x00\x00\x28\x00\x00\x40\x00\x40\x06\x00\x00\x0a\x00\x02\x0f\x5d\xb8\xd8\x22\x80\x00\x00\x19"))
	f.Add([]byte("\x4f\x00\x00\x28\x00\x00\x40\x00\x40\x11\x00\x00\x0a\x00\x02\x0f\x5d\xb8\xd8\x22"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if a, ok := parseAttempt(in); ok && (a.protocol == "" || !a.to.Addr().Is4()) {
			t.Errorf("got %+v", a)
		}
	})
}
