package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// reach says "hello" to each "PROTOCOL:ADDRESS" and prints the answer, or why there is none.
func reach(args []string) {
	for _, a := range args {
		protocol, address, _ := strings.Cut(a, ":")
		fmt.Printf("%s: %s\n", a, hello(protocol, address))
	}
}

func hello(protocol, address string) string {
	c, err := net.DialTimeout(protocol, address, 20*time.Second)
	if err != nil {
		return fault(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return fault(err)
	}
	var b [5]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return fault(err)
	}
	return string(b[:])
}

// fault names what happened. A reset is noticed by whichever call comes next.
func fault(err error) string {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return "reset"
	}
	return word(err)
}

// resolve asks the server that its first argument names for addresses of the others.
func resolve(args []string) {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, net.JoinHostPort(args[0], "53"))
	}}
	for _, name := range args[1:] {
		addrs, err := r.LookupNetIP(context.Background(), "ip4", name+".")
		var e *net.DNSError
		switch {
		case errors.As(err, &e):
			fmt.Printf("%s: %s\n", name, e.Err)
		default:
			fmt.Printf("%s: %v %s\n", name, addrs, word(err))
		}
	}
}
