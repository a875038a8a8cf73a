package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// patience is how long a connection may take. Confined ones are refused at once; slow guests need some of it.
const patience = 3 * time.Second

// sockets try to reach the network and services of the host.
func sockets() []attempt {
	list := []attempt{
		{"abstract-socket", "socket", func(t attacker.Targets) verdict {
			if t.Abstract == "" {
				return notApplicable("no target")
			}
			return receive(t, "unix", "@"+t.Abstract)
		}},
		{"service-sockets", "socket", serviceSockets},
		{"loopback-tcp", "socket", func(t attacker.Targets) verdict {
			if t.TCP == 0 {
				return notApplicable("no target")
			}
			return receive(t, "tcp", "127.0.0.1:"+strconv.Itoa(t.TCP))
		}},
		{"loopback-udp", "socket", func(t attacker.Targets) verdict {
			if t.UDP == 0 {
				return notApplicable("no target")
			}
			return receive(t, "udp", "127.0.0.1:"+strconv.Itoa(t.UDP))
		}},
		{"metadata-v4", "socket", func(t attacker.Targets) verdict { return metadata(t, "169.254.169.254:80") }},
		{"metadata-v6", "socket", func(t attacker.Targets) verdict { return metadata(t, "[fd00:ec2::254]:80") }},
		{"name-resolution", "socket", func(t attacker.Targets) verdict {
			if t.UDP == 0 {
				return notApplicable("no target")
			}
			conn, err := net.DialTimeout("udp", "127.0.0.53:"+strconv.Itoa(t.UDP), patience)
			if err == nil {
				defer conn.Close()
				_, err = conn.Write([]byte("name"))
			}
			return judge(err, "a question was sent")
		}},
		{"listen-on-all", "socket", func(attacker.Targets) verdict {
			l, err := net.Listen("tcp", "0.0.0.0:0")
			if err != nil {
				return denied(err)
			}
			defer l.Close()
			links, err := net.Interfaces()
			for _, link := range links {
				if link.Flags&net.FlagUp != 0 {
					return succeeded("%v, which %s can reach", l.Addr(), link.Name)
				}
			}
			return deniedf("no interface is up: %v", err)
		}},
		{"configure-network", "socket", func(attacker.Targets) verdict {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return denied(err)
			}
			request, err := unix.NewIfreq("lo")
			if err != nil {
				return denied(err)
			}
			request.SetUint16(unix.IFF_UP)
			return judge(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request), "an interface was changed")
		}},
		{"add-link", "socket", addLink},
	}
	for _, s := range []struct {
		name                   string
		family, kind, protocol int
	}{
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		{"raw-v6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
		{"packet", unix.AF_PACKET, unix.SOCK_RAW, 0},
		{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		{"alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
		{"key", unix.AF_KEY, unix.SOCK_RAW, 2},
		{"netlink-audit", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT},
		{"netlink-netfilter", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER},
		{"netlink-crypto", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_CRYPTO},
		{"bluetooth", unix.AF_BLUETOOTH, unix.SOCK_RAW, 1},
		{"can", unix.AF_CAN, unix.SOCK_RAW, 1},
		{"tipc", unix.AF_TIPC, unix.SOCK_RDM, 0},
		{"xdp", unix.AF_XDP, unix.SOCK_RAW, 0},
		{"rds", unix.AF_RDS, unix.SOCK_SEQPACKET, 0},
	} {
		list = append(list, attempt{"socket-" + s.name, "socket", func(attacker.Targets) verdict {
			fd, err := unix.Socket(s.family, s.kind, s.protocol)
			return judge(err, fmt.Sprintf("descriptor %d", fd))
		}})
	}
	return list
}

// receive connects and reads the token.
func receive(t attacker.Targets, network, address string) verdict {
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return denied(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	conn.Write([]byte("attack\n")) // one that has answered and closed already does not mind
	data := make([]byte, 256)
	n, err := conn.Read(data)
	if err != nil {
		return denied(err)
	}
	if !bytes.Contains(data[:n], []byte(t.Token)) {
		return deniedf("something else answers")
	}
	return succeeded("%s %s answered", network, address)
}

func metadata(t attacker.Targets, address string) verdict {
	v := receive(t, "tcp", address)
	if v.outcome == attacker.Denied && !t.Metadata {
		v.detail += " (there is no such address)"
	}
	return v
}

// serviceSockets connects to what listens on most machines.
func serviceSockets(attacker.Targets) verdict {
	last := error(errors.New("none is there"))
	for _, name := range []string{
		"/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/journal/socket", "/run/systemd/notify", "/run/systemd/journal/stdout",
		"/dev/log", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/nix/var/nix/daemon-socket/socket",
		"/run/guest/socket", "/run/arch-runnerd.sock", "/run/arch/runnerd.sock",
	} {
		for _, network := range []string{"unix", "unixgram"} {
			conn, err := net.DialTimeout(network, name, patience)
			if err == nil {
				conn.Close()
				return succeeded("connected to %s", name)
			}
			last = err
		}
	}
	return denied(last)
}

// addLink asks for a new network interface (rtnetlink(7)).
func addLink(attacker.Targets) verdict {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return denied(err)
	}
	defer unix.Close(fd)
	message := make([]byte, 16+16) // struct nlmsghdr, struct ifinfomsg
	message[0] = byte(len(message))
	message[4] = unix.RTM_NEWLINK
	message[6], message[7] = unix.NLM_F_REQUEST|unix.NLM_F_ACK, 0
	message[20] = 1 // ifi_index: the loopback interface
	message[24], message[28] = unix.IFF_UP, unix.IFF_UP
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return denied(err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < 20 {
		return deniedf("%d bytes, %v", n, err)
	}
	code := int32(uint32(answer[16]) | uint32(answer[17])<<8 | uint32(answer[18])<<16 | uint32(answer[19])<<24)
	if code != 0 {
		return denied(unix.Errno(-code))
	}
	return succeeded("an interface was set up")
}
