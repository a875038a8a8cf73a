// Package peer is what runs in the units that the tests of package systemd start.
package peer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// The first arguments that make a program one of these.
const (
	Worker = "arch-test-worker" // of a pool
	Job    = "arch-test-job"    // a command of a Spec
)

// Main does what args say, if they do.
func Main(args []string) (handled bool, code int) {
	switch {
	case len(args) == 2 && args[1] == Worker:
		return true, work()
	case len(args) >= 3 && args[1] == Job:
		return true, job(args[2:])
	}
	return false, 0
}

// work reads one line from descriptor 0 and does what it says.
func work() int {
	conn := os.NewFile(0, "conn")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 3 // nobody wants anything
	}
	switch strings.TrimSpace(line) {
	case "echo":
		fmt.Fprintln(conn, "echo")
	case "look":
		look(conn)
	case "eat":
		var kept [][]byte
		for range 400 {
			b := make([]byte, 1<<20)
			for n := 0; n < len(b); n += 4096 {
				b[n] = 1
			}
			kept = append(kept, b)
		}
		fmt.Fprintln(conn, "ate", len(kept))
	case "stay":
		fmt.Fprintln(conn, "staying")
		io.Copy(io.Discard, conn)
		select {}
	case "fail":
		return 7
	}
	return 0
}

// look tells what a worker sees.
func look(conn io.Writer) {
	for _, dir := range []string{"/", "/bin", "/dev", "/proc", "/usr", "/run", "/var"} {
		entries, _ := os.ReadDir(dir)
		fmt.Fprint(conn, dir, ":")
		for _, e := range entries {
			fmt.Fprint(conn, " ", e.Name())
		}
		fmt.Fprintln(conn)
	}
	_, err := net.Dial("tcp", "127.0.0.1:1")
	fmt.Fprintln(conn, "network:", errors.Is(err, os.ErrPermission))
	fmt.Fprintln(conn, "write:", os.WriteFile("/x", nil, 0o600) == nil, os.WriteFile("/tmp/x", []byte("x"), 0o600) == nil)
	var st syscall.Statfs_t
	err = syscall.Statfs("/tmp", &st)
	fmt.Fprintln(conn, "size of /tmp:", st.Blocks*uint64(st.Bsize), err)
	fmt.Fprintln(conn, "environment:", os.Environ())
	fmt.Fprintln(conn, "own user:", os.Getuid() >= 0x70000000 && os.Getuid() == os.Getgid())
}

// job is a command: it waits until somebody writes to the pipe that its first argument names, and then writes the file that
// its second one names.
func job(args []string) int {
	pipe, err := os.Open(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("waiting")
	text, err := io.ReadAll(pipe)
	if err == nil {
		fmt.Println("go on") // nobody may be there to read it
		err = os.WriteFile(args[1], text, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
