package control

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a Unix socket, as the kernel says.
type peer struct {
	uid  uint32
	gids []uint32
}

type peerKey struct{}

// withPeer is the server's ConnContext.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if counted, ok := c.(*counted); ok {
		c = counted.Conn
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	if p, err := peerOf(u); err == nil { // else nobody is known to be there, who may nothing
		ctx = context.WithValue(ctx, peerKey{}, p)
	}
	return ctx
}

// peerOf asks the kernel (SO_PEERCRED, SO_PEERGROUPS: socket(7), unix(7)).
func peerOf(c *net.UnixConn) (peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var p peer
	var failed error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failed == nil {
			p = peer{uid: cred.Uid, gids: append(peerGroups(fd), cred.Gid)}
		}
	})
	if err == nil {
		err = failed
	}
	return p, err
}

// maxGroups is NGROUPS_MAX of a usual kernel; whoever is in more counts as in none.
const maxGroups = 65536

func peerGroups(fd uintptr) []uint32 {
	size := uint32(0)
	getsockopt(fd, nil, &size) // it fails, and says how much room it wants
	if size == 0 || size > maxGroups*4 {
		return nil
	}
	groups := make([]uint32, size/4)
	if !getsockopt(fd, unsafe.Pointer(&groups[0]), &size) {
		return nil
	}
	return groups[:size/4]
}

func getsockopt(fd uintptr, into unsafe.Pointer, size *uint32) bool {
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS, uintptr(into), uintptr(unsafe.Pointer(size)), 0)
	return errno == 0
}

// caller is who sent a request.
type caller struct {
	by       string // "uid:N", or "ip:ADDRESS", which proves nothing
	operator bool
	local    bool // through the socket
}

func (s *Server) callerOf(r *http.Request) caller {
	if p, ok := r.Context().Value(peerKey{}).(peer); ok {
		return caller{
			by: fmt.Sprintf("uid:%d", p.uid), local: true,
			operator: p.uid == 0 || p.uid == s.own || s.o.Operators.include(p.uid, p.gids),
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return caller{by: "unknown"}
	}
	return caller{by: "ip:" + host}
}
