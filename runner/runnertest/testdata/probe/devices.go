package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// useDevices says for each device whether it can be read, and whether it can be written.
func useDevices(args []string) {
	for _, p := range args {
		fmt.Printf("%s: read %s, write %s\n", p, use(p, unix.O_RDONLY, unix.Read), use(p, unix.O_WRONLY, unix.Write))
	}
}

func use(path string, flags int, transfer func(int, []byte) (int, error)) string {
	fd, err := unix.Open(path, flags|unix.O_NOCTTY, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	_, err = transfer(fd, make([]byte, 4))
	return word(err)
}
