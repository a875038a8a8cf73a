package namespace

import (
	"encoding/binary"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Messages of sock_diag(7) about local sockets (linux/sock_diag.h, linux/unix_diag.h).
const (
	diagByFamily  = 20   // SOCK_DIAG_BY_FAMILY
	showMemory    = 0x20 // UDIAG_SHOW_MEMINFO
	memoryKind    = 5    // UNIX_DIAG_MEMINFO
	unixMessage   = 16   // bytes of struct unix_diag_msg
	receiveQueued = 0    // SK_MEMINFO_RMEM_ALLOC, index into the words of a memoryKind
	sendQueued    = 2    // SK_MEMINFO_WMEM_ALLOC
)

// socketMemory returns the bytes that wait in the local sockets of this network namespace. They belong to the kernel, and no
// process's own memory shows them.
func socketMemory() (int64, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	ask := make([]byte, unix.SizeofNlMsghdr+24)
	binary.NativeEndian.PutUint32(ask, uint32(len(ask)))
	binary.NativeEndian.PutUint16(ask[4:], diagByFamily)
	binary.NativeEndian.PutUint16(ask[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := ask[unix.SizeofNlMsghdr:]
	body[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(body[4:], ^uint32(0)) // sockets in every state
	binary.NativeEndian.PutUint32(body[12:], showMemory)
	if err := unix.Sendto(fd, ask, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	var sum int64
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return 0, os.NewSyscallError("recvfrom", err)
		}
		more, err := addSockets(buf[:n])
		sum += more
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// errDiag says that the kernel does not tell of its sockets.
var errDiag = errors.New("read sockets: the kernel refuses")

// addSockets adds up what one answer tells. The error is io.EOF at the end of the last one.
func addSockets(answer []byte) (sum int64, err error) {
	for len(answer) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(answer))
		if size < unix.SizeofNlMsghdr || size > len(answer) {
			return sum, errDiag
		}
		switch binary.NativeEndian.Uint16(answer[4:]) {
		case unix.NLMSG_DONE:
			return sum, io.EOF
		case unix.NLMSG_ERROR:
			return sum, errDiag
		}
		sum += queued(answer[unix.SizeofNlMsghdr:size])
		answer = answer[min((size+3)&^3, len(answer)):]
	}
	return sum, nil
}

// queued returns the bytes that wait in the socket of one message.
func queued(msg []byte) int64 {
	if len(msg) < unixMessage {
		return 0
	}
	for rest := msg[unixMessage:]; len(rest) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < unix.SizeofRtAttr || size > len(rest) {
			return 0
		}
		words := rest[unix.SizeofRtAttr:size]
		if binary.NativeEndian.Uint16(rest[2:]) == memoryKind && len(words) >= 4*(sendQueued+1) {
			return int64(binary.NativeEndian.Uint32(words[4*receiveQueued:])) + int64(binary.NativeEndian.Uint32(words[4*sendQueued:]))
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return 0
}
