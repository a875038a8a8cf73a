package egress

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// Inside makes, in the network namespace of the caller, what n needs, and sends it through link to the Gateway: see Gateway.Link. The
// namespace must be new. The caller needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE in the user namespace that owns
// it, must drop them before it runs what is to be confined, and closes link.
func Inside(n runner.Network, link *os.File) error {
	if err := Validate(n); err != nil {
		return err
	}
	if err := makeLocal(); err != nil {
		return fmt.Errorf("set up network: %w", err)
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	ports := portsOf(n)
	for _, p := range ports {
		fd, err := listen(p)
		if err != nil {
			return fmt.Errorf("listen on %s port %d: %w", p.Protocol, p.Number, err)
		}
		fds = append(fds, fd)
	}
	for _, open := range []func() (int, error){observe, openICMP} {
		fd, err := open()
		if err != nil {
			return fmt.Errorf("observe attempts: %w", err)
		}
		fds = append(fds, fd)
	}
	return sendSockets(link, ports, fds)
}

// backlog is how many connections wait for the Gateway. Above it, those who connect are made to wait.
const backlog = 128

// listen makes the socket of p, on all addresses.
func listen(p port) (int, error) {
	kind := unix.SOCK_STREAM
	if p.Protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if p.Protocol == "udp" { // the address that was meant comes with each packet
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: p.Number})
	}
	if err == nil && p.Protocol == "tcp" {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// observed is how many bytes of each packet the Gateway sees: an IPv4 header with options, and the ports.
const observed = 64

// observe makes a socket that shows the first packet of each attempt that leaves a confined process, be it let through or not:
// requests for TCP connections (SYN without ACK) and packets of all other protocols. Sockets of one protocol see what
// arrives; on the loopback interface that is what was sent.
func observe() (int, error) {
	const ipv4 = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	const (
		load     = unix.BPF_LD | unix.BPF_ABS
		loadX    = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH
		indirect = unix.BPF_LD | unix.BPF_B | unix.BPF_IND
		equal    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		anyOf    = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		and      = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		give     = unix.BPF_RET | unix.BPF_K
	)
	program := []unix.SockFilter{
		{Code: load | unix.BPF_H, K: 6},
		{Code: anyOf, K: 0x1fff, Jt: 7}, // a later fragment
		{Code: load | unix.BPF_B, K: 9},
		{Code: equal, K: unix.IPPROTO_TCP, Jf: 4},
		{Code: loadX, K: 0},
		{Code: indirect, K: 13},
		{Code: and, K: 0x17}, // ACK, RST, SYN, FIN
		{Code: equal, K: 0x02, Jf: 1},
		{Code: give, K: observed},
		{Code: give, K: 0},
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv4})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openICMP makes the socket by which the Gateway says that a packet was refused.
func openICMP() (int, error) {
	return unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
}

// extraSockets are the observer and the one for ICMP, which follow those of the ports.
const extraSockets = 2

// sendSockets passes the sockets of ports, and the extra ones, in one message whose bytes are the ports as JSON.
func sendSockets(link *os.File, ports []port, fds []int) error {
	text, err := json.Marshal(ports)
	if err != nil {
		return err
	}
	conn, err := link.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = conn.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), text, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		return sent != unix.EAGAIN
	})
	if err = errors.Join(err, sent); err != nil {
		return fmt.Errorf("pass sockets to gateway: %w", err)
	}
	return nil
}

// maxPortsText bounds the text of ports: 64 and the two of DNS, each less than 40 bytes.
const maxPortsText = (MaxPorts + 2) * 40

// receiveSockets takes what sendSockets sends. The sender is trusted: it is Inside, before anything confined runs.
func receiveSockets(link *os.File) (ports []port, fds []int, err error) {
	text := make([]byte, maxPortsText)
	rights := make([]byte, unix.CmsgSpace(4*(MaxPorts+2+extraSockets)))
	n, rn, _, _, err := unix.Recvmsg(int(link.Fd()), text, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("receive sockets: %w", err)
	}
	if n == 0 {
		return nil, nil, errNoSockets
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return nil, nil, fmt.Errorf("receive sockets: %w", err)
	}
	for _, m := range messages {
		more, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, nil, fmt.Errorf("receive sockets: %w", err)
		}
		fds = append(fds, more...)
	}
	if err := json.Unmarshal(text[:n], &ports); err != nil {
		return nil, nil, fmt.Errorf("receive sockets: %w", err)
	}
	if len(fds) != len(ports)+extraSockets {
		return nil, nil, fmt.Errorf("receive sockets: %d descriptors for %d ports", len(fds), len(ports))
	}
	return ports, fds, nil
}

// errNoSockets says that the namespace ended before it was made.
var errNoSockets = errors.New("the network namespace was not made")
