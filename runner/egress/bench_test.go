package egress

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkThroughput sends 256 MiB through the gateway process and back, beside the same over the host's loopback
// interface alone, and reports the ratio of times.
func BenchmarkThroughput(b *testing.B) {
	const size = 256 << 20
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Skip("cannot run here: no loopback interface: ", err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
				c.(*net.TCPConn).CloseWrite()
			}()
		}
	}()
	server := l.Addr().(*net.TCPAddr).AddrPort()
	n := onLoopback(server)
	g, err := Start(n, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Stop()
	j := startJob(b, n, g.Link())
	g.Unlink()
	var through, direct time.Duration
	took := func(answer string) time.Duration {
		us, err := strconv.Atoi(strings.TrimPrefix(answer, "ok "))
		if err != nil {
			b.Fatal(answer)
		}
		return time.Duration(us) * time.Microsecond
	}
	for b.Loop() {
		through += took(j.do(fmt.Sprint("flow ", server, " ", size)))
		direct += took(flow(server.String(), strconv.Itoa(size)))
	}
	b.ReportMetric(through.Seconds()/direct.Seconds(), "time/loopback")
	b.ReportMetric(float64(size)*float64(b.N)/through.Seconds()/1e6, "MB/s-through")
}
