package egress

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// jobVariable makes this test binary a job in a network namespace of its own, instead of running tests.
const jobVariable = "ARCH_TEST_EGRESS"

func TestMain(m *testing.M) {
	if handled, code := Main(os.Args); handled {
		os.Exit(code)
	}
	if text := os.Getenv(jobVariable); text != "" {
		os.Exit(beJob(text))
	}
	os.Exit(m.Run())
}

// beJob makes the network of text with the link on descriptor 3, and then does what each line of its input says.
func beJob(text string) int {
	var n runner.Network
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		panic(err)
	}
	link := os.NewFile(3, "link")
	if err := Inside(n, link); err != nil {
		fmt.Println(err)
		return 1
	}
	link.Close()
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(act(strings.Fields(in.Text())))
	}
	return 0
}

// act does one thing in the namespace and says in a line how it went.
func act(words []string) string {
	switch words[0] {
	case "echo": // PROTOCOL ADDRESS: say something and hear it back
		return echo(words[1], words[2])
	case "dns": // PROTOCOL NAME
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, words[1], netip.AddrPortFrom(Resolver, dnsPort).String())
		}}
		addrs, err := r.LookupNetIP(context.Background(), "ip4", words[2]+".")
		if e, ok := errors.AsType[*net.DNSError](err); ok {
			return e.Err
		}
		return fmt.Sprint(addrs, err)
	case "bulk": // ADDRESS SIZE: send that many bytes and hear them back
		return bulk(words[1], words[2])
	case "flow": // ADDRESS SIZE: the same, without a look at what comes back
		return flow(words[1], words[2])
	case "parallel": // ADDRESS NUMBER
		var n int
		fmt.Sscan(words[2], &n)
		return parallel(words[1], n)
	}
	return "unknown"
}

func echo(protocol, address string) string {
	c, err := net.DialTimeout(protocol, address, 20*time.Second)
	if err != nil {
		return errnoOf(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return errnoOf(err)
	}
	var b [5]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return errnoOf(err)
	}
	return string(b[:])
}

// errnoOf names what happened. A reset is noticed by whichever call comes next.
func errnoOf(err error) string {
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return "reset"
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func bulk(address, size string) string {
	var n int64
	fmt.Sscan(size, &n)
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	sent, got := newPattern(), newPattern()
	start := time.Now()
	go func() {
		io.CopyN(c, sent, n)
		c.(*net.TCPConn).CloseWrite()
	}()
	heard, err := io.Copy(got.check(), c)
	if err != nil || heard != n || got.wrong {
		return fmt.Sprintf("heard %d of %d bytes, wrong: %v, %v", heard, n, got.wrong, err)
	}
	return fmt.Sprintf("ok %d", time.Since(start).Microseconds())
}

func flow(address, size string) string {
	var n int64
	fmt.Sscan(size, &n)
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	start := time.Now()
	go func() {
		for block := make([]byte, 256<<10); n > 0; n -= int64(len(block)) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
		c.(*net.TCPConn).CloseWrite()
	}()
	b := make([]byte, 256<<10)
	for {
		if _, err := c.Read(b); err != nil {
			break
		}
	}
	return fmt.Sprintf("ok %d", time.Since(start).Microseconds())
}

// pattern is a stream of bytes that never repeats in small steps.
type pattern struct {
	at    uint64
	wrong bool
}

func newPattern() *pattern { return new(pattern) }

func (p *pattern) byteAt(n uint64) byte { return byte(n*0x9e3779b97f4a7c15>>56) ^ byte(n>>12) }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = p.byteAt(p.at)
		p.at++
	}
	return len(b), nil
}

func (p *pattern) check() io.Writer { return checker{p} }

type checker struct{ p *pattern }

func (c checker) Write(b []byte) (int, error) {
	for _, v := range b {
		c.p.wrong = c.p.wrong || v != c.p.byteAt(c.p.at)
		c.p.at++
	}
	return len(b), nil
}

func parallel(address string, n int) string {
	var running sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for range n {
		running.Go(func() {
			if echo("tcp", address) == "hello" {
				mu.Lock()
				good++
				mu.Unlock()
			}
		})
	}
	running.Wait()
	return fmt.Sprintf("%d of %d", good, n)
}

// job is a process in a network namespace of its own.
type job struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startJob starts a job whose way out is link.
func startJob(t testing.TB, n runner.Network, link *os.File) *job {
	t.Helper()
	text, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), jobVariable+"="+string(text))
	cmd.ExtraFiles = []*os.File{link}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = newNetwork()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip("cannot run here: no user namespaces: ", err)
	}
	j := &job{t, cmd, in, bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line := j.line(); line != "ready" {
		t.Fatalf("make network: %s", line)
	}
	return j
}

// newNetwork starts a process in new user and network namespaces, with all capabilities there.
func newNetwork() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getegid(), Size: 1}},
	}
	for c := range uintptr(40) {
		attr.AmbientCaps = append(attr.AmbientCaps, c)
	}
	return attr
}

func (j *job) line() string {
	j.t.Helper()
	line, err := j.out.ReadString('\n')
	if err != nil {
		j.t.Fatalf("job: %v", err)
	}
	return strings.TrimSpace(line)
}

// do has the job do something.
func (j *job) do(what string) string {
	j.t.Helper()
	if _, err := fmt.Fprintln(j.in, what); err != nil {
		j.t.Fatal(err)
	}
	return j.line()
}

// echoServer listens on the host and repeats what it hears.
func echoServer(t *testing.T, network string) netip.AddrPort {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Skip("cannot run here: no loopback interface: ", err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, maxPacket)
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
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Skip("cannot run here: no loopback interface: ", err)
	}
	t.Cleanup(func() { l.Close() })
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
	return l.Addr().(*net.TCPAddr).AddrPort()
}
