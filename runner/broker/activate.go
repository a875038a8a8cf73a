package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Listen returns the socket that systemd passed (sd_listen_fds(3)); if there is none, it makes one at path, which belongs to
// user and which only that user, beside root, can connect to. It closes the umask for a moment: call it before anything else runs.
func Listen(path string, user int) (*net.UnixListener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take socket from systemd: %w", err)
	}
	switch len(passed) {
	case 0:
		return listenAt(path, user)
	case 1:
		if l, ok := passed[0].(*net.UnixListener); ok {
			return l, nil
		}
		return nil, errors.New("take socket from systemd: it is no Unix stream socket")
	}
	return nil, fmt.Errorf("take socket from systemd: there are %d, want one", len(passed))
}

// listenAt makes a socket. One that nobody listens at is replaced.
func listenAt(path string, user int) (*net.UnixListener, error) {
	if err := makeOwn(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, &fileError{path, "there is something that is no socket", "remove it, or name another path"}
	default:
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
			return nil, &fileError{path, "another broker listens there", "stop it, or name another path"}
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen at %s: %w", path, err)
		}
	}
	old := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	if user != os.Geteuid() {
		if err := os.Chown(path, user, -1); err != nil {
			l.Close()
			return nil, &fileError{path, fmt.Sprintf("cannot give it to user %d: %v", user, err), "use arch-runnerd.socket: systemd makes the socket then"}
		}
	}
	return l, nil
}

// Ready tells systemd that the broker answers, and keeps its watchdog quiet until ctx ends (sd_notify(3)). Alive is asked each
// time; when it returns false, the watchdog is left to bite. Without systemd it only waits.
func Ready(ctx context.Context, alive func() bool) error {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer daemon.SdNotify(false, daemon.SdNotifyStopping)
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	if interval <= 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if alive() {
				daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			}
		}
	}
}
