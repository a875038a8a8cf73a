package main

import (
	"bufio"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// talk answers each line on descriptor 0 until one says "bye". It reads byte by byte: what follows is the next command's.
func talk([]string) {
	in := bufio.NewReaderSize(os.Stdin, 16)
	for {
		var word string
		if _, err := fmt.Fscanln(in, &word); err != nil {
			fail(err)
		}
		fmt.Fprintln(os.Stdin, "heard", word)
		if word == "bye" {
			return
		}
	}
}

// sayByExchange writes its argument to descriptor 0.
func sayByExchange(args []string) {
	if _, err := os.Stdin.WriteString(args[0]); err != nil {
		fail(err)
	}
}

// keepOpen sends descriptor 0 through itself, so that it stays open while nobody receives it.
func keepOpen([]string) {
	if err := unix.Sendmsg(0, []byte("x"), unix.UnixRights(0), nil, 0); err != nil {
		fail(err)
	}
}
