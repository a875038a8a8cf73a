package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// endWait is how long a program that Start started may take to end after its connection did. It then has nothing to do but to unlock what it
// holds; after it, it is killed.
const endWait = 10 * time.Second

// Start starts a program that is a daemon on its standard input and output, such as `nix-daemon --stdio --store DIR`: so a store is asked that no
// daemon listens for. start starts it; nil: cmd.Start. The program has what it prints to standard error read, of which the end is in the error if it
// does not greet. Close must be called: it ends the program.
func Start(ctx context.Context, cmd *exec.Cmd, start func() error) (*Client, error) {
	name := cmd.Path
	if start == nil {
		start = cmd.Start
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "daemon"), os.NewFile(uintptr(ends[1]), "daemon")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	messages := &tail{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, messages
	cmd.WaitDelay = time.Second // for what it has started, which may hold standard error
	err = start()
	theirs.Close()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait() // how it ends does not matter: what it has answered, it has answered
	}()
	end := sync.OnceFunc(func() {
		kill := time.AfterFunc(endWait, func() { cmd.Process.Kill() })
		<-ended
		kill.Stop()
	})
	c, err := New(ctx, conn)
	if err != nil {
		end()
		return nil, fmt.Errorf("start %s: %w%s", name, err, messages)
	}
	c.end = end
	return c, nil
}

// tail keeps the last of what is written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-maxWord):]
	return len(p), nil
}

// String returns what is kept, after a colon.
func (t *tail) String() string {
	if text := plain(string(t.kept)); text != "" {
		return ": " + text
	}
	return ""
}
