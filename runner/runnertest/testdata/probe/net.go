package main

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// connect says how connections to the addresses end, and which interfaces are up.
func connect(args []string) {
	for n, a := range args {
		c, err := net.Dial("tcp", a)
		fmt.Printf("address %d: %s\n", n, word(err))
		if err == nil {
			c.Close()
		}
	}
	up := 0
	interfaces, err := net.Interfaces()
	for _, i := range interfaces {
		if i.Flags&net.FlagUp != 0 {
			up++
		}
	}
	fmt.Println("interfaces up:", up, word(err))
}

// connectAbstract says how a connection to an abstract Unix socket ends.
func connectAbstract(args []string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		fail(err)
	}
	say("abstract socket", unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + args[0]}))
}
