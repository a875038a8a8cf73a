package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func ignore(s syscall.Signal) { signal.Ignore(s) }

// bomb uses up one resource, in the current directory where it takes one, and goes on until it is stopped. It says what it got
// if it cannot get more.
func bomb(kind string) int {
	switch kind {
	case "fork":
		return bombForks()
	case "threads":
		return bombThreads()
	case "memory":
		return bombMemory()
	case "shared":
		return bombFile("/dev/shm/bomb", 1<<62)
	case "disk":
		return bombFile("bomb", 1<<62)
	case "inodes":
		return bombInodes()
	case "sockets":
		return bombSockets()
	case "pipes":
		return bombPipes()
	case "memory-files":
		return bombMemoryFiles()
	case "segments":
		return bombSegments()
	case "messages":
		return bombMessages()
	case "log":
		line := make([]byte, 64<<10)
		for i := range line {
			line[i] = '.'
		}
		for {
			if _, err := os.Stdout.Write(line); err != nil {
				return 1
			}
		}
	case "time":
		for {
			runtime.Gosched()
		}
	}
	fmt.Fprintf(os.Stderr, "attack: no kind of bomb %q\n", kind)
	return 64
}

// bombForks starts processes that start processes, each in a session of its own, until none can be started any more. The first
// one then gives the others a moment to go on, and ends.
func bombForks() int {
	ignore(syscall.SIGTERM)
	ignore(syscall.SIGHUP)
	for started := 0; ; started++ {
		cmd := exec.Command("/proc/self/exe", "bomb", "fork")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Printf("after %d: %v\n", started, err)
			time.Sleep(time.Second)
			return 3
		}
	}
}

func bombThreads() int {
	for {
		go func() {
			runtime.LockOSThread()
			time.Sleep(time.Hour)
		}()
	}
}

func bombMemory() int {
	for got := 0; ; got += 16 {
		memory, err := unix.Mmap(-1, 0, 16<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			fmt.Printf("after %d MiB: %v\n", got, err)
			return 3
		}
		for i := 0; i < len(memory); i += os.Getpagesize() {
			memory[i] = 1
		}
	}
}

func bombFile(name string, limit int64) int {
	f, err := os.Create(name)
	if err != nil {
		fmt.Println(err)
		return 3
	}
	block := make([]byte, 1<<20)
	for got := int64(0); got < limit; got += int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			fmt.Printf("after %d MiB: %v\n", got>>20, err)
			return 3
		}
	}
	return 0
}

// enough is how much of the kernel's memory a bomb takes at most, so that it is no harm to the machine where nothing stops it: it ends
// with status 4 then.
const enough = 1 << 30

// bombSockets fills the buffers of sockets, which hold memory of the kernel.
func bombSockets() int {
	held := int64(0)
	block := make([]byte, 32<<10)
	for n := 0; held < enough; n++ {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			fmt.Printf("after %d pairs with %d MiB: %v\n", n, held>>20, err)
			return 3
		}
		for _, fd := range pair {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<30)
			for held < enough {
				got, err := unix.Write(fd, block)
				if err != nil {
					break
				}
				held += int64(got)
			}
		}
	}
	fmt.Printf("%d MiB and more\n", held>>20)
	return 4
}

// bombPipes fills pipes of the largest size.
func bombPipes() int {
	held := int64(0)
	block := make([]byte, 1<<20)
	for n := 0; held < enough; n++ {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_NONBLOCK); err != nil {
			fmt.Printf("after %d pipes with %d MiB: %v\n", n, held>>20, err)
			return 3
		}
		unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, 1<<20)
		for {
			got, err := unix.Write(ends[1], block)
			if err != nil {
				break
			}
			held += int64(got)
		}
	}
	fmt.Printf("%d MiB and more\n", held>>20)
	return 4
}

// bombMemoryFiles writes to files without a name, which no file system of the job's bounds, and which are mapped by nobody.
func bombMemoryFiles() int {
	block := make([]byte, 1<<20)
	held := int64(0)
	for held < enough {
		fd, err := unix.MemfdCreate("bomb", 0)
		if err != nil {
			fmt.Printf("after %d MiB: %v\n", held>>20, err)
			return 3
		}
		for range 64 {
			n, err := unix.Write(fd, block)
			if err != nil {
				fmt.Printf("after %d MiB: %v\n", held>>20, err)
				return 3
			}
			held += int64(n)
		}
	}
	fmt.Printf("%d MiB and more\n", held>>20)
	return 4
}

// bombSegments fills System V shared memory, which stays when it is attached nowhere.
func bombSegments() int {
	const size = 32 << 20
	held := 0
	for held < enough {
		id, err := unix.SysvShmGet(0, size, unix.IPC_CREAT|0o600)
		if err != nil {
			fmt.Printf("after %d MiB: %v\n", held>>20, err)
			return 3
		}
		memory, err := unix.SysvShmAttach(id, 0, 0)
		if err != nil {
			fmt.Printf("after %d MiB: %v\n", held>>20, err)
			return 3
		}
		for i := 0; i < size; i += os.Getpagesize() {
			memory[i] = 1
		}
		unix.SysvShmDetach(memory)
		held += size
	}
	fmt.Printf("%d MiB and more\n", held>>20)
	return 4
}

// bombMessages fills System V message queues.
func bombMessages() int {
	message := make([]byte, 8+8192) // a type, and the largest text
	message[0] = 1
	held := 0
	for n := 0; held < enough; n++ {
		queue, err := call(unix.SYS_MSGGET, 0, unix.IPC_CREAT|0o600)
		if err != nil {
			fmt.Printf("after %d queues with %d MiB: %v\n", n, held>>20, err)
			return 3
		}
		for {
			if _, err := call(unix.SYS_MSGSND, queue, addressOf(message), 8192, unix.IPC_NOWAIT); err != nil {
				break
			}
			held += 8192
		}
	}
	fmt.Printf("%d MiB and more\n", held>>20)
	return 4
}

func bombInodes() int {
	for i := range 1 << 30 {
		if i%1000 == 0 {
			os.Mkdir(strconv.Itoa(i/1000), 0o755)
		}
		name := filepath.Join(strconv.Itoa(i/1000), strconv.Itoa(i))
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			fmt.Printf("after %d files: %v\n", i, err)
			return 3
		}
	}
	return 0
}
