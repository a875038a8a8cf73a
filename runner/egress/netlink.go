package egress

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// makeLocal brings the loopback interface up, gives it Address, and makes every address local to it.
func makeLocal() error {
	index, err := loopbackUp()
	if err != nil {
		return fmt.Errorf("bring loopback interface up: %w", err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := request(fd, unix.RTM_NEWADDR, addressMessage(index)); err != nil {
		return fmt.Errorf("add address: %w", err)
	}
	if err := request(fd, unix.RTM_NEWROUTE, routeMessage(index)); err != nil {
		return fmt.Errorf("add route: %w", err)
	}
	return nil
}

// loopbackUp brings "lo" up and returns its number.
func loopbackUp() (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	index := ifr.Uint32()
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return index, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// addressMessage is an ifaddrmsg (rtnetlink(7)) with Address.
func addressMessage(index uint32) []byte {
	body := []byte{unix.AF_INET, 32, 0, unix.RT_SCOPE_UNIVERSE}
	body = binary.NativeEndian.AppendUint32(body, index)
	body = appendAttribute(body, unix.IFA_LOCAL, Address.AsSlice())
	return appendAttribute(body, unix.IFA_ADDRESS, Address.AsSlice())
}

// routeMessage is an rtmsg (rtnetlink(7)) that makes 0.0.0.0/0 local.
func routeMessage(index uint32) []byte {
	body := []byte{
		unix.AF_INET, 0, 0, 0, // no destination, source or type of service
		unix.RT_TABLE_LOCAL, unix.RTPROT_STATIC, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0,
	}
	body = appendAttribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, index))
	return appendAttribute(body, unix.RTA_PREFSRC, Address.AsSlice())
}

func appendAttribute(body []byte, kind uint16, value []byte) []byte {
	body = binary.NativeEndian.AppendUint16(body, uint16(unix.SizeofRtAttr+len(value)))
	body = binary.NativeEndian.AppendUint16(body, kind)
	body = append(body, value...)
	for len(body)%unix.RTA_ALIGNTO != 0 {
		body = append(body, 0)
	}
	return body
}

// request makes a change by netlink(7) and returns the kernel's verdict.
func request(fd int, kind uint16, body []byte) error {
	msg := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	msg = binary.NativeEndian.AppendUint16(msg, kind)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	msg = binary.NativeEndian.AppendUint32(msg, 1) // sequence
	msg = binary.NativeEndian.AppendUint32(msg, 0) // port
	if err := unix.Sendto(fd, append(msg, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var answer [512]byte
	n, _, err := unix.Recvfrom(fd, answer[:], 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+int(unsafe.Sizeof(int32(0))) || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return unix.EBADMSG
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
