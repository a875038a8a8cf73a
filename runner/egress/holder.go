package egress

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// The holder is for drivers that start processes in a network namespace by its path, such as NetworkNamespacePath= of
// systemd. It is a process in a new network namespace, with the capabilities that Inside needs; it calls Inside, drops them,
// says that it is done, and keeps the namespace until its socket ends. The namespace is then /proc/PID/ns/net.
//
//	gateway, err := egress.Start(network, egress.Options{})
//	conn, far := (a pair of stream sockets)
//	(start egress.HolderCommand with far as descriptor 0, in a new network namespace)
//	err = egress.Hold(conn, network, gateway) // the namespace is ready
//	(run the job in the holder's network namespace)
//	conn.Close()                              // the holder ends
//	traffic, err := gateway.Stop()

// holderArgument0 names the holder process.
const holderArgument0 = "arch-egress-holder"

// HolderCommand returns the argv of the holder. The first is what the binary at executable is to be called by.
func HolderCommand() []string { return []string{holderArgument0} }

// Hold tells the holder at the other end of conn, a stream socket of AF_UNIX, to make its namespace for n and gateway, and
// returns when that is done. The namespace exists until conn is closed.
func Hold(conn *os.File, n runner.Network, gateway *Gateway) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	link, err := gateway.link.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = link.Control(func(linkFD uintptr) {
		err = raw.Control(func(fd uintptr) {
			sent = unix.Sendmsg(int(fd), text, unix.UnixRights(int(linkFD)), nil, unix.MSG_NOSIGNAL)
		})
	})
	if err == nil {
		err = sent
	}
	if err != nil {
		return fmt.Errorf("order network namespace: %w", err)
	}
	gateway.Unlink()
	answer := make([]byte, 1024)
	size, err := conn.Read(answer)
	if err != nil {
		return fmt.Errorf("wait for network namespace: %w", err)
	}
	if string(answer[:size]) != holderReady {
		return fmt.Errorf("make network namespace: %.500q", answer[:size])
	}
	return nil
}

// holderReady is what the holder says when the namespace is made; everything else is an error's text.
const holderReady = "ready"

// holderProcess is the life of the holder. Descriptor 0 is its socket.
func holderProcess() error {
	text, rights := make([]byte, maxOrder), make([]byte, unix.CmsgSpace(4))
	size, rn, _, _, err := unix.Recvmsg(0, text, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	if err = hold(text[:size], rights[:rn]); err == nil {
		err = dropCapabilities()
	}
	answer := holderReady
	if err != nil {
		answer = err.Error()
	}
	if _, werr := unix.Write(0, []byte(answer)); werr != nil || err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// hold makes the namespace that order describes.
func hold(text, rights []byte) error {
	var n runner.Network
	if err := json.Unmarshal(text, &n); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("read order: it has no link")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("read order: it has no link")
	}
	link := os.NewFile(uintptr(fds[0]), "link")
	defer link.Close()
	return Inside(n, link)
}

// dropCapabilities gives up what the holder has, on all threads.
func dropCapabilities() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&none[0])), 0)
	if errno == syscall.ENOTSUP { // a binary with C in it: the other threads run nothing but Go's runtime
		return unix.Capset(&head, &none[0])
	}
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	return nil
}
