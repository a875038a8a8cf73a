package egress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// Options configure Start. The zero value is right for everything but tests.
type Options struct {
	// Executable is the binary to start as the Gateway: one whose main calls Main. Empty: the running one.
	Executable string
	// Resolvers are the name servers that the Gateway asks. Nil: those of the host's /etc/resolv.conf.
	Resolvers []netip.AddrPort
}

// Gateway is a running gateway process. Stop must be called.
type Gateway struct {
	cmd     *exec.Cmd
	control *os.File // what is written is an order; the end of it asks for the sum
	link    *os.File // for Inside

	stop    sync.Once
	traffic runner.Traffic
	err     error
}

// The descriptors of the gateway process.
const (
	controlFD = 3
	linkFD    = 4
)

// argument0 names the gateway process.
const argument0 = "arch-egress-gateway"

// order is what the gateway process is told, as JSON.
type order struct {
	Network   runner.Network
	Resolvers []netip.AddrPort
	Own       []netip.Addr // the host's addresses
}

// maxOrder bounds an order's JSON.
const maxOrder = 1 << 20

// Start starts a gateway process for n, which must be valid. It serves the namespace that Inside is called in with its Link. It ends with
// Stop, or with this process.
func Start(n runner.Network, o Options) (*Gateway, error) {
	if err := Validate(n); err != nil {
		return nil, err
	}
	ord := order{Network: n, Resolvers: o.Resolvers}
	var err error
	if ord.Own, err = ownAddresses(); err != nil {
		return nil, fmt.Errorf("list addresses of host: %w", err)
	}
	if ord.Resolvers == nil {
		ord.Resolvers = hostResolvers("/etc/resolv.conf")
	}
	text, err := json.Marshal(ord)
	if err != nil {
		return nil, err
	}
	g, err := start(o)
	if err != nil {
		return nil, fmt.Errorf("start network gateway: %w", err)
	}
	if _, err := g.control.Write(append(text, '\n')); err != nil {
		g.kill()
		return nil, fmt.Errorf("start network gateway: %w", err)
	}
	return g, nil
}

// start starts the process without an order.
func start(o Options) (*Gateway, error) {
	near, far, err := pair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer far.Close()
	inner, outer, err := pair(unix.SOCK_SEQPACKET)
	if err != nil {
		near.Close()
		return nil, err
	}
	defer outer.Close()
	g := &Gateway{control: near, link: inner}
	if o.Executable == "" {
		o.Executable = "/proc/self/exe"
	}
	for _, credential := range credentials() {
		g.cmd = &exec.Cmd{
			Path: o.Executable, Args: []string{argument0}, Env: []string{}, Dir: "/",
			ExtraFiles:  []*os.File{far, outer},
			SysProcAttr: &syscall.SysProcAttr{Setsid: true, Credential: credential},
		}
		if err = g.cmd.Start(); err == nil {
			return g, nil
		}
	}
	near.Close()
	inner.Close()
	return nil, err
}

// nobody is the user that owns nothing.
const nobody = 65534

// credentials lists as whom the gateway may run, best first: root's privileges are no use to it.
func credentials() []*syscall.Credential {
	if os.Geteuid() != 0 {
		return []*syscall.Credential{nil}
	}
	return []*syscall.Credential{{Uid: nobody, Gid: nobody}, nil} // a user namespace may not have that id
}

// pair makes two connected sockets. The first waits in Go's poller.
func pair(kind int) (near, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return pollable(fds[0], "near"), os.NewFile(uintptr(fds[1]), "far"), nil
}

// Link is the socket that Inside wants. The process inside gets a copy of it; whoever starts that process then calls Unlink.
func (g *Gateway) Link() *os.File { return g.link }

// Unlink closes this process's copy of Link, so that the Gateway notices if the process inside ends before it called Inside.
func (g *Gateway) Unlink() { g.link.Close() }

// stopTimeout is how long the gateway has to sum up.
const stopTimeout = 5 * time.Second

// Stop ends the gateway and returns what went through it. The error says that it had ended before, so that the sum is not known.
// It may be called more than once.
func (g *Gateway) Stop() (runner.Traffic, error) {
	g.stop.Do(func() {
		g.traffic, g.err = g.sum()
		g.kill()
	})
	return g.traffic, g.err
}

func (g *Gateway) sum() (runner.Traffic, error) {
	var t runner.Traffic
	conn, err := g.control.SyscallConn()
	if err != nil {
		return t, err
	}
	conn.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_WR) })
	if err := g.control.SetReadDeadline(time.Now().Add(stopTimeout)); err != nil {
		return t, err
	}
	if err := json.NewDecoder(io.LimitReader(g.control, maxOrder)).Decode(&t); err != nil {
		return t, fmt.Errorf("read sum of network gateway: %w", err)
	}
	return t, nil
}

func (g *Gateway) kill() {
	g.cmd.Process.Kill()
	g.cmd.Wait()
	g.control.Close()
	g.link.Close()
}

// Main runs the gateway if args, which are os.Args, say so. Each
// binary that uses the package calls it before anything else in main, and in TestMain:
//
//	if handled, code := egress.Main(os.Args); handled {
//		os.Exit(code)
//	}
func Main(args []string) (handled bool, code int) {
	if len(args) != 1 {
		return false, 0
	}
	if args[0] != argument0 {
		return false, 0
	}
	if err := gatewayProcess(); err != nil {
		fmt.Fprintf(os.Stderr, "arch: network: %v\n", err)
		return true, 1
	}
	return true, 0
}

// closeLeaked closes every descriptor from first on but those of Go's own poller, which has begun its work before main if one of the
// standard descriptors is non-blocking.
func closeLeaked(first int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < first {
			continue
		}
		switch what, err := os.Readlink("/proc/self/fd/" + e.Name()); {
		case err != nil: // the directory that was read, closed by now
		case what == "anon_inode:[eventpoll]" || what == "anon_inode:[eventfd]":
		default:
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
	}
	return nil
}

// gatewayProcess is the life of the gateway process.
func gatewayProcess() error {
	if err := closeLeaked(linkFD + 1); err != nil {
		return fmt.Errorf("close leaked descriptors: %w", err)
	}
	if err := restrict(); err != nil {
		return err
	}
	control, link := pollable(controlFD, "control"), os.NewFile(linkFD, "link")
	in := json.NewDecoder(io.LimitReader(control, maxOrder))
	var o order
	if err := in.Decode(&o); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	p := newPolicy(o.Network, func() []netip.Addr { return o.Own })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveLink(ctx, p, outside(o.Resolvers), link) }()
	io.Copy(io.Discard, control) // until the driver asks for the sum, or is gone
	cancel()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, errNoSockets) {
			return err
		}
	case <-time.After(stopTimeout / 2): // something hangs; what was counted counts
	}
	return json.NewEncoder(control).Encode(p.sum())
}

// serveLink serves what comes through link.
func serveLink(ctx context.Context, p *policy, r reach, link *os.File) error {
	ports, fds, err := receiveSockets(link)
	link.Close()
	if err != nil {
		return err
	}
	serve(ctx, p, r, ports, fds)
	return nil
}
